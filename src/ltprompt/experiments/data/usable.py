"""Rows of data sets that others published: what is odd in them is counted and said, not refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from ltprompt.errors import InputError, brief, choices
from ltprompt.files.text import Line, read_lines
from ltprompt.tasks import Rows, Task
from ltprompt.tasks.labels import Labels

# What MultiNLI, SNLI and their unlabelled test sets write where there is no agreed label.
NO_LABEL = frozenset({"", "-", "-1", "hidden"})


@dataclass(frozen=True)
class Usable:
    """The rows of a table that can be used, all labelled. remark: what is odd in the table, empty where nothing is."""

    rows: Rows
    remark: str = ""


# Language -> rows. A table without a column of languages has the one key `ONLY`.
Languages = Mapping[str, Usable]
ONLY = ""


class Collector:
    """Gathers the rows of one published table. Those without an agreed label are left out.

    name: of the table, for messages. keep_empty: whether rows with an empty text are kept, else they are left out.
    """

    def __init__(self, task: Task, name: str, *, keep_empty: bool = False) -> None:
        self.task = task
        self.known = Labels.of(task)
        self.name = name
        self.keep_empty = keep_empty
        self.texts: list[tuple[str, ...]] = []
        self.labels: list[int] = []
        self.unlabelled = 0
        self.empty = 0

    def add(self, where: str, texts: Sequence[Any], label: str | None) -> None:
        """Take in one row, or count it as left out. `where` opens the `InputError` of a row that makes no sense.

        label: its name, or a code of the task's as text.
        """
        index = self.known.find(label)
        if index is None:
            if label is not None and label not in NO_LABEL:
                raise InputError(f"{where}: unknown label {label!r}; {choices(label, self.task.labels)}")
            self.unlabelled += 1
            return
        checked = tuple(self._text(where, *found) for found in zip(self.task.columns, texts, strict=True))
        if not all(text.strip() for text in checked):
            self.empty += 1
            if not self.keep_empty:
                return
        self.texts.append(checked)
        self.labels.append(index)

    def usable(self) -> Usable:
        """Return what was gathered. Raises `InputError` where that is nothing."""
        if self.texts:
            return Usable(Rows(tuple(self.texts), tuple(self.labels), self.name), self._remark())
        if self.unlabelled:
            raise InputError(
                f"{self.name} has no labels in any of its {self.unlabelled:,} rows: they are kept back, as those of "
                "some test sets are; choose a file or split with labels"
            )
        raise InputError(f"{self.name} has no rows with text; it needs at least one")

    def _text(self, where: str, column: str, text: Any) -> str:
        if text is None:
            return ""
        if not isinstance(text, str):
            raise InputError(f"{where}: {column} must be text, found {brief(text)}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{where}: {column} holds half a surrogate pair, which is not valid Unicode") from error
        return text

    def _remark(self) -> str:
        kept = "kept" if self.keep_empty else "left out"
        counts = {"without an agreed label left out": self.unlabelled, f"with an empty text {kept}": self.empty}
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def filled_lines(path: Path, what: str) -> Iterator[Line]:
    """Yield the lines of a published file as `read_lines` does, the empty ones left out wherever they stand."""
    return (line for line in read_lines(path, what) if line[1])


def value(record: Mapping[str, Any], column: str, where: str) -> Any:
    """Return a record's value. Raises `InputError` where it has no such column."""
    if column not in record:
        raise InputError(f"{where}: no column {column!r}; found {shown(record)}")
    return record[column]


def shown(names: Iterable[str]) -> str:
    """Return names for a message, cut where they are long."""
    return shorten(", ".join(names), 200, placeholder=" ...")
