"""Attention within packed sequences, as transformers calls an attention function.

Torch's fused attention takes sequences of one length at a time, without a copy. In training it has no dropout that is
fast, and a step has as many lengths as sequences: there sequences of similar length are padded to one another, for
attention alone, so that a few products take the place of hundreds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface

from ltprompt.packing.sequences import Sequences

PACKED = "ltprompt_packed"  # the name of `packed_attention` in transformers
# Sequences train together that are at least this long relative to the longest of them.
SIMILAR = 0.7


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sequences: Sequences | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within each sequence.

    query, key: [1, heads, T, d], value: [1, heads, T, e], of one floating dtype; returns [1, T, heads, e] in it. Raises
    `TypeError` where a mask or a window is given. Without `sequences`, in the stock forward, it is transformers' own.
    """
    if sequences is None:
        given = {"scaling": scaling, "dropout": dropout, **others}
        return _usual_attention(module, query, key, value, attention_mask, **given)
    if attention_mask is not None or sliding_window is not None:
        raise TypeError(f"{type(module).__name__} attends in a way that packed sequences do not know")
    scale = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
    if dropout or query.requires_grad:
        return _by_groups(query, key, value, sequences, scale, dropout), None
    return _by_runs(query, key, value, sequences, scale), None


def _usual_attention(*given: Any, **others: Any) -> tuple[Tensor, None]:
    found: tuple[Tensor, None] = AttentionInterface()["sdpa"](*given, **others)
    return found


def _by_runs(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, scale: float) -> Tensor:
    """Attend run by run of sequences of one length; nothing is copied but the result."""
    sizes = [count * length for count, length in sequences.runs]
    parts = zip(*(tensor.squeeze(0).split(sizes, dim=1) for tensor in (query, key, value)), strict=True)
    found = []
    for run, part in zip(sequences.runs, parts, strict=True):
        q, k, v = (tensor.unflatten(1, run).transpose(0, 1) for tensor in part)  # each [count, heads, length, d]
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=scale)
        found.append(mixed.transpose(1, 2).flatten(0, 1))
    return torch.cat(found).unsqueeze(0)


def _by_groups(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, scale: float, dropout: float) -> Tensor:
    """Attend group by group of sequences of similar length; scores and weights are rounded to the query's dtype."""
    heads, rows = query.shape[1:3]
    groups = _groups(sequences, heads)
    padded = (
        _Gathered.apply(  # type: ignore[no-untyped-call]
            tensor[0].transpose(0, 1).reshape(rows * heads, tensor.shape[-1]), groups.padded, groups.packed
        )
        for tensor in (query, key, value)
    )
    found = []
    with torch.autocast(query.device.type, enabled=False):
        for q, k, v, bias in groups.split(*padded):
            scores = torch.baddbmm(bias.to(q.dtype), q, k.transpose(1, 2), alpha=scale)
            weights = scores.softmax(-1)
            found.append(torch.bmm(functional.dropout(weights, dropout) if dropout else weights, v).flatten(0, 1))
    mixed: Tensor = _Scattered.apply(torch.cat(found), groups.padded, groups.packed)  # type: ignore[no-untyped-call]
    return mixed.view(1, rows, heads, -1)


@dataclass(frozen=True, eq=False)
class Groups:
    """Neighbouring sequences of similar length, as batches padded to the longest.

    shapes: (sequences × heads, longest) of each. biases: [sequences × heads, 1, longest], −inf where a key is padding.
    padded: the row of [T × heads] that each row of all padded batches repeats, int64. packed: the other way round.
    """

    shapes: tuple[tuple[int, int], ...]
    biases: tuple[Tensor, ...]
    padded: Tensor
    packed: Tensor

    def split(self, *padded: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield each group's part of padded rows, [sequences × heads, longest, d], and its bias."""
        sizes = [count * longest for count, longest in self.shapes]
        for shape, bias, *parts in zip(self.shapes, self.biases, *(rows.split(sizes) for rows in padded), strict=True):
            yield *(part.unflatten(0, shape) for part in parts), bias


@lru_cache(maxsize=1)  # every layer asks the same
def _groups(sequences: Sequences, heads: int) -> Groups:
    shapes, biases, padded, packed = [], [], [], []
    held = 0
    for part in _similar(sequences.lengths):
        lengths, starts = np.array(sequences.lengths[part]), sequences.starts[part]
        longest = int(lengths.max())
        places = np.arange(longest)
        real = places < lengths[:, None]  # [count, longest]
        # [count, heads, longest]: padding repeats the last row, whose value no one sees
        rows = (starts[:, None] + np.minimum(places, lengths[:, None] - 1))[:, None] * heads + np.arange(heads)[:, None]
        own = np.broadcast_to(real[:, None], rows.shape)
        inverse = np.empty(int(lengths.sum()) * heads, np.int64)
        inverse[rows[own] - starts[0] * heads] = held + np.flatnonzero(own)
        shapes.append((len(lengths) * heads, longest))
        biases.append(torch.from_numpy(np.where(real, 0, -np.inf).repeat(heads, 0)[:, None].astype(np.float32)))
        padded.append(rows.ravel())
        packed.append(inverse)
        held += rows.size
    return Groups(
        tuple(shapes), tuple(biases),
        torch.from_numpy(np.concatenate(padded)), torch.from_numpy(np.concatenate(packed)),
    )  # fmt: skip


def _similar(lengths: Sequence[int]) -> Iterator[slice]:
    """Yield slices of neighbours whose shortest is at least SIMILAR times as long as their longest."""
    first, low, high = 0, lengths[0], lengths[0]
    for place, length in enumerate(lengths):
        low, high = min(low, length), max(high, length)
        if low < SIMILAR * high:
            yield slice(first, place)
            first, low, high = place, length, length
    yield slice(first, len(lengths))


class _Gathered(torch.autograd.Function):
    """Rows of padded batches from packed rows. Padding passes no gradient back: its weights are 0, its rows unread."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, padded: Tensor, packed: Tensor) -> Tensor:
        ctx.save_for_backward(packed)
        return rows.index_select(0, padded)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (packed,) = ctx.saved_tensors
        return gradient.index_select(0, packed), None, None


class _Scattered(torch.autograd.Function):
    """Packed rows from those of padded batches."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, padded: Tensor, packed: Tensor) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.size = len(padded)  # type: ignore[attr-defined]
        return rows.index_select(0, packed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (packed,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.size, gradient.shape[1]).index_copy_(0, packed, gradient), None, None


AttentionInterface.register(PACKED, packed_attention)
# What the stock forward, which knows no sequences, is given: the masks of the attention that it then has.
AttentionMaskInterface.register(PACKED, AttentionMaskInterface()["sdpa"])
