"""Which entries a ticket holds: exactly K, chosen by their scores alone (paper section 3, stage 1 to 2).

The bit pattern of a non-negative fp32 number grows with the number, so entries are ranked as integers. A sample
brackets the threshold; one pass over the scores counts what lies above the bracket and on its ends and collects what
lies between, where the exact threshold is found; a second pass writes the bitmaps. A value that many entries share,
such as 0, fills several places of the sample: it can be an end of the bracket, which is counted, but hardly lie
between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltprompt.backbone.parameters import EligibleParameter, total
from ltprompt.errors import InputError, choices
from ltprompt.tickets.segment import segment

SCOPES = ("global", "layer")
Scope = Literal["global", "layer"]

Scored = tuple[EligibleParameter, Tensor]
Chunk = tuple[EligibleParameter, NDArray[np.uint32]]
Bitmap = NDArray[np.uint8]

_CHUNK = 2**18  # entries; a multiple of 8 so that chunks end on whole bytes, small enough to stay in the cache
_SAMPLED = 2**18  # entries that bracket the threshold
_DEVIATIONS = 6  # of a sample's rank, that the bracket is wide on either side
_INFINITY = 0x7F800000  # fp32 bit pattern of +inf: every pattern from here on is infinite, NaN or has the sign set
_MINUS_ZERO = 0x80000000
_MAGNITUDE = 0x7FFFFFFF


@dataclass(frozen=True, eq=False)
class Selection:
    """What `select` chose: a bitmap per tensor that has an entry, and how many chosen entries have score 0."""

    bitmaps: dict[str, Bitmap]
    zero_entries: int


def target_size(ratio: float, eligible: int) -> int:
    """Return K = floor(ratio * eligible + 0.5), the number of entries to choose among `eligible`."""
    return min(math.floor(ratio * eligible + 0.5), eligible)


def select(scores: Sequence[Scored], *, ratio: float, scope: Scope = "global", layers: str = "all") -> Selection:
    """Choose exactly K entries, largest score first, ties in parameter order and then by flat index.

    scores: fp32 tensors, non-negative and finite, each with its parameter, in parameter order. -0.0 counts as 0;
        entries with score 0 are legal. Tensors may be memory-mapped: they are read in chunks, twice (three times
        in the rare case that the sample misleads).
    ratio: share of the eligible entries to choose, in [0, 1].
    scope: ``global`` ranks all entries together; ``layer`` applies the rule within the embeddings and each layer.
    layers: the segment that is eligible, see `segment`.

    Raises `InputError` for an unusable ratio, scope, segment or score.
    """
    chosen = eligible_layers([parameter for parameter, _ in scores], ratio=ratio, scope=scope, layers=layers)
    eligible = [scored for scored in scores if scored[0].layer in chosen]
    groups = [eligible] if scope == "global" else [[s for s in eligible if s[0].layer == layer] for layer in chosen]
    bitmaps: dict[str, Bitmap] = {}
    zero_entries = 0
    for group in groups:
        part = _select_group(group, ratio)
        bitmaps |= part.bitmaps
        zero_entries += part.zero_entries
    return Selection(bitmaps, zero_entries)


def eligible_layers(
    parameters: Sequence[EligibleParameter], *, ratio: float, scope: str = "global", layers: str = "all"
) -> list[int]:
    """Return, sorted, the layers that `select` ranks; commands ask before they compute scores.

    Raises `InputError` for an unusable ratio, scope or segment.
    """
    if not 0 <= ratio <= 1:
        raise InputError(f"the ratio {ratio} is not a share; give a number from 0 to 1, such as 0.2")
    if scope not in SCOPES:
        raise InputError(f"unknown scope {scope!r}; {choices(scope, SCOPES)}")
    return segment(parameters, layers)


def _select_group(group: Sequence[Scored], ratio: float) -> Selection:
    """Apply the selection rule to the entries of `group` alone."""
    size = target_size(ratio, total([parameter for parameter, _ in group]))
    if size == 0:
        for chunk in _chunks(group):  # no entry is chosen, but every one is checked
            _magnitudes(chunk)
        return Selection({}, 0)
    threshold, ties = _find_threshold(group, size)
    return Selection(_write_bitmaps(group, threshold, ties), ties if threshold == 0 else 0)


def _find_threshold(group: Sequence[Scored], size: int) -> tuple[int, int]:
    """Return the bit pattern of the `size`-th largest entry and how many entries equal to it are among those."""
    bracket = _bracket(group, size)
    everything = (0, _MAGNITUDE)
    found = _find_between(group, size, *bracket) or _find_between(group, size, *everything)
    assert found is not None
    return found


def _bracket(group: Sequence[Scored], size: int) -> tuple[int, int]:
    """Return two bit patterns; the `size`-th largest entry almost surely lies from the one to the other.

    A random sample is drawn, the same at every call: one at equal steps would see some columns of a matrix alone.
    """
    numels = np.array([parameter.numel for parameter, _ in group])
    eligible = int(numels.sum())
    generator = np.random.default_rng(0)
    drawn = []
    for scored, count in zip(group, generator.multinomial(min(_SAMPLED, eligible), numels / eligible), strict=True):
        bits = _bits(*scored)
        places = np.sort(generator.integers(len(bits), size=count))  # ascending, as a disk is read best
        drawn.append(bits[places] & np.uint32(_MAGNITUDE))
    sample = np.sort(np.concatenate(drawn))
    share = size / eligible
    place = (1 - share) * len(sample)
    margin = _DEVIATIONS * math.sqrt(share * (1 - share) * len(sample)) + 1
    first, last = math.floor(place - margin), math.ceil(place + margin)
    return int(sample[first]) if first >= 0 else 0, int(sample[last]) if last < len(sample) else _MAGNITUDE


def _find_between(group: Sequence[Scored], size: int, low: int, high: int) -> tuple[int, int] | None:
    """Return what `_find_threshold` does; None where that entry does not lie from `low` to `high`.

    Every entry is checked.
    """

    def sift(chunk: Chunk) -> tuple[int, int, int, NDArray[np.uint32]]:
        magnitudes = _magnitudes(chunk)
        # unsigned: what is below `low` wraps around to the largest numbers
        held = magnitudes[magnitudes - np.uint32(low) <= np.uint32(high - low)]
        between = held[(held > low) & (held < high)]
        return int(np.count_nonzero(magnitudes > high)), int(np.count_nonzero(held == high)), len(held), between

    chunks, threads = list(_chunks(group)), torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:  # a share a thread: handing over every chunk costs a tenth of the time
        shares = pool.map(lambda share: [sift(chunk) for chunk in share], [chunks[i::threads] for i in range(threads)])
    above, highest, held, parts = zip(*chain.from_iterable(shares), strict=True)
    between = np.concatenate(parts)
    rank = size - sum(above)  # among those held, 1 = largest
    if not 0 < rank <= sum(held):
        return None
    if rank <= sum(highest):
        return high, rank
    rank -= sum(highest)
    if rank > len(between):
        return low, rank - len(between)
    threshold = int(np.partition(between, -rank)[-rank])
    return threshold, rank - int(np.count_nonzero(between > threshold))


def _write_bitmaps(group: Sequence[Scored], threshold: int, ties: int) -> dict[str, Bitmap]:
    """Return the bitmaps of all entries above the threshold and of the first `ties` entries equal to it."""
    bitmaps = {}
    for scored in group:
        packed = [np.zeros(0, dtype=np.uint8)]
        for chunk in _chunks([scored]):
            magnitudes = _magnitudes(chunk)
            chosen = magnitudes > threshold
            if ties:
                equal = np.flatnonzero(magnitudes == threshold)[:ties]
                chosen[equal] = True
                ties -= len(equal)
            packed.append(np.packbits(chosen, bitorder="little"))
        bitmap = np.concatenate(packed)
        if bitmap.any():
            bitmaps[scored[0].name] = bitmap
    return bitmaps


def _chunks(group: Sequence[Scored]) -> Iterator[Chunk]:
    """Yield the bit patterns of every tensor in consecutive chunks."""
    for parameter, scores in group:
        bits = _bits(parameter, scores)
        for start in range(0, len(bits), _CHUNK):
            yield parameter, bits[start : start + _CHUNK]


def _magnitudes(chunk: Chunk) -> NDArray[np.uint32]:
    """Return bit patterns without the sign of -0.0. Raises `InputError` for a score that cannot be ranked."""
    parameter, bits = chunk
    if bits.max() < _INFINITY:
        return bits
    if ((bits >= _INFINITY) & (bits != _MINUS_ZERO)).any():
        raise InputError(f"the scores of {parameter.name} hold a negative, infinite or NaN value; find the scores anew")
    return bits & np.uint32(_MAGNITUDE)


def _bits(parameter: EligibleParameter, scores: Tensor) -> NDArray[np.uint32]:
    """Return the fp32 bit patterns of one tensor's scores, flat, without a copy where the tensor is contiguous."""
    if scores.dtype != torch.float32 or tuple(scores.shape) != parameter.shape:
        raise InputError(
            f"the scores of {parameter.name} are {scores.dtype} of shape {tuple(scores.shape)}, "
            f"not torch.float32 of shape {parameter.shape}; find the scores anew"
        )
    flat: NDArray[np.float32] = scores.detach().cpu().reshape(-1).numpy()
    return flat.view(np.uint32)
