"""Named tensors in training: copies taken and taken up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class NamedTensors:
    """Parameters that an optimizer trains in place, by name."""

    parameters: Mapping[str, nn.Parameter]

    def snapshot(self) -> dict[str, Tensor]:
        """Return a copy of the values."""
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def load(self, snapshot: Mapping[str, Tensor]) -> None:
        """Take up a copy."""
        for name, value in snapshot.items():
            self.parameters[name].copy_(value)
