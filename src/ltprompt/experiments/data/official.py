"""The official releases of NLI data, read by their header whatever a file is called.

- XNLI 1.0 (Conneau et al., 2018), ``xnli.dev`` and ``xnli.test``: every language in one file; TSV or JSON lines.
- XNLI-MT 1.0, ``multinli.train.LANG.tsv``: ``premise, hypo, label``, with ``contradictory`` for contradiction.
- MultiNLI and SNLI: TSV or JSON lines; ``-`` where the annotators did not agree.
- AmericasNLI (Ebrahimi et al., 2022): ``dev.tsv`` with every language, and a file a language, which has no header.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ltprompt.errors import InputError, nearest
from ltprompt.experiments.data.usable import ONLY, Collector, Languages, filled_lines, shown, value
from ltprompt.files.text import Line, Record, json_records
from ltprompt.tasks import Task

LANGUAGE_COLUMN = "language"
LABEL_COLUMNS = ("gold_label", "label")
ALIASES = {"premise": ("premise", "sentence1"), "hypothesis": ("hypothesis", "hypo", "sentence2")}
SYNONYMS = {"contradictory": "contradiction"}
# The columns of AmericasNLI's files of one language, which do without a header.
HEADERLESS = [LANGUAGE_COLUMN, "premise", "hypothesis", "label"]


def read_official(path: Path, task: Task) -> Languages:
    """Return language -> rows of a release; a file without a column of languages has the one key `ONLY`.

    TSV is never quoted: a stray quote is text. Rows without an agreed label or with an empty text are left out and
    counted. Raises `InputError`, with the line, for a file that is of none of the layouts or has no labels.
    """
    names, records = _open(path, task)
    columns = _columns(names, task, path)
    collectors: dict[str, Collector] = {}
    for where, record in records:
        *texts, label = (value(record, column, where) for column in columns)
        language = str(record.get(LANGUAGE_COLUMN) or ONLY)
        name = f"{path} ({language})" if language else str(path)
        collectors.setdefault(language, Collector(task, name)).add(where, texts, _label(label, task))
    if not collectors:
        raise InputError(f"{path} has no rows; it needs at least one")
    return {language: collector.usable() for language, collector in collectors.items()}


def _open(path: Path, task: Task) -> tuple[Sequence[str], Iterator[Record]]:
    """Return the names of the columns and the records of JSON lines or of a TSV, told apart by the first character."""
    lines = filled_lines(path, "a released table")
    first = next(lines, None)
    if first is None:
        raise InputError(f"{path} is empty; it needs a header, and rows")
    if first[1].startswith("{"):
        records = json_records(chain([first], lines))
        record = next(records)
        return list(record[1]), chain([record], records)
    header = [name.strip() for name in first[1].split("\t")]
    if len(header) == len(HEADERLESS) and header[-1] in task.labels:
        return HEADERLESS, _tsv(HEADERLESS, chain([first], lines))
    return header, _tsv(header, lines)


def _tsv(header: Sequence[str], lines: Iterable[Line]) -> Iterator[Record]:
    """Yield the records under a header; columns at the end may be missing, as those of annotators' labels are."""
    for where, text in lines:
        fields = text.split("\t")
        if len(fields) > len(header):
            raise InputError(
                f"{where}: {len(fields)} fields under {len(header)} columns; a tab inside a text would part it"
            )
        yield where, dict(zip(header, fields, strict=False))


def _columns(names: Sequence[str], task: Task, path: Path) -> tuple[str, ...]:
    """Return what the task's text columns, then its label column, are called in this release."""
    texts = [_first_of(ALIASES.get(column, (column,)), names, path) for column in task.columns]
    for column in (*LABEL_COLUMNS, task.label_column):
        if column in names:
            return (*texts, column)
    raise InputError(
        f"{path} has no labels: no column {' or '.join(LABEL_COLUMNS)}; found {shown(names)}. The labels of some test "
        "sets are kept back; choose a file with labels"
    )


def _first_of(wanted: Sequence[str], names: Sequence[str], path: Path) -> str:
    for name in wanted:
        if name in names:
            return name
    raise InputError(
        f"{path}, line 1: no column {' or '.join(wanted)}; {nearest(wanted[0], names)}found {shown(names)}"
    )


def _label(found: Any, task: Task) -> str | None:
    if found is None:
        return None
    label = str(found).strip()
    return label if label in task.labels else SYNONYMS.get(label, label)
