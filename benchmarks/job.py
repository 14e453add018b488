"""One measurement: what an implementation is given and what it hands back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.shapes import SEED, Place
from ltprompt.device import DTYPES, Compute


class Clock:
    """Takes the seconds of each step and the loss that came of it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self._begun = time.perf_counter()

    def begin(self) -> None:
        """Start a step; without this call it starts where the last one ended."""
        self._begun = time.perf_counter()

    def lap(self, loss: float = 0.0) -> None:
        """End a step and start the next."""
        now = time.perf_counter()
        self.seconds.append(now - self._begun)
        self.losses.append(loss)
        self._begun = now


@dataclass(frozen=True)
class Job:
    """What an implementation is to do.

    dropout: off where results are compared, on where time is taken. rows: examples that a rival takes at once, as many
    as fit the memory; it accumulates gradients over the batch. seed: of the batches. steps: of training, or repetitions
    of what is not training.
    """

    place: Place
    dropout: bool
    dtype: str
    rows: int
    seed: int
    steps: int
    clock: Clock = field(default_factory=Clock)

    @property
    def compute(self) -> Compute:
        """Device and precision of the products."""
        return Compute(torch.device("cpu"), DTYPES[self.dtype])

    def seeded(self) -> None:
        """Seed what draws dropout and initial values."""
        torch.manual_seed(SEED)


@dataclass(frozen=True)
class Outcome:
    """What is compared, and what else was counted.

    tensors: how far each trained tensor moved, or whatever else has to agree. notes: plain numbers for the record.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


class Movement:
    """How far named tensors move from where they stand now; nothing is kept where nothing is compared."""

    def __init__(self, job: Job, named: Mapping[str, Tensor]) -> None:
        self._named = {} if job.dropout else dict(named)
        self._before = {name: tensor.detach().clone() for name, tensor in self._named.items()}

    def outcome(self) -> Outcome:
        """Return the movement of every tensor so far."""
        return Outcome({name: tensor.detach() - self._before[name] for name, tensor in self._named.items()})
