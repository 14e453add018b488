"""Rows drawn from a table, the same for the same seed: few-shot splits, balanced and disjoint, and samples by class."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ltprompt.errors import InputError
from ltprompt.files.artifacts import SPLIT_DEV, SPLIT_REST, SPLIT_TRAIN, canonical_json, sha256, write_text
from ltprompt.tasks import Rows, Task, rows_from
from ltprompt.tasks.template import clean

Key = tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Rows of a table by their indices.

    train, dev: equally many of each class, in an order that the seed shuffles. rest: the rows whose texts are in
    neither, in the table's order. copies: rows left out of everything, their texts being those of a drawn row.
    contradictory: rows whose texts occur under several labels; they are never drawn and stay in `rest`.
    """

    train: tuple[int, ...]
    dev: tuple[int, ...]
    rest: tuple[int, ...]
    copies: int
    contradictory: int

    def __repr__(self) -> str:
        drawn = f"{len(self.train):,} to train, {len(self.dev):,} for dev, {len(self.rest):,} left"
        return f"Split({drawn}, {self.copies:,} copies, {self.contradictory:,} contradictory)"


class SplitRows(NamedTuple):
    """A table split in three; a part that has no rows is empty."""

    train: Rows
    dev: Rows
    rest: Rows


def split(
    rows: Rows | Sequence[Mapping[str, Any]], task: Task, *, shots: int, dev_shots: int | None = None, seed: int = 0
) -> SplitRows:
    """Split labelled rows into `shots` a class to train on, `dev_shots` (as many without it) for dev, and the rest.

    Balanced, disjoint and the same for a seed, by the rule of `draw`; its errors are those of `draw` and `rows_from`.
    """
    found = rows_from(rows, task)
    drawn = draw(found, task, shots=shots, dev_shots=shots if dev_shots is None else dev_shots, seed=seed)
    return SplitRows(found.select(drawn.train), found.select(drawn.dev), found.select(drawn.rest))


def draw(rows: Rows, task: Task, *, shots: int, dev_shots: int, seed: int) -> Split:
    """Draw `shots` rows a class for train and `dev_shots` for dev.

    Rows are ranked by a hash of seed and texts, so the draw depends on neither the order nor the kind of the table:
    train takes the first of a class, dev the last. With one seed a larger train set holds the smaller ones, and the
    dev set stays the same. Rows that look the same to a model are one, written as the first of them stands: white
    space, Unicode compatibility forms and what the task strips do not count. Rows that share only one of their fields,
    such as a premise, are different and may fall on both sides. Raises `InputError` where a class has too few examples.
    """
    if rows.labels is None:
        raise InputError(f"{rows.name} has no labels; read it with labelled=True")
    keys = [_key(fields, task) for fields in rows.texts]
    unequal = _contradictory(keys, rows.labels)
    first = {key: index for index, key in reversed(list(enumerate(keys))) if key not in unequal}
    rank = {index: sha256(canonical_json([seed, *key])) for key, index in first.items()}
    classes = [
        sorted((index for index in rank if rows.labels[index] == label), key=rank.__getitem__)
        for label in range(len(task.labels))
    ]
    _check_enough(classes, rows, task, shots, dev_shots)
    train = [index for ranked in classes for index in ranked[:shots]]
    dev = [index for ranked in classes for index in ranked[len(ranked) - dev_shots :]]
    drawn = {keys[index] for index in (*train, *dev)}
    rest = tuple(index for index, key in enumerate(keys) if key not in drawn)
    return Split(
        train=tuple(sorted(train, key=rank.__getitem__)),
        dev=tuple(sorted(dev, key=rank.__getitem__)),
        rest=rest,
        copies=len(rows) - len(rest) - len(train) - len(dev),
        contradictory=sum(key in unequal for key in keys),
    )


def sample(labels: Sequence[int], count: int, seed: int) -> list[int]:
    """Draw `count` rows, of each class its share by largest remainders, and return their indices in order.

    labels: of the rows, int. A class that there is has a row at least, unless there are more classes than `count`. Rows
    are ranked by a hash of seed and index: tables whose labels stand alike, such as translations of one another, give
    the same rows. All rows where there are no more than `count`.
    """
    if count >= len(labels):
        return list(range(len(labels)))
    rank = [sha256(canonical_json([seed, index])) for index in range(len(labels))]
    drawn: list[int] = []
    for label, share in _shares(Counter(labels), count).items():
        own = [index for index, found in enumerate(labels) if found == label]
        drawn += sorted(own, key=rank.__getitem__)[:share]
    return sorted(drawn)


def split_paths(out: str | Path, shots: int, dev_shots: int) -> dict[str, Path]:
    """Return where train, dev and rest are written. Raises `InputError` where one of them exists."""
    out = Path(out)
    paths = {
        "train": out / SPLIT_TRAIN.format(shots=shots),
        "dev": out / SPLIT_DEV.format(shots=dev_shots),
        "rest": out / SPLIT_REST,
    }
    for path in paths.values():
        if path.exists():
            raise InputError(f"{path} exists already; choose another `out` or delete it")
    return paths


def write_rows(path: str | Path, rows: Rows, task: Task) -> None:
    """Write labelled rows as JSON lines with the task's columns and label names, texts as they were read.

    Other columns of the table they come from are left out.
    """
    assert rows.labels is not None
    lines = (
        json.dumps(
            {**dict(zip(task.columns, fields, strict=True)), task.label_column: task.labels[label]}, ensure_ascii=False
        )
        for fields, label in zip(rows.texts, rows.labels, strict=True)
    )
    write_text(Path(path), "".join(f"{line}\n" for line in lines))


def _key(fields: Sequence[str], task: Task) -> Key:
    return tuple(
        " ".join(unicodedata.normalize("NFKC", clean(field, task.strip_punctuation)).split()) for field in fields
    )


def _shares(sizes: Mapping[int, int], count: int) -> dict[int, int]:
    """Share `count`, less than all, out among classes of these sizes; the first of equal remainders goes before."""
    total, least = sum(sizes.values()), int(count >= len(sizes))
    found = {label: max(count * size // total, least) for label, size in sorted(sizes.items())}

    def lacks(label: int) -> int:
        return count * sizes[label] - found[label] * total

    while sum(found.values()) < count:
        found[max(found, key=lacks)] += 1
    while sum(found.values()) > count:
        found[min((label for label in found if found[label] > least), key=lacks)] -= 1
    return found


def _contradictory(keys: Sequence[Key], labels: Sequence[int]) -> frozenset[Key]:
    """Return the texts that occur under more than one label."""
    label_of: dict[Key, int] = {}
    return frozenset(key for key, label in zip(keys, labels, strict=True) if label_of.setdefault(key, label) != label)


def _check_enough(classes: Sequence[Sequence[int]], rows: Rows, task: Task, shots: int, dev_shots: int) -> None:
    label, fewest = min(zip(task.labels, map(len, classes), strict=True), key=lambda found: found[1])
    if fewest >= shots + dev_shots:
        return
    raise InputError(
        f"{rows.name}: different examples of {label!r} number {fewest}, but `shots` {shots} and `dev_shots` "
        f"{dev_shots} take {shots + dev_shots} of each class; {_mend(fewest, shots, dev_shots)}"
    )


def _mend(fewest: int, shots: int, dev_shots: int) -> str:
    """Say what the smallest class does allow."""
    if shots != dev_shots and fewest > dev_shots:
        return f"the largest possible is `shots` {fewest - dev_shots} with this `dev_shots`"
    if fewest >= 2:
        return f"the largest possible is `shots` {fewest // 2} with as many for dev"
    return "label more of that class"
