"""Whether two implementations compute the same: asserted before anything is timed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ltprompt.errors import InputError, choices


@dataclass(frozen=True)
class Tolerance:
    """How far two implementations may be apart.

    loss: of each step, relative. logits, tensors: of logits and of each tensor's movement, the norm of the difference
    over the norm. absolute: the largest movement of a key bias, whose true gradient is zero, so that Adam turns
    rounding into steps: at most the rate a step, either way.
    """

    loss: float
    logits: float
    tensors: float
    absolute: float


# The rounding of fp32 and of bf16: Adam's first steps have the size of the rate whatever the gradient's, so an entry
# whose gradient is all rounding may go either way; a wrong mask, rate, loss or clip is off by the order of 1.
TOLERANCES = {"fp32": Tolerance(1e-4, 1e-3, 0.02, 3e-4), "bf16": Tolerance(0.02, 0.05, 0.5, 3e-4)}
LOGITS = "logits"  # the name of the tensor that evaluations hand back


@dataclass(frozen=True)
class Verdict:
    """The largest differences found, the tensor that has the largest, and whether all are within the tolerance."""

    passed: bool
    loss: float
    tensors: float
    worst: str
    tolerance: Tolerance

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON, which knows no infinity: None stands for it."""
        plain = asdict(self)
        return plain | {key: plain[key] if math.isfinite(plain[key]) else None for key in ("loss", "tensors")}


def tolerance_of(dtype: str) -> Tolerance:
    """Return the tolerance of a precision. Raises `InputError` for an unknown one."""
    if dtype not in TOLERANCES:
        raise InputError(f"unknown dtype {dtype!r}: {choices(dtype, TOLERANCES)}")
    return TOLERANCES[dtype]


def compare(
    losses: Sequence[float],
    expected_losses: Sequence[float],
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    tolerance: Tolerance,
) -> Verdict:
    """Compare an implementation with another; tensors that only one of them has are infinitely far apart.

    Booleans are masks: they differ by the share of entries that differ.
    """
    loss = max((_relative(a, b) for a, b in zip(losses, expected_losses, strict=True)), default=0.0)
    worst, name, sound = 0.0, "", loss <= tolerance.loss
    allowed = tolerance.logits if LOGITS in expected else tolerance.tensors
    for key in sorted(tensors.keys() | expected.keys()):
        if key not in tensors or key not in expected:
            return Verdict(False, loss, math.inf, key, tolerance)
        if key.endswith("key.bias") and tensors[key].is_floating_point():
            sound = sound and float((tensors[key] - expected[key]).abs().max()) <= tolerance.absolute
            continue
        difference = _difference(tensors[key], expected[key])
        if difference > worst:
            worst, name = difference, key
    return Verdict(sound and worst <= allowed, loss, worst, name, tolerance)


def _relative(found: float, expected: float) -> float:
    return _finite(abs(found - expected) / max(abs(expected), 1e-12))


def _difference(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return math.inf
    if found.dtype == torch.bool:
        return float((found ^ expected).sum()) / max(int(expected.sum()), 1)
    size = float(expected.norm())
    apart = float((found - expected).norm())
    return _finite(apart / size if size else (0.0 if apart == 0 else math.inf))


def _finite(difference: float) -> float:
    """Return a difference, and for what is no number an infinite one, which no tolerance allows."""
    return difference if math.isfinite(difference) else math.inf
