"""Sequences one after another in one tensor: an encoder runs over them without padding, or padded where it must.

Padding costs arithmetic in every product of a layer; attention alone has to know where a sequence ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sequences:
    """How the rows of a packed tensor [T, ...] part into sequences: `lengths`, each at least 1, with the sum T."""

    lengths: tuple[int, ...]

    @classmethod
    def of(cls, parts: Sequence[np.ndarray]) -> Sequences:
        """Return how the concatenation of these arrays parts."""
        return cls(tuple(map(len, parts)))

    @cached_property
    def starts(self) -> np.ndarray:
        """First row of each sequence [B], int64."""
        lengths = np.array(self.lengths, np.int64)
        return np.cumsum(lengths) - lengths

    @cached_property
    def positions(self) -> np.ndarray:
        """Place of each row in its sequence [T], int64, from 0."""
        positions: np.ndarray = np.arange(sum(self.lengths)) - np.repeat(self.starts, self.lengths)
        return positions

    @cached_property
    def padded_places(self) -> np.ndarray:
        """Place of each row in the flattened [B × L] of the padded tensor [T], int64."""
        longest = max(self.lengths)
        return self.positions + np.repeat(np.arange(len(self.lengths)) * longest, self.lengths)

    @cached_property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """Neighbours of equal length, as (how many, their length): each run is a batch as it lies."""
        return tuple((len(list(found)), length) for length, found in groupby(self.lengths))


def encode_packed(base: nn.Module, embeddings: Tensor, sequences: Sequences, first_position: int) -> Tensor:
    """Run an encoder over packed embeddings [T, width] and return hidden states [T, hidden], or of those it keeps.

    first_position: number of the first position, as the encoder's position embeddings count. The encoder must attend
    within sequences, by an attention function that its configuration names; whether it does shows in what it computes.
    """
    positions = torch.from_numpy(sequences.positions + first_position).to(embeddings.device)
    found = base(inputs_embeds=embeddings.unsqueeze(0), position_ids=positions.unsqueeze(0), sequences=sequences)
    hidden: Tensor = found[0].squeeze(0)
    return hidden


def encode_padded(base: nn.Module, embeddings: Tensor, sequences: Sequences) -> Tensor:
    """Run an encoder over embeddings [T, width] by way of a padded batch and return hidden states [T, hidden]."""
    count, longest = len(sequences.lengths), max(sequences.lengths)
    places = torch.from_numpy(sequences.padded_places).to(embeddings.device)
    padded = embeddings.new_zeros(count * longest, embeddings.shape[1]).index_copy(0, places, embeddings)
    attention = torch.zeros(count * longest, dtype=torch.int64, device=embeddings.device).index_fill(0, places, 1)
    found = base(
        inputs_embeds=padded.unflatten(0, (count, longest)), attention_mask=attention.unflatten(0, (count, longest))
    )
    hidden: Tensor = found[0].flatten(0, 1).index_select(0, places)
    return hidden
