"""Rows given as Python objects: dicts, tuples, texts, a DataFrame or a data set, each known by what it can do.

Neither pandas nor datasets is imported: whoever gives one of theirs has done so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ltprompt.errors import InputError, brief, nearest
from ltprompt.files.text import Record
from ltprompt.tasks.labels import Labels, class_names, missing_note, named, plain
from ltprompt.tasks.task import Task

KINDS = "a list of dicts, of tuples or of texts, a DataFrame, or one split of a data set"


def given_records(rows: Any, task: Task, labelled: bool) -> Iterator[Record]:
    """Yield each row as a mapping of columns, with its place, such as ``rows[3]``.

    Every column is read once and as a whole; a stream, such as a generator, is read row by row. Raises `InputError`
    for what is no table, for a column that is missing, and for a row that is neither mapping, tuple nor text.
    """
    columns = needed_columns(task, labelled)
    if isinstance(rows, Mapping):
        yield from _columns(rows, _checked_mapping(rows).__getitem__, columns)
    elif hasattr(rows, "column_names") and hasattr(rows, "features"):
        yield from _of_data_set(rows, task, columns, labelled)
    elif hasattr(rows, "columns") and hasattr(rows, "to_dict"):
        yield from _columns(rows.columns, rows.__getitem__, columns)
    else:
        labels = Labels.of(task)
        for index, row in enumerate(_iterable(rows, "rows", f"{KINDS} (a file is read with read_rows)")):
            yield f"rows[{index}]", _record(row, labels, labelled, f"rows[{index}]")


def given_labels(labels: Any, task: Task) -> tuple[int, ...]:
    """Return the indices of labels given apart: a list, a Series, an array or a data set's column of names or codes.

    Raises `InputError`, with the label's place, such as ``labels[3]``, for what stands for no label.
    """
    if isinstance(labels, Mapping) or hasattr(labels, "columns") or hasattr(labels, "column_names"):
        raise InputError(f"labels must be one column, found {type(labels).__name__}; choose its column of labels")
    known = Labels.of(task)
    names = class_names(getattr(labels, "features", None), known)
    values = _iterable(labels, "labels", "a list, a Series or an array of label names or codes")
    return tuple(known.index(named(value, names), f"labels[{index}]") for index, value in enumerate(values))


def needed_columns(task: Task, labelled: bool) -> tuple[str, ...]:
    """Return the columns that are read: the texts' and, where labels are needed, theirs."""
    return (*task.columns, task.label_column) if labelled else task.columns


def no_column(column: str, found: Iterable[Any]) -> str:
    """Say that a column is missing; the mend is in the table or in the task, whichever has the wrong name."""
    names = [str(name) for name in found]
    hint = nearest(column, names)
    shown = f"no column {column!r}; found {', '.join(names) or 'none'}"
    return f"{shown}; {hint}rename it in the table or in the task"


def _iterable(values: Any, what: str, expected: str) -> Iterable[Any]:
    """Return values as Python's own where they are an array's, a Series's or a data set's column.

    Raises `InputError` for a single text and for what has no values.
    """
    if hasattr(values, "features") and hasattr(values, "__len__"):
        values = values[:]  # the whole column at once; its iterator would read it row by row
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InputError(f"{what} must be {expected}, found {brief(values)}")
    return values


def _listed(values: Iterable[Any]) -> list[Any]:
    """Return values as a list, the same one where they are one: a large column is not copied again."""
    return values if isinstance(values, list) else list(values)


def _checked_mapping(rows: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse the mappings that are not columns: a data set with all its splits, and a single row."""
    if any(hasattr(value, "column_names") for value in rows.values()):
        splits = ", ".join(map(str, rows))
        raise InputError(f"rows is a data set with the splits {splits}; choose one, such as [{next(iter(rows))!r}]")
    if any(isinstance(value, str) for value in rows.values()):
        raise InputError(f"rows is one row, {brief(dict(rows))}; give a list of rows: [row]")
    return rows


def _of_data_set(rows: Any, task: Task, columns: Sequence[str], labelled: bool) -> Iterator[Record]:
    """Yield the rows of a `datasets.Dataset` or `IterableDataset`, numbers of a class by its name."""
    names = class_names((rows.features or {}).get(task.label_column), Labels.of(task)) if labelled else ()
    if hasattr(rows, "__len__"):
        found = _columns(rows.column_names, lambda column: rows[column][:], columns)
    else:
        found = ((f"rows[{index}]", row) for index, row in enumerate(rows))
    for where, record in found:
        if names and task.label_column in record:
            record = {**record, task.label_column: named(record[task.label_column], names)}
        yield where, record


def _columns(found: Iterable[Any], column: Callable[[str], Any], needed: Sequence[str]) -> Iterator[Record]:
    """Yield the rows of a table that is given by columns. found: the names of all. column: returns one by its name."""
    found = list(found)
    for name in needed:
        if found.count(name) != 1:
            problem = f"more than one column {name!r}; rename one" if name in found else no_column(name, found)
            raise InputError(f"rows: {problem}")
    cells = {name: _listed(_iterable(column(name), f"rows: the column {name!r}", "a list")) for name in needed}
    lengths = {name: len(values) for name, values in cells.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"rows: the columns differ in length ({shown}); give each one value a row")
    for index, values in enumerate(zip(*cells.values(), strict=True)):
        yield f"rows[{index}]", dict(zip(needed, values, strict=True))


def _record(row: Any, labels: Labels, labelled: bool, where: str) -> Mapping[str, Any]:
    """Return one row by columns. A tuple may hold its label where none is needed, as a mapping may."""
    if isinstance(row, Mapping):
        return row
    columns = needed_columns(labels.task, labelled)
    row = plain(row)
    fields = [row] if isinstance(row, str) else row.tolist() if hasattr(row, "tolist") else row
    if isinstance(fields, tuple | list):
        spare = not labelled and len(fields) == len(columns) + 1 and labels.find(fields[-1]) is not None
        if len(fields) == len(columns) or spare:
            return dict(zip(columns, fields, strict=False))
    raise InputError(f"{where}: {_expected(columns, labelled)}, found {brief(row)}{missing_note(row)}")


def _expected(columns: Sequence[str], labelled: bool) -> str:
    shown = f"a tuple ({', '.join(columns)})" if len(columns) > 1 else f"a text ({columns[0]})"
    apart = ", or labels given apart" if labelled else ""
    return f"expected a dict of columns or {shown}{apart}"
