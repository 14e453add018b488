"""Which entries a ticket holds: exactly K, chosen by their scores alone (paper section 3, stage 1 to 2).

The bit pattern of a non-negative fp32 number grows with the number, so entries are ranked as integers. A sample
brackets the threshold; one pass over the scores counts what lies above the bracket and collects what lies within, where
the exact threshold is found; a second pass writes the bitmaps. Where many entries are equal, such as 0, a bracket would
hold too many: then two histograms of 16 bits each find the threshold instead, a radix select.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltprompt.backbone.parameters import EligibleParameter, total
from ltprompt.errors import InputError, choices

SCOPES = ("global", "layer")
Scope = Literal["global", "layer"]

Scored = tuple[EligibleParameter, Tensor]
Bitmap = NDArray[np.uint8]

_CHUNK = 2**18  # entries; a multiple of 8 so that chunks end on whole bytes, small enough to stay in the cache
_PART = 2**22  # entries that a thread takes at once
_COUNTED = 2**20  # entries of a chunk whose histogram is taken
_SAMPLED = 2**18  # entries that bracket the threshold
_DEVIATIONS = 6  # of a sample's rank, that the bracket is wide on either side
_WIDEST = 1 / 8  # share of the entries that a bracket may hold
_INFINITY = 0x7F800000  # fp32 bit pattern of +inf: every pattern from here on is infinite, NaN or has the sign set
_MINUS_ZERO = 0x80000000
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_HALF = np.uint32(16)


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
        entries with score 0 are legal. Tensors may be memory-mapped: they are read in chunks, two or three times
        (four times in the rare case that the sample misleads).
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


def segment(parameters: Sequence[EligibleParameter], layers: str) -> list[int]:
    """Return, sorted, the layers that a segment names.

    layers: ``all``; ``lower``, ``middle`` or ``higher`` (thirds of the Transformer layers 1 to L, a remainder to the
        middle, no embeddings); or a list of layers and ranges such as ``5-8`` or ``0,3,5-8``, 0 being the embeddings.

    Raises `InputError`, saying what exists, where the segment names no layer or one that does not exist.
    """
    exist = sorted({parameter.layer for parameter in parameters})
    transformer = [layer for layer in exist if layer > 0]
    third = len(transformer) // 3
    thirds = {
        "lower": transformer[:third],
        "middle": transformer[third : len(transformer) - third],
        "higher": transformer[len(transformer) - third :],
    }
    chosen = exist if layers == "all" else thirds[layers] if layers in thirds else _parse_layers(layers, exist)
    if not chosen:
        raise InputError(f"the segment {layers!r} names no layer; {_existing(exist)}")
    return chosen


def _parse_layers(layers: str, exist: Sequence[int]) -> list[int]:
    """Return, sorted and once each, the layers of a list such as ``1,3,5-8``."""
    chosen: set[int] = set()
    for part in layers.split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part.strip())
        if match is None:
            raise InputError(
                f"{layers!r} is not a segment; give all, lower, middle, higher or a list such as 5-8 or 1,3,5-8; "
                f"{_existing(exist)}"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        missing = [layer for layer in range(first, last + 1) if layer not in exist]
        if missing or first > last:
            what = f"there is no layer {missing[0]}" if missing else f"{part.strip()!r} names no layer"
            raise InputError(f"the segment {layers!r} cannot be used: {what}; {_existing(exist)}")
        chosen.update(range(first, last + 1))
    return sorted(chosen)


def _existing(exist: Sequence[int]) -> str:
    """Return the part of an error that says which layers there are."""
    transformer = [layer for layer in exist if layer > 0]
    names = ["0 (the embeddings)"] if 0 in exist else []
    if transformer:
        names.append(f"{transformer[0]} to {transformer[-1]}")
    return f"the eligible layers are {' and '.join(names) or 'none'}"


def _select_group(group: Sequence[Scored], ratio: float) -> Selection:
    """Apply the selection rule to the entries of `group` alone."""
    eligible = total([parameter for parameter, _ in group])
    size = target_size(ratio, eligible)
    if size == 0:
        _high_histogram(group)  # no entry is chosen, but every one is checked
        return Selection({}, 0)
    bracket = _bracket(group, size / eligible)
    found = _sift(group, *bracket, size) if bracket is not None else None
    threshold, ties = found or _radix_select(group, size)
    bitmaps = _write_bitmaps(group, threshold, ties)
    return Selection(bitmaps, ties if threshold == 0 else 0)


def _bracket(group: Sequence[Scored], share: float) -> tuple[int, int] | None:
    """Return bit patterns between which the largest `share` of the entries ends, by a sample; None if too many do."""
    step = max(total([parameter for parameter, _ in group]) // _SAMPLED, 1)
    while math.gcd(step, 6) > 1:  # factors of nearly every width, of whose columns it would see some alone
        step += 1
    sample = np.sort(np.concatenate([_bits(*scored)[::step] for scored in group]) & _MAGNITUDE)
    size = len(sample)
    place, margin = (1 - share) * size, _DEVIATIONS * math.sqrt(share * (1 - share) * size) + 1
    first, last = math.floor(place - margin), math.ceil(place + margin)
    low, high = int(sample[first]) if first >= 0 else 0, int(sample[last]) if last < size else _INFINITY - 1
    held = np.searchsorted(sample, high, side="right") - np.searchsorted(sample, low)
    return (low, high) if held <= _WIDEST * size else None


def _sift(group: Sequence[Scored], low: int, high: int, size: int) -> tuple[int, int] | None:
    """Return the bit pattern of the `size`-th largest entry and how many entries equal to it are among those.

    None where it does not lie from `low` to `high`. Every entry is checked.
    """

    def sift(part: tuple[EligibleParameter, NDArray[np.uint32]]) -> tuple[int, NDArray[np.uint32]]:
        above, kept = 0, []
        for bits in _chunks(part[1]):
            magnitude = _checked(part[0], bits)
            above += int(np.count_nonzero(magnitude > high))
            # unsigned: what is below `low` wraps around to the largest numbers
            kept.append(magnitude[magnitude - np.uint32(low) <= np.uint32(high - low)])
        return above, np.concatenate(kept)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        counts, kept = zip(*pool.map(sift, _parts(group)), strict=True)
    inside, rank = np.concatenate(kept), size - sum(counts)
    if not 0 < rank <= len(inside):
        return None
    threshold = int(np.partition(inside, len(inside) - rank)[len(inside) - rank])
    return threshold, rank - int(np.count_nonzero(inside > threshold))


def _radix_select(group: Sequence[Scored], size: int) -> tuple[int, int]:
    """Return what `_sift` does, for any entries, with one pass more."""
    top, above = _find_bin(_high_histogram(group), size)
    bottom, within = _find_bin(_low_histogram(group, top), size - above)
    return top << 16 | bottom, size - above - within


def _checked(parameter: EligibleParameter, bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return bit patterns without the sign of -0.0. Raises `InputError` for a score that cannot be ranked."""
    if bits.max() < _INFINITY:
        return bits
    if ((bits >= _INFINITY) & (bits != _MINUS_ZERO)).any():
        raise InputError(f"the scores of {parameter.name} hold a negative, infinite or NaN value; find the scores anew")
    return bits & _MAGNITUDE


