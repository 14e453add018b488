"""What comes before the first unit of work, told to whoever shows it: a library call is silent without."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Advance(Protocol):
    """Reports `done` more units of work, with a short text such as the loss."""

    def __call__(self, done: int = 1, text: str = "") -> None:
        """Advance by `done` units."""


class Phase(Protocol):
    """Opens a phase of work, such as the loading of a backbone; leaving it without an error ends it as a whole."""

    def __call__(self, title: str, total: int = 1) -> AbstractContextManager[Advance]:
        """Open a phase. total: units of work, such as workers that start; one where it has no parts."""


def no_phase(title: str, total: int = 1) -> AbstractContextManager[Advance]:
    """Show nothing."""
    return nullcontext(_ignore)


def _ignore(done: int = 1, text: str = "") -> None:
    pass
