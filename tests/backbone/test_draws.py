"""What a training draws is its own: it hears neither its caller's generator nor another training's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from helpers.toy_classifiers import TRAIN, toy_ticket
from helpers.toys import toy_backbone
from torch.nn import functional

from ltprompt.adapter import Adapter
from ltprompt.backbone.draws import drawn
from ltprompt.backbone.model import Backbone
from ltprompt.classifier import PromptClassifier
from ltprompt.settings import ScoresSettings
from ltprompt.stage1.find_scores import find_scores

SEEDS = (3, 4)
LINES = ["the cat sat on the mat", "a good cat", "the bad mat sat on a cat", "good"] * 6


def backbone_with(packed: bool) -> Backbone:
    backbone = toy_backbone("bert", dropout=0.2)
    if not packed:
        backbone.model.config._attn_implementation = "sdpa"
    assert backbone.packs == packed
    return backbone


def fitted(backbone: Backbone, seed: int, start: Any = None, **given: Any) -> Adapter:
    classifier = PromptClassifier(
        backbone, "xnli", ticket=toy_ticket(backbone), seed=seed, epochs=6, batch_size=2, lr=1e-2, max_length=48
    )
    if start is not None:
        start.wait()
    classifier.fit(TRAIN, **given)
    assert classifier.adapter is not None
    return classifier.adapter


def assert_same(one: Adapter, other: Adapter) -> None:
    assert torch.equal(one.folded, other.folded)
    assert [change.name for change in one.changes] == [change.name for change in other.changes]
    for mine, theirs in zip(one.changes, other.changes, strict=True):
        assert torch.equal(mine.index, theirs.index)
        assert torch.equal(mine.values, theirs.values)


@pytest.mark.parametrize("packed", [True, False])
def test_two_fits_at_once_give_what_each_gives_alone(packed: bool) -> None:
    alone = [fitted(backbone_with(packed), seed) for seed in SEEDS]
    assert not torch.equal(alone[0].folded, alone[1].folded)
    start, backbones = Barrier(len(SEEDS)), [backbone_with(packed) for _ in SEEDS]
    with ThreadPoolExecutor(len(SEEDS)) as pool:
        together = list(pool.map(lambda backbone, seed: fitted(backbone, seed, start), backbones, SEEDS))
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("packed", [True, False])
def test_what_a_caller_draws_between_epochs_changes_nothing(packed: bool) -> None:
    heard = fitted(backbone_with(packed), 3, on_epoch=lambda epoch: torch.rand(epoch.number))
    assert_same(fitted(backbone_with(packed), 3), heard)


@pytest.mark.parametrize("packed", [True, False])
def test_two_stage_ones_at_once_give_what_each_gives_alone(packed: bool) -> None:
    def scored(backbone: Backbone, seed: int, start: Any = None) -> dict[str, torch.Tensor]:
        settings = ScoresSettings(steps=4, batch_size=4, max_length=16, lr=1e-3, seed=seed)
        if start is not None:
            start.wait()
        return find_scores(backbone, LINES, settings=settings).tensors

    alone = [scored(backbone_with(packed), seed) for seed in SEEDS]
    start, backbones = Barrier(len(SEEDS)), [backbone_with(packed) for _ in SEEDS]
    with ThreadPoolExecutor(len(SEEDS)) as pool:
        together = list(pool.map(lambda backbone, seed: scored(backbone, seed, start), backbones, SEEDS))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("packed", [True, False])
def test_entropy_decides_and_the_global_generator_stands_where_it_stood(packed: bool) -> None:
    backbone, values, before = backbone_with(packed), torch.ones(200), torch.random.get_rng_state()
    masks = []
    for entropy in ((1, 5, 0), (1, 5, 0), (1, 5, 1), (2, 5, 0)):
        torch.rand(1)  # of the caller's own
        torch.random.set_rng_state(before)
        with drawn(backbone, *entropy):
            masks.append(functional.dropout(values, 0.5))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[3])
