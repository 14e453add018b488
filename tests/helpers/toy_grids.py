"""Toy grids: a folder with all that a small grid needs, and grid files in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from helpers.toy_classifiers import TRAIN, write_table
from helpers.toys import toy_folder

WORDS = ["the", "cat", "sat", "on", "a", "mat", "good", "bad", "no"]


def write_lines(path: Path, count: int = 40) -> None:
    random = np.random.default_rng(3)
    path.write_text("\n".join(" ".join(random.choice(WORDS, random.integers(4, 12))) for _ in range(count)) + "\n")


def make_base(folder: Path) -> Path:
    """Fill a folder with a backbone, text, few-shot splits in two languages, and test tables."""
    toy_folder("xlm-roberta", folder / "toy", layers=3)
    write_lines(folder / "en.txt")
    for language, shift in (("en", 0), ("sw", 1)):
        split = folder / "splits" / language
        split.mkdir(parents=True)
        rows = [{**row, "premise": row["premise"] + " no" * shift} for row in TRAIN]
        for part, chosen in (("train", rows[:3]), ("dev", rows[3:])):
            lines = "".join(json.dumps(row) + "\n" for row in sorted(chosen, key=lambda row: row["label"]))
            (split / f"{part}.1.jsonl").write_text(lines)
        (split / "train.2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (split / "dev.2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_table(folder / f"test.{language}.tsv", rows[::-1])
    return folder


def grid_of(base: Path, **changes: Any) -> dict[str, Any]:
    """A grid of sixteen runs, with changes; what is None is left out."""
    data: dict[str, Any] = {
        "name": "toy",
        "layouts": ["table1"],
        "backbone": str(base / "toy"),
        "data": {
            "source_name": "Toys",
            "train": {"fewshot": "splits"},
            "test": {"files": "test.{language}.tsv"},
            "languages": ["en", "sw"],
        },
        "scores": {"text": "en.txt", "steps": 3, "batch_size": 4, "max_length": 32, "lr": 1e-3},
        "shots": [1, 2],
        "seeds": [1, 2],
        "epochs": 2,
        "lr": 0.01,
        "max_length": 48,
        "methods": ["ft", "dp", {"method": "ltp", "ratio": 0.3, "select": ["delta", "random"]}],
    }
    return {key: value for key, value in {**data, **changes}.items() if value is not None}


def written(base: Path, name: str = "grid.yaml", **changes: Any) -> str:
    """Write such a grid beside its data and return its path."""
    path = base / name
    path.write_text(yaml.safe_dump(grid_of(base, **changes)), encoding="utf-8")
    return str(path)
