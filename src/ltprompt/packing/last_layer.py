"""After the last attention every row goes its own way, so that only the rows that are read need the rest of the way.

What is read of an encoder is one row a sequence (stage 2, evaluation) or the masked ones (stage 1). What stands behind
the last layer's attention runs over those alone: in XLM-R its output projection and feed-forward network, three
quarters of the layer's products.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from torch import Tensor, nn


class LastLayer:
    """The last layer of one encoder; while rows are being read, the module behind its attention is given those alone.

    follower: that module. What is read is kept apart for each thread, as several may run the encoder at once.
    """

    def __init__(self, follower: nn.Module) -> None:
        self._read: dict[int, Tensor] = {}  # by thread; a dictionary, unlike `threading.local`, can be copied
        self._hook = follower.register_forward_pre_hook(self._keep_read_rows)

    @contextmanager
    def reading(self, read: Tensor) -> Iterator[None]:
        """Leave out all rows but `read` [n], int64, where this thread runs the encoder within the block."""
        me = threading.get_ident()
        self._read[me] = read
        try:
            yield
        finally:
            del self._read[me]

    def remove(self) -> None:
        """Leave the layer as it was."""
        self._hook.remove()

    def _keep_read_rows(self, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return of inputs [1, T, ...] the rows that are read, or None, which leaves them whole."""
        read = self._read.get(threading.get_ident())
        if read is None:
            return None
        return tuple(each.index_select(1, read) if isinstance(each, Tensor) else each for each in given)


def module_after_attention(layer: nn.Module, run: Callable[[], object]) -> nn.Module | None:
    """Return the module of `layer` behind the one that attends, if it has one.

    run: runs the encoder over packed sequences, which are handed down to the module that attends and no further.
    """
    told: list[nn.Module] = []

    def note(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        if "sequences" in named:
            told.append(module)

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in layer.modules()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    for parent in layer.modules():
        for before, after in pairwise(parent.children()):
            if told and before is told[-1]:
                return after
    return None
