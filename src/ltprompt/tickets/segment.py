"""Segments: the layers that a ticket may lie in, as people name them (paper section 5, Figure 2a)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.errors import InputError


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