def _high_histogram(group: Sequence[Scored]) -> NDArray[np.int64]:
    """Return how many entries have each value of the upper 16 bits, int64 (65536,), and check every entry."""
    histogram = np.zeros(2**16, dtype=np.int64)
    for parameter, scores in group:
        for bits in _chunks(_bits(parameter, scores), _COUNTED):
            histogram += np.bincount(_checked(parameter, bits) >> _HALF, minlength=2**16)
    return histogram


def _low_histogram(group: Sequence[Scored], top: int) -> NDArray[np.int64]:
    """Return how many entries whose upper 16 bits are `top` have each value of the lower 16 bits, int64 (65536,)."""
    histogram = np.zeros(2**16, dtype=np.int64)
    for parameter, scores in group:
        for bits in _chunks(_bits(parameter, scores), _COUNTED):
            magnitude = _checked(parameter, bits)
            inside = magnitude[magnitude >> _HALF == top]
            histogram += np.bincount(inside & np.uint32(0xFFFF), minlength=2**16)
    return histogram


def _find_bin(histogram: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """Return the bin that holds the entry of this rank (1 = largest), and the number of entries in higher bins."""
    at_least = np.cumsum(histogram[::-1])
    place = int(np.searchsorted(at_least, rank))
    bin_ = len(histogram) - 1 - place
    return bin_, int(at_least[place] - histogram[bin_])


def _write_bitmaps(group: Sequence[Scored], threshold: int, ties: int) -> dict[str, Bitmap]:
    """Return the bitmaps of all entries above the threshold and of the first `ties` entries equal to it."""
    bitmaps = {}
    for parameter, scores in group:
        packed = []
        for bits in _chunks(_bits(parameter, scores)):
            magnitude = _checked(parameter, bits)
            chosen = magnitude > threshold
            if ties:
                equal = np.flatnonzero(magnitude == threshold)[:ties]
                chosen[equal] = True
                ties -= len(equal)
            packed.append(np.packbits(chosen, bitorder="little"))
        bitmap = np.concatenate(packed) if packed else np.zeros(0, dtype=np.uint8)
        if bitmap.any():
            bitmaps[parameter.name] = bitmap
    return bitmaps


def _bits(parameter: EligibleParameter, scores: Tensor) -> NDArray[np.uint32]:
    """Return the fp32 bit patterns of one tensor's scores, flat, without a copy where the tensor is contiguous."""
    if scores.dtype != torch.float32 or tuple(scores.shape) != parameter.shape:
        raise InputError(
            f"the scores of {parameter.name} are {scores.dtype} of shape {tuple(scores.shape)}, "
            f"not torch.float32 of shape {parameter.shape}; find the scores anew"
        )
    flat: NDArray[np.float32] = scores.detach().cpu().reshape(-1).numpy()
    return flat.view(np.uint32)


def _parts(group: Sequence[Scored]) -> Iterator[tuple[EligibleParameter, NDArray[np.uint32]]]:
    """Yield each tensor's bit patterns in parts of a thread's size."""
    for parameter, scores in group:
        bits = _bits(parameter, scores)
        for start in range(0, len(bits), _PART):
            yield parameter, bits[start : start + _PART]


def _chunks(bits: NDArray[np.uint32], size: int | None = None) -> Iterator[NDArray[np.uint32]]:
    """Yield consecutive parts of at most `size` entries, by default small ones."""
    size = size or _CHUNK
    for start in range(0, len(bits), size):
        yield bits[start : start + size]
