"""What stage 1 reads: lines parted into training and held out, batches of them, and the tokens to guess in each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ltprompt.backbone.model import Backbone
from ltprompt.backbone.tokens import special_ids
from ltprompt.errors import InputError
from ltprompt.packing.batching import epoch_order

IGNORED = -100  # the target where no token was chosen, as torch's cross-entropy has it


class Lines(Protocol):
    """Tokenised lines: what `corpus.TokenizedCorpus` offers."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Masking:
    """How tokens are masked: 15 % chosen; of these 80 % become the mask, 10 % a random word, 10 % stay.

    Random words come from the whole vocabulary but the padding token, which some backbones give no position.
    """

    mask_id: int
    pad_id: int
    special_ids: tuple[int, ...]
    vocabulary: int
    probability: float = 0.15

    @classmethod
    def of(cls, backbone: Backbone, probability: float = 0.15) -> Masking:
        """Return the masking for a backbone's tokenizer."""
        tokenizer = backbone.tokenizer
        special = tuple(sorted(special_ids(tokenizer)))
        return cls(tokenizer.mask_token_id, tokenizer.pad_token_id, special, len(tokenizer), probability)

    def apply(
        self, lines: Sequence[np.ndarray], generator: np.random.Generator
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the lines with tokens replaced, and their targets: the token where one was chosen, −100 elsewhere."""
        lengths = [len(line) for line in lines]
        flat = np.concatenate(lines).astype(np.int64)
        ordinary = ~np.isin(flat, self.special_ids)
        chosen = ordinary & (generator.random(len(flat)) < self.probability)
        if not chosen.any():  # a batch of a few short lines must still have a loss
            chosen[generator.choice(np.flatnonzero(ordinary))] = True
        fate = generator.random(len(flat))
        other = generator.integers(self.vocabulary - 1, size=len(flat))
        other += other >= self.pad_id
        inputs = np.where(chosen & (fate < 0.8), self.mask_id, flat)
        inputs = np.where(chosen & (fate >= 0.8) & (fate < 0.9), other, inputs)
        targets = np.where(chosen, flat, IGNORED)
        cuts = np.cumsum(lengths)[:-1]
        return np.split(inputs, cuts), np.split(targets, cuts)


def hold_out(size: int, held_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the line numbers to train on and those held out: a random `held_out` share, at least one line each."""
    order = np.random.default_rng([seed, 2]).permutation(size)
    count = min(max(1, round(size * held_out)), size - 1) if held_out > 0 else 0
    if held_out > 0 and count < 1:
        raise InputError(f"the text has {size} usable line(s); stage 1 needs at least 2, one of them held out")
    return np.sort(order[count:]), np.sort(order[:count])


def batch_indices(size: int, number: int, batch_size: int, seed: int) -> np.ndarray:
    """Return the positions of the lines in optimizer step `number` (from 0): a fresh order each epoch."""
    per_epoch = math.ceil(size / batch_size)
    epoch, place = divmod(number, per_epoch)
    return epoch_order(size, seed, epoch)[place * batch_size : (place + 1) * batch_size]
