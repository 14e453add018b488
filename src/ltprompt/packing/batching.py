"""Micro-batches: a batch's gradient is the same sum in any split, so padding and memory need not be paid for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

# Tokens of a micro-batch in training without padding, by the precision of products. The activations of so many are the
# largest part of training's memory beside the weights; in fp32 larger products are no faster. In bf16 they are: what is
# done once a micro-batch, such as casting weights, weighs more, and oneDNN runs products of 1,024 rows on one thread.
TRAINING_TOKENS = {"fp32": 1024, "bf16": 2048}
# A padded micro-batch holds sequences at least this long relative to its longest, so at most a quarter is padding.
SLACK = 0.75


def micro_batches(lengths: np.ndarray, *, max_tokens: int, packed: bool) -> list[np.ndarray]:
    """Split a batch into micro-batches, longest sequences first.

    lengths: [N] integers. max_tokens: bounds the memory of the activations; a sequence longer than that stands alone.
    packed: whether sequences stand one after another, so that any of them may stand together; the micro-batches are
    then about equally large. Otherwise only those of similar length do, as their padding is computed too.
    Returns arrays of positions in `lengths`; each position stands in exactly one.
    """
    if not len(lengths):
        return []
    order = np.argsort(-lengths, kind="stable")
    sizes = lengths[order].tolist()
    return np.split(order, _packed_cuts(sizes, max_tokens) if packed else _padded_cuts(sizes, max_tokens))


def _packed_cuts(sizes: Sequence[int], max_tokens: int) -> list[int]:
    """Return where to cut sequences so that each part has at most `max_tokens`, and about as many as the others."""
    left, held, share = sum(sizes), 0, 0.0
    cuts: list[int] = []
    for place, size in enumerate(sizes):
        if held and (held >= share or held + size > max_tokens):
            cuts.append(place)
            left, held = left - held, 0
        if not held:
            share = left / math.ceil(left / max_tokens)
        held += size
    return cuts


def _padded_cuts(sizes: Sequence[int], max_tokens: int) -> list[int]:
    """Return where to cut sequences, longest first, so that each part padded has at most `max_tokens`."""
    cuts, first = [], 0
    for place, size in enumerate(sizes):
        if size < SLACK * sizes[first] or (place > first and (place - first + 1) * sizes[first] > max_tokens):
            cuts.append(place)
            first = place
    return cuts


@lru_cache(maxsize=1)
def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of one epoch, read-only: a permutation that depends on the seed and the epoch alone."""
    order = np.random.default_rng([seed, epoch]).permutation(size)
    order.flags.writeable = False
    return order
