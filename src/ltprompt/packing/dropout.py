"""Dropout on a CPU: the same distribution as torch's own, whose masks take several times as long to draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LEVELS = 1 << 16  # of the uniform integers that masks are drawn from


class FastDropout(TorchFunctionMode):
    """Within this context dropout draws words of 64 bits, each for four entries, from a generator of its own.

    entropy: non-negative integers that decide what is drawn. Probabilities are rounded to multiples of 2^-16, and what
    is kept is scaled by the rounded one's inverse: the expectation is exact.
    """

    def __init__(self, *entropy: int) -> None:
        super().__init__()
        self.generator = np.random.Generator(np.random.SFC64(entropy))

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Take the place of the function that drops; all others are called as they are."""
        if func is functional.dropout:
            return self.dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def dropout(self, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """Stand for `torch.nn.functional.dropout`, never in place. Raises `ValueError` for no probability."""
        if not 0 <= p <= 1:
            raise ValueError(f"{p} is not a probability")
        level = round(p * LEVELS)
        if not training or not level:
            return values
        factor = LEVELS / (LEVELS - level) if level < LEVELS else 0.0
        kept: Tensor = _Dropped.apply(values, self._mask(values.shape, level), factor)  # type: ignore[no-untyped-call]
        return kept

    def _mask(self, shape: torch.Size, level: int) -> Tensor:
        """Return what is kept: each entry with probability 1 − level / 2^16."""
        size = shape.numel()
        drawn = self.generator.integers(0, 1 << 64, size=-(-size // 4), dtype=np.uint64).view(np.uint16)[:size]
        return torch.from_numpy(drawn >= level).view(shape)


class _Dropped(torch.autograd.Function):
    """values × mask × factor; the mask is kept for the backward pass in one byte an entry instead of four."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, mask: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.factor = factor  # type: ignore[attr-defined]
        return (values * mask).mul_(factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return (gradient * mask).mul_(ctx.factor), None, None
