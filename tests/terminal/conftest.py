"""A folder with all that the commands need, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.readme import bring_files
from helpers.terminals import Terminal
from helpers.toy_grids import make_base, written
from helpers.toys import toy_folder

TOY = ("--max-length", "48", "--batch-size", "4")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, text, a toy backbone, its scores, a ticket, an adapter, a grid with a scores stage, its runs, another."""
    folder = tmp_path_factory.mktemp("terminal")
    bring_files(folder)
    toy_folder("xlm-roberta", folder / "toy")
    (folder / "base").mkdir()
    make_base(folder / "base")
    small = {"seeds": [1, 2], "shots": 1, "methods": ["dp", {"method": "ltp", "ratio": 0.3}]}
    written(folder / "base", **small)
    written(folder / "base", "long.yaml", **small, epochs=10_000)
    terminal = Terminal(folder)
    for command in (
        ("scores", "toy", "--text", "english.txt", "--out", "scores", "--steps", 2, *TOY),
        ("ticket", "cut", "scores", "--ratio", 0.2, "--out", "t.safetensors"),
        ("train", "toy", "--task", "xnli", "--ticket", "t.safetensors", "--train", "train.tsv", "--out", "a",
         "--epochs", 1, *TOY),
        ("grid", "base/grid.yaml", "--out", "runs"),
    ):  # fmt: skip
        terminal.run(*command).check(command=command)
    return folder


@pytest.fixture
def terminal(made: Path) -> Terminal:
    """A terminal of 80 columns in that folder."""
    return Terminal(made)
