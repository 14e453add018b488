"""After the last attention every row goes its own way, so that only the rows that are read need the rest of the way.

What is read of an encoder is one row a sequence (stage 2, evaluation) or the masked ones (stage 1). What stands behind
the last layer's attention runs over those alone: in XLM-R its output projection and feed-forward network, three
quarters of the layer's products.
"""

from __future__ import annotations

import threading
import weakref
from itertools import pairwise
from typing import Any

from torch import Tensor, nn


class _Attention(threading.local):
    """This thread's last call of the attention function: whose it was, and which rows are read of the encoder."""

    module: weakref.ref[nn.Module] | None = None  # weak, as it must not live on for this
    read: Tensor | None = None


_last = _Attention()


def attended(module: nn.Module, read: Tensor | None) -> None:
    """Take down a call of the attention function. read: numbers of rows [n], int64; None where all are."""
    _last.module, _last.read = weakref.ref(module), read


def module_after_attention(layer: nn.Module) -> nn.Module | None:
    """Return the module of `layer` that stands behind the one that attended last in this thread."""
    attention = None if _last.module is None else _last.module()
    for parent in layer.modules():
        for before, after in pairwise(parent.children()):
            if before is attention:
                return after
    return None


def forget_read_rows(module: nn.Module, given: tuple[Any, ...]) -> None:
    """Stand before the last layer: of what was left by attention that broke off, or came again alone, it hears nothing.

    Gradient checkpointing runs layers again after the encoder's end, and other attention takes nothing down.
    """
    _last.read = None


def keep_read_rows(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Stand before the module behind the last attention: of its inputs [1, T, ...] it is given the rows to be read."""
    read, _last.read = _last.read, None
    if read is None:
        return None
    return tuple(each.index_select(1, read) if isinstance(each, Tensor) else each for each in given)
