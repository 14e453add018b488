"""The errors a user can meet: each says what is wrong, what would be right and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
