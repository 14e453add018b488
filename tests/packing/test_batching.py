"""Micro-batches: every position once, bounded padding and tokens, and the same gradient in any split."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from helpers.toys import KINDS, toy_backbone
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ltprompt.backbone.model import Backbone
from ltprompt.device import Compute
from ltprompt.packing.batching import TRAINING_TOKENS, epoch_order, micro_batches
from ltprompt.packing.sequences import Sequences
from ltprompt.stage1 import training as mlm
from ltprompt.stage1.masking import Masking
from ltprompt.stage1.training import find_movement
from ltprompt.stage1.weights import Trainee

CPU = torch.device("cpu")


@given(lengths=st.lists(st.integers(1, 300), max_size=80), max_tokens=st.integers(1, 5000), packed=st.booleans())
def test_micro_batches_hold_every_position_once_within_their_bounds(
    lengths: list[int], max_tokens: int, packed: bool
) -> None:
    groups = micro_batches(np.array(lengths, np.int64), max_tokens=max_tokens, packed=packed)
    assert sorted(place for group in groups for place in group.tolist()) == list(range(len(lengths)))
    for group in groups:
        sizes = [lengths[place] for place in group]
        assert packed or not sizes or min(sizes) >= 0.75 * max(sizes)
        assert len(sizes) <= 1 or (sum(sizes) if packed else len(sizes) * max(sizes)) <= max_tokens
    in_order = [lengths[place] for group in groups for place in group]
    assert in_order == sorted(lengths, reverse=True)


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=80))
def test_padded_micro_batches_are_as_few_as_their_bounds_allow(lengths: list[int]) -> None:
    groups = micro_batches(np.array(lengths), max_tokens=1000, packed=False)
    for group, following in pairwise(groups):
        longest = lengths[group[0]]
        assert lengths[following[0]] < 0.75 * longest or (len(group) + 1) * longest > 1000


def test_packed_micro_batches_are_about_equally_large() -> None:
    def sizes(lengths: list[int]) -> list[int]:
        groups = micro_batches(np.array(lengths), max_tokens=100, packed=True)
        return [sum(lengths[place] for place in group) for group in groups]

    assert sizes([10] * 22) == [80, 70, 70]
    assert sizes([1] * 205) == [69, 68, 68]
    assert sizes([60, 50, 40, 30, 20]) == [60, 90, 50]
    assert sizes([150, 20, 20]) == [150, 40]


def test_an_epoch_has_an_order_of_its_own() -> None:
    orders = [epoch_order(50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert epoch_order(50, 0, 1).tolist() == orders[1]


def lines(backbone: Backbone) -> list[np.ndarray]:
    generator = np.random.default_rng(2)
    ordinary = sorted(set(range(len(backbone.tokenizer))) - set(backbone.tokenizer.all_special_ids))
    return [generator.choice(ordinary, size=size) for size in generator.integers(2, 50, size=16)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["decoupled", "tied"])
def test_the_gradient_of_a_batch_is_the_same_in_any_split(
    kind: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = toy_backbone(kind, double=True)
    inputs, targets = Masking.of(backbone).apply(lines(backbone), np.random.default_rng(0))
    monkeypatch.setitem(TRAINING_TOKENS, "fp32", 100)

    def one_batch(lengths: np.ndarray, **_: Any) -> list[np.ndarray]:
        return [np.arange(len(lengths))]

    def singles(lengths: np.ndarray, **_: Any) -> list[np.ndarray]:
        return [np.array([place]) for place in range(len(lengths))]

    monkeypatch.setattr(mlm, "PADDED_TOKENS", 100)
    found: list[list[Tensor]] = []
    for packs in (True, False):  # a GPU pads
        monkeypatch.setattr(Backbone, "packs", packs)
        for split in (micro_batches, one_batch, singles):
            monkeypatch.setattr(mlm, "micro_batches", split)
            found.append(gradients(backbone, strategy, inputs, targets))
    for other in found[1:]:
        for expected, gradient in zip(found[0], other, strict=True):
            assert (gradient - expected).abs().max() <= 1e-13 + 1e-11 * expected.abs().max()
    assert sum(float(gradient.abs().sum()) for gradient in found[0]) > 1


def gradients(backbone: Backbone, strategy: str, inputs: Any, targets: Any) -> list[Tensor]:
    trainee = Trainee(backbone, strategy, lr=1e-30)
    for parameter in trainee.dense.values():
        parameter.requires_grad_()
        parameter.grad = None
    theta = {name: parameter.detach().clone() for name, parameter in trainee.dense.items()}
    mlm.mlm_step(trainee, inputs, targets, theta, l1=0.0, clip=1e9, compute=Compute(CPU))
    found = [parameter.grad for parameter in trainee.all()]
    assert all(gradient is not None for gradient in found)
    mlm.restore(backbone, theta)
    return [gradient.clone() for gradient in found if gradient is not None]


def test_stage_one_cuts_its_batches_into_micro_batches_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy_backbone("bert")
    monkeypatch.setitem(TRAINING_TOKENS, "fp32", 100)
    found: list[tuple[int, ...]] = []
    encode = Backbone.encode

    def recorded(self: Backbone, embeddings: Tensor, sequences: Sequences, *read: Tensor) -> Tensor:
        found.append(sequences.lengths)
        return encode(self, embeddings, sequences, *read)

    monkeypatch.setattr(Backbone, "encode", recorded)
    find_movement(
        backbone, lines(backbone), strategy="decoupled", steps=2, batch_size=8, lr=1e-3, l1=0.1, clip=1.0,
        held_out=0.25, evaluate_every=2, keep="final", seed=0, compute=Compute(CPU),
    )  # fmt: skip
    assert len(found) > 3
    assert all(len(lengths) == 1 or sum(lengths) <= 100 for lengths in found)
