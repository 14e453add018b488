"""Tables of texts and labels: TSV, CSV or JSON lines in, checked rows out, every fault with its file and line."""

from __future__ import annotations

import csv
import io
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ltprompt.errors import InputError, brief, choices
from ltprompt.files.text import EMPTY_LINE, Record, existing_file, json_records, read_lines, read_utf8
from ltprompt.tasks.given import given_labels, given_records, needed_columns, no_column
from ltprompt.tasks.labels import Labels, missing_note
from ltprompt.tasks.task import Task

WHAT = "a table"  # what is expected where a file is missing
_LIMIT = threading.Lock()  # held while csv's limit is another than it was
# What may part columns: its name, and the kind of file that is parted so.
_SEPARATORS = {"\t": ("tabs", ".tsv"), ";": ("semicolons", ""), ",": ("commas", ".csv")}


@dataclass(frozen=True)
class Rows:
    """Examples of a task.

    texts: one tuple of fields an example, in the order of the task's columns.
    labels: one index into the task's labels an example, or None where the rows are unlabelled.
    name: the file they come from, for messages.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[int, ...] | None
    name: str

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, indices: Iterable[int]) -> Rows:
        """Return the rows at `indices`, in that order."""
        chosen = [int(index) for index in indices]
        labels = None if self.labels is None else tuple(self.labels[index] for index in chosen)
        return Rows(tuple(self.texts[index] for index in chosen), labels, self.name)


# What is taken for a table: `rows_from` says which kinds.
Table = Rows | Iterable[Any]


def read_rows(path: str | Path, task: Task, *, labelled: bool = True) -> Rows:
    """Read a .tsv (never quoted), .csv (standard quoting), .jsonl or .json (one object a line) file.

    The columns may stand in any order and others are ignored; labels are names, or codes of the task's `label_names` or
    `label_map`. With `labelled` False the label column is ignored and may be absent. Raises `InputError`, with the
    physical line, for anything that cannot be used.
    """
    path = existing_file(Path(path), WHAT)
    if path.suffix.lower() not in _READERS:
        raise InputError(f"{path}: unknown kind of table {path.suffix!r}; {choices(path.suffix, _READERS)}")
    records = _READERS[path.suffix.lower()](path, needed_columns(task, labelled))
    return _build(records, task, labelled, str(path))


def rows_from(rows: Table, task: Task, labelled: bool = True, *, labels: Iterable[Any] | None = None) -> Rows:
    """Return rows given as Python objects, after the same checks as `read_rows`; `Rows` come back unchanged.

    rows: dicts of columns; tuples of fields in the order of the task's columns, the label last; texts alone, for a task
    of one column; a DataFrame; a `datasets.Dataset` or a slice of it. labels: one a row, apart from the rows, such as
    scikit-learn's ``y``; what the rows say of labels is ignored then. A label is a name, a code of the task's
    `label_names` or `label_map`, or a number that the data set names itself.
    Raises `InputError`, with the row, for what cannot be used, and for `Rows` without labels where they are needed.
    """
    if labels is not None:
        return _with_labels(rows_from(rows, task, labelled=False), given_labels(labels, task))
    if isinstance(rows, Rows):
        if labelled and rows.labels is None:
            raise InputError(f"{rows.name} has no labels; read it with labelled=True")
        return rows
    return _build(given_records(rows, task, labelled), task, labelled, "rows")


def label_counts(rows: Rows, task: Task) -> dict[str, int]:
    """Return label -> number of rows, every label of the task included. Raises `InputError` for unlabelled rows."""
    if rows.labels is None:
        raise InputError(f"{rows.name} has no labels; read it with labelled=True")
    found = Counter(rows.labels)
    return {label: found[index] for index, label in enumerate(task.labels)}


def check_balance(rows: Rows, task: Task) -> str | None:
    """Return a warning with the counts where the classes differ in size, else None.

    Raises `InputError` where a class has no example or the rows have no labels.
    """
    counts = label_counts(rows, task)
    shown = ", ".join(f"{label} {count}" for label, count in counts.items())
    missing = [label for label, count in counts.items() if not count]
    if missing:
        raise InputError(f"{rows.name} has no example of {', '.join(missing)} ({shown}); add at least one a class")
    if len(set(counts.values())) == 1:
        return None
    return f"{rows.name} is not balanced: {shown}"


def _with_labels(rows: Rows, labels: tuple[int, ...]) -> Rows:
    if len(rows) != len(labels):
        raise InputError(f"{rows.name} number {len(rows)} and labels {len(labels)}; give one label a row")
    return replace(rows, labels=labels)


def _build(records: Iterable[Record], task: Task, labelled: bool, name: str) -> Rows:
    """Check every record and gather the rows."""
    texts: list[tuple[str, ...]] = []
    labels: list[int] = []
    known = Labels.of(task)
    for where, record in records:
        texts.append(tuple(_text(record, column, where) for column in task.columns))
        if labelled:
            labels.append(known.index(_value(record, task.label_column, where), where))
    if not texts:
        raise InputError(f"{name} has no rows; it needs at least one")
    return Rows(tuple(texts), tuple(labels) if labelled else None, name)


def _value(record: Mapping[str, Any], column: str, where: str) -> Any:
    if column not in record:
        raise InputError(f"{where}: {no_column(column, record)}")
    return record[column]


def _text(record: Mapping[str, Any], column: str, where: str) -> str:
    value = _value(record, column, where)
    if not isinstance(value, str):
        raise InputError(f"{where}: {column} must be text, found {brief(value)}{missing_note(value)}")
    if not value.strip():
        raise InputError(f"{where}: {column} is empty; give it a text or remove the row")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: {column} holds half a surrogate pair, which is not valid Unicode") from error
    return value


def _read_tsv(path: Path, needed: Sequence[str]) -> Iterator[Record]:
    lines = ((where, line.split("\t")) for where, line in read_lines(path, WHAT))
    return _separated(path, lines, needed, "\t", "a tab inside a text would part it")


def _read_csv(path: Path, needed: Sequence[str]) -> Iterator[Record]:
    return _separated(path, _csv_records(path, read_utf8(path, WHAT)), needed, ",", "quote a text that holds a comma")


def _csv_records(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """Return each record with the place of the line it starts on; a quoted field may run over several lines."""
    reader = csv.reader(io.StringIO(text.rstrip("\r\n"), newline=""), strict=True)
    records, line = [], 1
    try:
        with _field_limit(len(text)):
            for record in reader:
                records.append((f"{path}, line {line}", record))
                line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: not valid CSV ({error}); check the quotes") from error
    return iter(records)


@contextmanager
def _field_limit(size: int) -> Iterator[None]:
    """Let csv read fields of up to `size` characters: its limit, 128 KiB at first, is the whole process's."""
    with _LIMIT:
        before = csv.field_size_limit()
        csv.field_size_limit(max(before, size))
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _separated(
    path: Path, lines: Iterator[tuple[str, list[str]]], needed: Sequence[str], separator: str, hint: str
) -> Iterator[Record]:
    """Yield the records under a header. hint: what may have parted a line wrongly."""
    where, header = next(lines, (str(path), []))
    header = [name.strip() for name in header]
    if not header:
        raise InputError(f"{path} is empty; it needs a header with {', '.join(needed)}, and rows")
    for column in needed:
        if header.count(column) != 1:
            problem = f"more than one column {column!r}" if column in header else no_column(column, header)
            raise InputError(f"{where}: {_otherwise_parted(header, separator) or problem}")
    for where, fields in lines:
        if fields in ([], [""]):
            raise InputError(f"{where}: {EMPTY_LINE}")
        if len(fields) != len(header):
            raise InputError(f"{where}: {len(fields)} fields under {len(header)} columns; {hint}")
        yield where, dict(zip(header, fields, strict=True))


def _otherwise_parted(header: Sequence[str], separator: str) -> str:
    """Say how the columns of a header that is one cell are parted, if not by `separator`; empty where they are not."""
    other = next((sign for sign in _SEPARATORS if sign in header[0]), None) if len(header) == 1 else None
    if other is None:
        return ""
    found, kind = _SEPARATORS[other]
    wanted, own = _SEPARATORS[separator]
    mend = f"name the file {kind}" if kind else f"save the table with {wanted}"
    return f"the columns are parted by {found}, and those of a {own} file by {wanted}; {mend}"


def _read_jsonl(path: Path, needed: Sequence[str]) -> Iterator[Record]:
    """Yield one record a line; `_build` looks for the needed columns, which each line names for itself."""
    return json_records(read_lines(path, WHAT))


_READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Record]]] = {
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
}
