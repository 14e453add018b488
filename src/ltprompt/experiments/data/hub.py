"""Labelled data sets of the Hugging Face hub, through `datasets`; no code of theirs is ever run."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import Any

from ltprompt.errors import InputError, choices, nearest
from ltprompt.experiments.data.usable import NO_LABEL, Collector, Usable
from ltprompt.tasks import Task
from ltprompt.tasks.labels import Labels, class_names
from ltprompt.tasks.task import code_text

LOCAL = "or give local files instead, under table, files or official"


class UnreachableError(InputError):
    """A data set that could not be reached at all, whichever of its configs is asked for."""


def read_hub(
    name: str,
    task: Task,
    *,
    config: str,
    split: str,
    revision: str | None = None,
    label_names: Sequence[str] | None = None,
) -> Usable:
    """Return the rows of one split of a data set whose columns are named as the task's.

    name: id on the hub, such as ``facebook/xnli``, or a folder laid out like a data set's repository. config: such as
    the language in ``facebook/xnli`` and ``nala-cub/americas_nli``. revision: branch, tag or commit; the newest where
    it is None. label_names: names of the numbers 0, 1, ... where neither data set nor task names them.
    Rows without a label (-1) or without text are left out and counted. Raises `UnreachableError` where there is no such
    data set or no connection, `InputError` for an unknown config or split and for other columns or labels.
    """
    table = _load(name, config, split, revision)
    where = f"{name} ({config}, {split})"
    for column in (*task.columns, task.label_column):
        if column not in table.column_names:
            found = f"{nearest(column, table.column_names)}found {', '.join(table.column_names)}"
            raise InputError(f"{where}: no column {column!r}; {found}; give a task with these columns")
    names = _names(table.features[task.label_column], label_names, task, where)
    collector = Collector(task, where)
    columns = [table[column][:] for column in (*task.columns, task.label_column)]
    for index, (*texts, label) in enumerate(zip(*columns, strict=True)):
        collector.add(f"{where}, row {index}", texts, _label(label, names, f"{where}, row {index}"))
    return collector.usable()


def _load(name: str, config: str, split: str, revision: str | None) -> Any:
    from datasets import load_dataset  # type: ignore[import-untyped]

    try:
        return load_dataset(name, config, split=split, revision=revision)
    # What fails may be the hub, the network, a file's format or the data set's own description: no common class.
    except Exception as error:
        raise _explained(error, name, config, split, revision) from error


def _explained(error: Exception, name: str, config: str, split: str, revision: str | None) -> InputError:
    """Return the error that says which of name, config and split is at fault."""
    from datasets import get_dataset_config_names, get_dataset_split_names

    asked = f"the data set {name!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        configs = get_dataset_config_names(name, revision=revision)
    except Exception as reason:  # as above
        return UnreachableError(
            f"{asked} cannot be reached: {_one_line(reason)}; check its name and the connection, {LOCAL}"
        )
    # A data set that is only in the cache is said to have this one config, whichever it has.
    if config not in configs and configs != ["default"]:
        return InputError(f"{asked} has no config {config!r}; {choices(config, configs)}")
    try:
        splits = [str(found) for found in get_dataset_split_names(name, config, revision=revision)]
    except Exception:  # as above; then the first error says why
        splits = [split]
    if split not in splits:
        return InputError(f"{asked} has no split {split!r} in {config!r}; {choices(split, splits)}")
    return InputError(f"{asked} cannot be read ({config}, {split}): {_one_line(error)}; choose another, {LOCAL}")


def _names(feature: Any, given: Sequence[str] | None, task: Task, where: str) -> Sequence[str] | None:
    """Return the names of the label numbers, or None where the task says what stands in the column.

    given: of the data section, which goes first; then the data set's own, then the task's. Checks them against the
    task's labels.
    """
    known = Labels.of(task)
    names = given or class_names(feature, known)
    if not names:
        if not known.codes and feature.dtype not in ("string", "large_string"):
            raise InputError(
                f"{where}: labels are numbers ({feature.dtype}) without names; give label_names: [name of 0, of 1, ...]"
            )
        return None
    found = [known.find(name) for name in names if name not in NO_LABEL or name in known.texts]
    if set(found) != set(range(len(task.labels))):
        raise InputError(
            f"{where} has the labels {', '.join(names)}, the task {task.name} has {', '.join(task.labels)}; "
            "give label_names, or a task with these labels"
        )
    return names


def _label(value: str | int | None, names: Sequence[str] | None, where: str) -> str | None:
    if names is None or value is None:
        return code_text(value)
    if int(value) == -1:
        return None
    if not 0 <= int(value) < len(names):
        raise InputError(f"{where}: the label {value} has no name; {len(names)} are named: {', '.join(names)}")
    return names[int(value)]


def _one_line(error: Exception) -> str:
    return shorten(str(error) or type(error).__name__, 300, placeholder=" ...")
