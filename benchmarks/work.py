"""What is computed: batches of made-up ids whose lengths are real, the same for every implementation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.lengths import lengths
from benchmarks.shapes import SEED, Ids, Place
from ltprompt.packing.batching import epoch_order
from ltprompt.stage1.masking import Masking
from ltprompt.stage2.prompt import PromptEncoder
from ltprompt.stage2.training import LabelledExamples
from ltprompt.tasks.template import Encoded

PROMPT = 4  # slots
LABELS = 3
RATE = 2e-5  # of stage 2 (paper, section 4.2)
STAGE_ONE_RATE = 5e-5
L1 = 0.1
CLIP = 1.0
# P . H ? <p1>..<p4> <mask> . and the end: how far from the end the mask stands
MASK_FROM_END = 2

Line = npt.NDArray[np.int64]
MaskedBatch = tuple[list[Line], list[Line]]


@dataclass(frozen=True)
class StageTwo:
    """Examples, the numbers of those in each step's batch, and the pieces of the label words."""

    examples: LabelledExamples
    batches: tuple[Line, ...]
    pieces: tuple[int, ...]

    @property
    def words(self) -> list[int]:
        """The ids that training looks up: those of the examples, and 0 in the place of the prompt."""
        found = {0}
        for example in self.examples.examples:
            found.update(example.ids[example.ids >= 0].tolist())
        return sorted(found)


def stage_one(place: Place, steps: int, seed: int) -> list[MaskedBatch]:
    """Return the masked lines of each step, as (inputs, targets).

    The batch with the longest line comes first, so that warming up takes all the memory there will be: where a virtual
    machine has to ask its host for it, fresh memory is slower than what is computed in it.
    """
    ids, size = place.ids(), place.shape.batch
    masking = Masking(ids.mask, ids.pad, ids.special, ids.vocabulary)
    real = lengths().lines
    batches = []
    for step in range(steps):
        generator = np.random.default_rng([SEED, seed, step])
        chosen = generator.choice(len(real), size, replace=False)
        lines = [text(_cut(place, real[number]), ids, generator) for number in chosen]
        batches.append(masking.apply(lines, generator))
    return sorted(batches, key=lambda batch: -max(map(len, batch[0])))


def stage_two(place: Place, steps: int, seed: int) -> StageTwo:
    """Return the few-shot examples and the batches of each step, the one with the longest example first."""
    examples, size = labelled(place, lengths().train), place.shape.batch
    batches: list[Line] = []
    epoch = 0
    while len(batches) < steps:
        epoch += 1
        order = epoch_order(len(examples), seed, epoch)
        batches += [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    lengths_of = np.array([len(example.ids) for example in examples.examples])
    chosen = sorted(batches[:steps], key=lambda batch: -int(lengths_of[batch].max()))
    return StageTwo(examples, tuple(chosen), label_pieces(place.ids()))


def evaluated(place: Place, count: int | None = None) -> list[Encoded]:
    """Return examples of all languages in turn.

    count: how many in all, beginning anew where there are no more; by default the shape's number a language, evenly
    spaced over those there are.
    """
    tests = lengths().test
    if count is None:
        chosen = [length for found in tests.values() for length in _spaced(found, place.shape.examples)]
    else:
        every = [length for turn in zip(*tests.values(), strict=True) for length in turn]
        chosen = [every[number % len(every)] for number in range(count)]
    return list(labelled(place, chosen).examples)


def longest(examples: Sequence[Encoded], count: int) -> list[Encoded]:
    """Return the longest examples, to warm up with: they take all the memory there will be."""
    return sorted(examples, key=lambda example: -len(example.ids))[:count]


def scale(place: Place) -> float:
    """Return how many times the examples that `evaluated` gives are the 15 × 500 of the whole evaluation."""
    tests = lengths().test.values()
    return sum(map(len, tests)) / sum(len(_spaced(found, place.shape.examples)) for found in tests)


def _spaced(found: Sequence[int], count: int) -> list[int]:
    """Return up to `count` of what was found, evenly spaced: neighbours are hypotheses of one premise."""
    count = min(count, len(found))
    return [found[(2 * number + 1) * len(found) // (2 * count)] for number in range(count)]


def label_pieces(ids: Ids) -> tuple[int, ...]:
    """Return the ids of the label words: the first three ordinary ones."""
    return tuple(_ordinary(ids)[:LABELS].tolist())


def labelled(place: Place, real: Sequence[int]) -> LabelledExamples:
    """Return an example of each length, with a label at random."""
    ids, generator = place.ids(), np.random.default_rng([SEED, len(real)])
    examples = [_example(_cut(place, length), ids, generator) for length in real]
    return LabelledExamples(examples, generator.integers(0, LABELS, len(examples)))


def prompt_of(width: int) -> PromptEncoder:
    """Return the prompt that every implementation starts from."""
    return PromptEncoder.seeded(PROMPT, width, SEED, device=torch.device("cpu"), dtype=torch.float32)


def named_prompt(prompt: nn.Module) -> dict[str, Tensor]:
    """Return the prompt's tensors under names of their own."""
    return {f"prompt.{name}": parameter for name, parameter in prompt.named_parameters()}


def text(length: int, ids: Ids, generator: np.random.Generator) -> Line:
    """Return a line of so many tokens; words come as often as in text, the n-th most frequent in proportion to 1/n."""
    words = _ordinary(ids)
    ranks = np.exp(generator.random(length) * np.log(len(words))).astype(np.int64) - 1
    line: Line = words[ranks]
    line[: len(ids.prefix)] = ids.prefix
    line[len(line) - len(ids.suffix) :] = ids.suffix
    return line


def _example(length: int, ids: Ids, generator: np.random.Generator) -> Encoded:
    line = text(length, ids, generator)
    mask = length - len(ids.suffix) - MASK_FROM_END
    line[mask] = ids.mask
    line[mask - PROMPT : mask] = -np.arange(1, PROMPT + 1)
    return Encoded(line, mask)


def _cut(place: Place, length: int) -> int:
    return min(length, place.shape.max_length)


@lru_cache(maxsize=1)
def _ordinary(ids: Ids) -> Line:
    return np.setdiff1d(np.arange(ids.vocabulary), ids.special)
