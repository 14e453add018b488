"""Turns: whose thread may use a backbone's weights, shared by readers of one state of them or by one thread alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ltprompt.errors import InputError


class Turns:
    """A readers-writer lock in the order of asking, whose readers say which state they want to read.

    So no one starves: a reader, even of the state that is being read, stands behind whoever asked before it. A thread
    that reads may read the same state again; what would wait for its own thread is refused with `InputError`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._readers: set[tuple[int, object]] = set()  # the thread and the call of each
        self._alone: tuple[int, object] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as new: no thread has a turn with the copy."""
        return type(self), ()

    @contextmanager
    def shared(self, ready: Callable[[], bool], prepare: Callable[[], None]) -> Iterator[None]:
        """Read within the block, beside others for whom the state is `ready`; where it is not, `prepare` makes it so.

        It is prepared while no other thread has a turn.
        """
        turn = (threading.get_ident(), object())
        try:
            with self._changed:
                if not (ready() and self._reads_already()):
                    self._refuse_own()
                    self._wait(lambda: ready() or not self._readers)
                    if not ready():
                        prepare()
                self._readers.add(turn)
            yield
        finally:  # whatever broke off, and wherever
            with self._changed:
                self._readers.discard(turn)
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the only turn within the block."""
        turn = (threading.get_ident(), object())
        try:
            with self._changed:
                self._refuse_own()
                self._wait(lambda: not self._readers)
                self._alone = turn
            yield
        finally:
            with self._changed:
                if self._alone is turn:
                    self._alone = None
                self._changed.notify_all()

    def _wait(self, free: Callable[[], bool]) -> None:
        place = object()
        self._waiting.append(place)
        try:
            self._changed.wait_for(lambda: self._waiting[0] is place and self._alone is None and free())
        finally:
            self._waiting.remove(place)
            self._changed.notify_all()

    def _reads_already(self) -> bool:
        return any(thread == threading.get_ident() for thread, _ in self._readers)

    def _refuse_own(self) -> None:
        if self._alone is not None and self._alone[0] == threading.get_ident():
            raise InputError(
                "the backbone is in training in this very thread; use it when that has ended, or load another one"
            )
        if self._reads_already():
            raise InputError(
                "this very thread is using the backbone with what is on it now; train, take off or use another adapter "
                "when that has ended, or load another backbone"
            )
