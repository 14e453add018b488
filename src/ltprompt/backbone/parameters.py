"""What a parameter that may enter a ticket is, apart from any model: pure metadata, cheap to import."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EligibleParameter:
    """One tensor of the eligible set, described by its place in the backbone.

    name: the parameter's name in the backbone's state dict.
    shape: its shape.
    layer: 0 for the input embeddings, 1 to L for the Transformer layers (as in the paper's Figure 3).
    kind: its module within the layer, such as ``attention.self.query``, or ``word_embeddings``.
    """

    name: str
    shape: tuple[int, ...]
    layer: int
    kind: str

    @property
    def numel(self) -> int:
        """Number of scalar entries."""
        return math.prod(self.shape)

    def to_json(self) -> dict[str, Any]:
        """Return the parameter as plain JSON."""
        return {"name": self.name, "shape": list(self.shape), "layer": self.layer, "kind": self.kind}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EligibleParameter:
        """Build the parameter from what `to_json` returned."""
        return cls(data["name"], tuple(data["shape"]), data["layer"], data["kind"])


def total(parameters: Sequence[EligibleParameter]) -> int:
    """Return the number of scalar entries of a set of parameters."""
    return sum(parameter.numel for parameter in parameters)
