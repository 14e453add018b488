"""Small eligible sets with scores of every kind."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.tickets.selection import Scored


def parameters(layers: int, embeddings: bool = True) -> tuple[EligibleParameter, ...]:
    """A small eligible set with shapes that do not fill whole bytes."""
    made = []
    if embeddings:
        made.append(EligibleParameter("word", (11, 3), 0, "word_embeddings"))
        made.append(EligibleParameter("position", (5, 3), 0, "position_embeddings"))
    for layer in range(1, layers + 1):
        made.append(EligibleParameter(f"{layer}.query.weight", (3, 5), layer, "attention.self.query"))
        made.append(EligibleParameter(f"{layer}.query.bias", (3,), layer, "attention.self.query"))
        made.append(EligibleParameter(f"{layer}.dense.weight", (4, 8), layer, "dense"))
    return tuple(made)


def make_scores(kind: str, layers: int = 5, embeddings: bool = True) -> list[Scored]:
    generator = torch.Generator().manual_seed(layers)

    def values(shape: tuple[int, ...]) -> Tensor:
        uniform = torch.rand(shape, generator=generator)
        made = {
            "distinct": uniform,
            "wide": 10.0 ** (uniform * 70 - 38),
            "heavy ties": (uniform * 3).round(),
            "same upper bits": 1 + (uniform * 9).round() * 2.0**-23,
            "all equal": torch.full(shape, 0.25),
            "all zero": torch.zeros(shape),
            "minus zero": torch.where(uniform < 0.5, torch.tensor(-0.0), torch.tensor(0.0)),
            "denormals": (uniform * 5).round() * 2.0**-149,
            "mostly zero": torch.where(uniform < 0.7, torch.tensor(0.0), uniform),
        }
        return made[kind]

    return [(parameter, values(parameter.shape)) for parameter in parameters(layers, embeddings)]


def full_sort(scores: list[Scored], ratio: float, scope: str, layers: set[int]) -> set[tuple[str, int]]:
    """The rule written plainly: a stable sort of every entry, one group at a time."""
    groups = [sorted(layers)] if scope == "global" else [[layer] for layer in sorted(layers)]
    chosen: set[tuple[str, int]] = set()
    for group in groups:
        entries = [
            (-value, order, index, parameter.name)
            for order, (parameter, tensor) in enumerate(scores)
            if parameter.layer in group
            for index, value in enumerate(tensor.flatten().tolist())
        ]
        size = math.floor(ratio * len(entries) + 0.5)
        chosen |= {(name, index) for _, _, index, name in sorted(entries)[:size]}
    return chosen
