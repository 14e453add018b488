"""The paper's numbers, for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

AVERAGE = "AVG"
BACKBONE = "xlm-roberta-base"


def languages(layout: str) -> tuple[str, ...]:
    """Return the languages of a table of the paper, in its order."""
    return tuple(column for column in _tables()[layout]["columns"] if column != AVERAGE)


def published(layout: str, *, method: str, shots: int, source: str | None = None) -> dict[str, float]:
    """Return language (and ``AVG``) -> accuracy in % of a row of the paper; empty where it has none.

    layout: ``table1`` to ``table3``. method: a label such as ``LTP 20 %``. source: of the training data, for table2.
    """
    table = _tables()[layout]
    for row in table["rows"]:
        if (row["method"], row["shots"], row.get("source", source)) == (method, shots, source):
            return dict(zip(table["columns"], row["accuracy"], strict=True))
    return {}


@dataclass(frozen=True)
class Quoted:
    """A row that the paper has from elsewhere. accuracy: language (and ``AVG``) -> accuracy in %."""

    method: str
    shots: int
    source: str
    accuracy: dict[str, float]


def quoted(layout: str) -> tuple[Quoted, ...]:
    """Return the rows of a table that the paper quotes from others' work, in its order."""
    table = _tables()[layout]
    return tuple(
        Quoted(row["method"], row["shots"], row["source"], dict(zip(table["columns"], row["accuracy"], strict=True)))
        for row in table["rows"]
        if row.get("quoted", False)
    )


def paper_task(layout: str) -> str:
    """Return the name of the task that a table's numbers are of."""
    return str(_tables()[layout]["task"])


def paper_examples(layout: str, language: str) -> int:
    """Return how many examples the paper tests on in one of a table's languages."""
    examples = _tables()[layout]["examples"]
    return int(examples[language] if isinstance(examples, dict) else examples)


@cache
def _tables() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("published.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables
