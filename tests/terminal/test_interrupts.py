"""Ctrl-C in the middle: pressed on the terminal, so that every process of the command has it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from helpers.terminals import CTRL_C, Terminal

LONG = ("--max-length", 48, "--out", "new")
COMMANDS = {
    "scores": ("scores", "toy", "--text", "english.txt", "--steps", 10_000, *LONG),
    "train": ("train", "toy", "--task", "xnli", "--method", "sp", "--train", "train.tsv", "--epochs", 10_000, *LONG),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_last_line_says_what_happened_and_nothing_is_left(terminal: Terminal, name: str) -> None:
    with terminal.typed(*COMMANDS[name]) as typed:
        typed.until("[1-9][0-9]*/10000")
        typed.press(CTRL_C)
        typed.end().check_interrupted()
    assert not list(terminal.folder.glob("new/*.json"))


def test_a_grid_says_how_to_go_on(terminal: Terminal) -> None:
    with terminal.typed("grid", "base/long.yaml", "--out", "long") as typed:
        typed.until(": started")
        typed.press(CTRL_C)
        shown = typed.end().check_interrupted()
    assert "0 runs done, 0 failed, 4 left, in long" in shown.lines
    assert "note: the same command goes on from here" in shown.lines


@pytest.mark.parametrize("module", ["typer", "torch"])
def test_a_program_that_is_still_being_imported_ends_in_order(terminal: Terminal, tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = ("-m", "ltprompt", "ticket", "inspect", "t.safetensors")
    with terminal.spawned(sys.executable, *command, PYTHONPATH=path) as typed:
        typed.until("importing")
        typed.press(CTRL_C)
        typed.end().check_interrupted()
