"""What the machine could do at best: the rate of matrix products, the bandwidth of memory, the arithmetic that counts.

Useful arithmetic is what the lengths without padding need. Forward: the encoder at every token and attention at every
pair of tokens, but in the last layer, beside keys and values, only at the positions that are read; the head at those.
They are the masked ones in stage 1, and elsewhere one mask an example, for the label words alone. In training also
backward to the inputs and, where weights train, to the weights. Frozen matrices have no gradient of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import torch
from torch.nn import functional

from benchmarks import work
from benchmarks.job import Job
from benchmarks.shapes import Place, Shape
from ltprompt.device import DTYPES
from ltprompt.stage1.masking import IGNORED

# Rows, inputs and outputs of the products that an encoder of width 768 makes, and a square one.
PRODUCTS = ((2048, 768, 768), (2048, 768, 3072), (2048, 3072, 768), (4096, 768, 3072), (2048, 2048, 2048))
COPIED = 2**26  # fp32 entries
CUT_PASSES = 2  # one finds the threshold within a sample's bracket, one writes the bitmaps
# Bytes moved for each entry of an adapter: its index and value read, the old value read and kept, the new one written.
APPLY_BYTES = 4 + 4 + 4 + 4 + 4


def matmul_rate(dtype: str, repeats: int = 5) -> float:
    """Return the best measured operations a second over several products (2 for every multiplication and addition)."""
    return max(_rate(product, DTYPES[dtype], repeats) for product in PRODUCTS)


def _rate(product: tuple[int, int, int], dtype: torch.dtype, repeats: int) -> float:
    rows, inputs, outputs = product
    left, right = torch.ones(rows, inputs, dtype=dtype), torch.ones(outputs, inputs, dtype=dtype)
    return 2 * rows * inputs * outputs / _best(lambda: functional.linear(left, right), repeats)


def bandwidth(repeats: int = 5) -> float:
    """Return the best measured bytes a second of a copy, read and written ones together."""
    source = torch.ones(COPIED)
    target = torch.empty_like(source)
    return 2 * 4 * COPIED / _best(lambda: target.copy_(source), repeats)


def _best(run: Callable[[], object], repeats: int) -> float:
    run()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def encoder(shape: Shape, lengths: Iterable[int], read: Iterable[int]) -> float:
    """Return the operations of one forward pass of the encoder over sequences of these lengths.

    read: how many positions of each are read at the end; the last layer needs keys and values alone of the others.
    """
    keys_and_values = 2 * 2 * shape.width**2
    others = 2 * (2 * shape.width**2 + 2 * shape.width * shape.inner)

    def layer(length: int, rows: int) -> int:
        return length * keys_and_values + rows * others + 4 * length * rows * shape.width

    pairs = zip(lengths, read, strict=True)
    return float(sum((shape.layers - 1) * layer(length, length) + layer(length, rows) for length, rows in pairs))


def head(shape: Shape, positions: int, words: int) -> float:
    """Return the operations of one forward pass of the head: its transform and `words` rows of the output matrix."""
    return float(positions * 2 * (shape.width**2 + words * shape.width))


def useful(kind: str, place: Place, job: Job) -> list[float]:
    """Return the useful operations of each lap of a case that has a floor of arithmetic.

    kind: ``stage1``, ``stage2``, ``stage2-frozen`` or ``evaluation``.
    """
    shape = place.shape
    if kind == "stage1":
        found = []
        for inputs, targets in work.stage_one(place, job.steps, job.seed):
            masked = [int((target != IGNORED).sum()) for target in targets]
            found.append(3 * encoder(shape, map(len, inputs), masked) + 2 * head(shape, sum(masked), shape.vocabulary))
        return found
    if kind == "evaluation":
        lengths = [len(example.ids) for example in work.evaluated(place)]
        return [_read_once(shape, lengths) + head(shape, len(lengths), work.LABELS)] * job.steps
    given = work.stage_two(place, job.steps, job.seed)
    passes = 2 if kind == "stage2-frozen" else 3
    batches = [[len(given.examples.examples[number].ids) for number in batch] for batch in given.batches]
    return [passes * _read_once(shape, batch) + 2 * head(shape, len(batch), work.LABELS) for batch in batches]


def _read_once(shape: Shape, lengths: Sequence[int]) -> float:
    return encoder(shape, lengths, [1] * len(lengths))


def cut_bytes(entries: int) -> int:
    """Return the bytes that cutting so many fp32 scores reads."""
    return 4 * CUT_PASSES * entries


def apply_bytes(entries: int) -> int:
    """Return the bytes that applying an adapter of so many entries moves at least."""
    return APPLY_BYTES * entries
