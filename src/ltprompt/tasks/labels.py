"""What stands for a label in data: its name, a code that the task explains, or a number that the data set names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ltprompt.errors import InputError, brief, choices, nearest
from ltprompt.tasks.task import Task, code_text

NO_NUMBER = "-1"  # what published data sets write where there is no label


@dataclass(frozen=True)
class Labels:
    """Finds a task's label by what stands for it.

    texts: names and codes as text -> index of the label. codes: those of them that a number may be: a number is never
    a name, so that 1 is not taken for a label called "1" where the task does not say so.
    """

    task: Task
    texts: Mapping[str, int]
    codes: Mapping[str, int]

    @classmethod
    def of(cls, task: Task) -> Labels:
        """Return the finder of a task's labels."""
        index = {label: number for number, label in enumerate(task.labels)}
        codes = {code: index[label] for code, label in task.label_codes.items()}
        return cls(task, index | codes, codes)

    def find(self, value: Any) -> int | None:
        """Return the index of the label that a value stands for, None where it stands for none."""
        value = plain(value)
        if isinstance(value, str):
            return self.texts.get(value.strip())
        code = code_text(value)
        return None if code is None else self.codes.get(code)

    def index(self, value: Any, where: str) -> int:
        """Return what `find` does. Raises `InputError`, opened by `where`, where the value stands for no label."""
        found = self.find(value)
        if found is None:
            raise InputError(f"{where}: {self._problem(plain(value))}")
        return found

    def _problem(self, value: Any) -> str:
        if note := missing_note(value):
            return f"unknown label {brief(value)}{note}; give it a label or remove the row"
        name, number = str(value).strip(), isinstance(value, int | float)
        if number and name in self.task.labels:
            return (
                f"the label {name} is a number here and text in the task; write it in quotes: "
                f'"{name}", or give label_map: {{{name}: "{name}"}} in the task'
            )
        if name.removeprefix("-").isdigit():
            return self._unnamed(name)
        return f"unknown label {brief(value)}; {self._choices(name, code_text(value) or name)}"

    def _unnamed(self, number: str) -> str:
        names = ", ".join(self.task.labels)
        if number == NO_NUMBER:
            mend = f"name it in the task, as in label_map: {{-1: {self.task.labels[0]}}}"
            return f"the label -1 is a number that in published data stands for no label; remove the row, or {mend}"
        if self.codes:
            known = ", ".join(self.codes)
            return f"the label {number} has no name; the task names {known}; add it to label_names or label_map there"
        return (
            f"the label {number} is a number; write label names: {names}; or name the numbers in the task, as in "
            f"label_names: [{names}] for 0, 1, ..., or as in label_map: {{{number}: {self.task.labels[0]}}}"
        )

    def _choices(self, name: str, code: str) -> str:
        known = choices(name, self.task.labels)
        if nearest(name, self.task.labels):
            return known
        return (
            f"{known}, or say in the task what it stands for, as in label_map: {{{brief(code)}: {self.task.labels[0]}}}"
        )


def class_names(feature: Any, labels: Labels) -> Sequence[str]:
    """Return the names of the numbers in a column of a data set; empty where the task's own are to be used.

    feature: of the column, such as a `datasets.ClassLabel`. The data set's own names go first, unless they say nothing
    to a task that has `label_names`.
    """
    names: Sequence[str] = getattr(feature, "names", None) or ()
    if labels.task.label_names and all(labels.find(name) is None for name in names):
        return ()
    return names


def named(value: Any, names: Sequence[str]) -> Any:
    """Return the name of a number that has one, and any other value as it is."""
    value = plain(value)
    return names[value] if type(value) is int and 0 <= value < len(names) else value


def plain(value: Any) -> Any:
    """Return a scalar of numpy or torch as Python's, and any other value as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def missing_note(value: Any) -> str:
    """Return the note for a message that a value is what Python, numpy or pandas put where there is none, else ""."""
    nothing = value is None or type(value).__name__ in ("NAType", "NaTType")
    return ", a missing value" if nothing or (isinstance(value, float) and math.isnan(value)) else ""
