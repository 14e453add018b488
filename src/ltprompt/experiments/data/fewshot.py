"""Folders of few-shot splits drawn before: ``LANGUAGE/train.K.jsonl`` and ``dev.K.jsonl``, K examples a class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltprompt.errors import InputError, choices
from ltprompt.experiments.data.usable import Collector, Usable, filled_lines, value
from ltprompt.files.artifacts import SPLIT_DEV, SPLIT_TRAIN
from ltprompt.files.text import json_records
from ltprompt.tasks import Task, label_counts


def read_fewshot(folder: Path, task: Task, *, shots: int, dev_shots: int) -> tuple[Usable, Usable | None]:
    """Return the train and dev rows of one language's folder; dev is None where `dev_shots` is 0.

    A machine translation may have left a text empty (three of the published splits hold one): it is kept, so that
    everyone trains on the same rows, and remarked on.
    Raises `InputError` for a missing file, with the numbers of shots that there are, and for a file that does not hold
    as many examples of each class as its name says.
    """
    train = _read(folder, SPLIT_TRAIN, task, shots)
    return train, _read(folder, SPLIT_DEV, task, dev_shots) if dev_shots else None


def language_folder(folder: Path, language: str, *, alone: bool) -> Path:
    """Return the folder of a language's splits.

    alone: whether `folder` itself may hold the splits, as it may for the source language.
    Raises `InputError` where the language has no folder, with those that have one.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} does not exist; expected a folder with {{language}}/{SPLIT_TRAIN.format(shots='K')}"
        )
    if (folder / language).is_dir():
        return folder / language
    if alone and _shots_in(folder, SPLIT_TRAIN):
        return folder
    known = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    hint = choices(language, known) if known else f"make it with {SPLIT_TRAIN.format(shots='K')} in it"
    raise InputError(f"{folder} has no folder for the language {language!r}; {hint}")


def _read(folder: Path, pattern: str, task: Task, shots: int) -> Usable:
    path = folder / pattern.format(shots=shots)
    if not path.exists():
        known = _shots_in(folder, pattern)
        name = pattern.format(shots="K")
        there = f"K is one of {', '.join(map(str, known))} there, the largest is {known[-1]}" if known else "none there"
        raise InputError(f"{path} does not exist: {name} with {there}; choose other shots or draw from a table")
    collector = Collector(task, str(path), keep_empty=True)
    for where, record in json_records(filled_lines(path, "a few-shot split")):
        collector.add(where, [value(record, column, where) for column in task.columns], _label(record, task, where))
    found = collector.usable()
    counts = label_counts(found.rows, task)
    if set(counts.values()) != {shots}:
        shown = ", ".join(f"{label} {count}" for label, count in counts.items())
        raise InputError(f"{path} holds {shown}; its name promises {shots} of each: draw it anew or rename it")
    return found


def _label(record: Mapping[str, Any], task: Task, where: str) -> str:
    return str(value(record, task.label_column, where)).strip()


def _shots_in(folder: Path, pattern: str) -> list[int]:
    """Return, ascending, the numbers of shots of a folder's files named like `pattern`."""
    before, after = map(re.escape, pattern.split("{shots}"))
    found = (re.fullmatch(rf"{before}(\d+){after}", entry.name) for entry in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)
