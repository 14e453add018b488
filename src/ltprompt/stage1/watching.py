"""Stage 1 shown as a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ltprompt.stage1.training import Step, Watcher
from ltprompt.terminal import Advance, bar


@contextmanager
def stage_one_bar() -> Iterator[Watcher]:
    """Yield a watcher that shows steps, loss, rate, time left and the last held-out loss."""
    with ExitStack() as stack:
        yield _BarWatcher(stack)


class _BarWatcher(Watcher):
    """Opens its bar when the number of steps is known."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._advance: Advance | None = None
        self._held_out = ""

    def start(self, first: int, steps: int) -> None:
        self._advance = self._stack.enter_context(bar("stage 1", steps, first=first))
        if first:
            self._advance(0, f"resumed after step {first}")

    def step(self, step: Step) -> None:
        assert self._advance is not None
        self._advance(1, f"loss {step.loss:.3f}{self._held_out}")

    def evaluation(self, number: int, loss: float) -> None:
        self._held_out = f", held-out {loss:.3f} at step {number}"
