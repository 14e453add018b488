"""Length-sorted micro-batches: a batch's gradient is the same sum in any split, so padding need not be paid for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# A micro-batch holds sequences at least this long relative to its longest, so at most this share is padding ...
SLACK = 0.75
# ... and at most this many tokens, which bounds the memory of the activations.
MAX_TOKENS = 4096


def micro_batches(lengths: np.ndarray, *, slack: float = SLACK, max_tokens: int = MAX_TOKENS) -> list[np.ndarray]:
    """Split a batch into micro-batches of similar length, longest first.

    lengths: [N] integers. Returns arrays of positions in `lengths`; each position stands in exactly one. Sequences
    join a micro-batch while they are at least `slack` times as long as its longest and it stays within `max_tokens`.
    """
    order = np.argsort(-lengths, kind="stable")
    groups: list[list[int]] = []
    longest = 0
    for place in order.tolist():
        if groups and lengths[place] >= slack * longest and (len(groups[-1]) + 1) * longest <= max_tokens:
            groups[-1].append(place)
        else:
            groups.append([place])
            longest = int(lengths[place])
    return [np.array(group, dtype=np.int64) for group in groups]


def pad(sequences: Sequence[np.ndarray], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids [B, L] padded on the right, int64, and the attention mask [B, L], int64."""
    lengths = np.array([len(sequence) for sequence in sequences])
    attention = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(attention.shape, pad_id, dtype=np.int64)
    ids[attention] = np.concatenate(sequences)
    return torch.from_numpy(ids).to(device), torch.from_numpy(attention.astype(np.int64)).to(device)


@lru_cache(maxsize=1)
def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of one epoch, read-only: a permutation that depends on the seed and the epoch alone."""
    order = np.random.default_rng([seed, epoch]).permutation(size)
    order.flags.writeable = False
    return order
