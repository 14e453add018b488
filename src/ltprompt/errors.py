"""The errors a user can meet: each says what is wrong, what would be right and how to mend it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LONGEST_VALUE = 60  # characters of a value in a message
# pydantic speaks of tuples and dictionaries, the user's files of lists and keys.
_EXPECTED = {
    "tuple_type": "a list such as [a, b]",
    "dict_type": "keys with values, such as {a: b}",
    "model_type": "keys with values, such as {a: b}",
    "string_type": "text in quotes",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
}


class LtpError(Exception):
    """Root of every error that ltprompt raises on purpose; the command line prints it as one line."""


class InputError(LtpError):
    """Data, settings or names given by the user that cannot be used."""


class FileFormatError(LtpError):
    """A file that is truncated, altered, of another kind or of a newer format."""


class MismatchError(LtpError):
    """Two artifacts that do not belong together, such as a ticket and another backbone."""


class BackboneError(LtpError):
    """A checkpoint that cannot serve as a backbone."""


class TrainingError(LtpError):
    """Training that cannot go on, such as a loss that is no longer finite."""


class OutputError(LtpError):
    """A result that could not be written."""


def choices(value: str, known: Iterable[str]) -> str:
    """Return the tail of an error about an unknown name: the nearest known one and all the choices."""
    names = [str(name) for name in known]
    return f"{nearest(value, names)}choose from {', '.join(names)}"


def nearest(value: str, known: Iterable[str]) -> str:
    """Return the question for the known name nearest to an unknown one, ended by a space; empty where none is near."""
    near = difflib.get_close_matches(str(value), [str(name) for name in known], n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def brief(value: object) -> str:
    """Return a value as a message shows it: in Python's writing, cut where it is long."""
    shown = repr(value)
    return shown if len(shown) <= LONGEST_VALUE else f"{shown[: LONGEST_VALUE - 3]}..."


def explain(
    problem: ErrorDetails, place: str | None = None, *, known: Iterable[str] = (), missing: str = "; add it"
) -> str:
    """Return one of pydantic's findings as a line: the field, its value, and what would be right.

    place: what the field is called, its path where it is None; empty where the finding's own text names it. known: the
    keys that may stand where the finding is an unknown one, if they are to be named. missing: a missing one's mend.
    """
    steps = [str(step) for step in problem["loc"]]
    place = ".".join(steps) if place is None else place
    kind, value, reason = problem["type"], problem["input"], problem["msg"]
    if kind == "extra_forbidden":
        known = list(known)
        return f"{place}: unknown key" + (f"; {choices(steps[-1], known)}" if known else "")
    if kind == "missing":
        return f"{place} is missing{missing}"
    if kind == "value_error":
        reason = reason.removeprefix("Value error, ")
        return f"{place}: {reason}" if place else reason
    if kind == "string_type" and isinstance(value, bool):
        return f"{place}: expected text, found {value}; YAML reads yes, no, on, off so: write it in quotes"
    if kind in _EXPECTED:
        return f"{place}: expected {_EXPECTED[kind]}, found {brief(value)}"
    return f"{place} cannot be {brief(value)}: {reason[0].lower()}{reason[1:]}{_near_choice(problem)}"


def _near_choice(problem: ErrorDetails) -> str:
    """Return the tail that names the nearest of a fixed set of choices; empty where none is near."""
    if problem["type"] != "literal_error":
        return ""
    known = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    return f"; {nearest(str(problem['input']), known)}".rstrip("; ")
