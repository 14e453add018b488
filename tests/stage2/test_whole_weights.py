from __future__ import annotations

import pytest
import torch
from helpers.stage2 import Toy, assert_equal, plain_sp, sp_recipe, theta_of, train
from helpers.toys import KINDS

each_kind = pytest.mark.parametrize("kind", KINDS)
each_tie = pytest.mark.parametrize("tied", [True, False])


@each_kind
@each_tie
@pytest.mark.parametrize("clip", [0.1, 100.0])
def test_sp_trains_as_a_whole_model_with_the_published_optimizer(kind: str, tied: bool, clip: float) -> None:
    toy = Toy.of(kind, tied=tied)
    recipe = sp_recipe(clip=clip)
    found, plain = train(toy, toy.dense(), recipe), plain_sp(toy, recipe)
    assert len(plain.norms) == 20
    assert (min(plain.norms) if clip < 1 else 0.2) > 0.1
    assert max(plain.norms) < 100
    assert_equal(found.state, plain.state, 1e-10)
    assert_equal(found.prompt.state_dict(), plain.prompt.state_dict(), 1e-10)


@each_kind
@each_tie
def test_sp_in_single_precision(kind: str, tied: bool) -> None:
    toy = Toy.of(kind, tied=tied, double=False)
    found, plain = train(toy, toy.dense(), sp_recipe()), plain_sp(toy, sp_recipe())
    assert_equal(found.state, plain.state, 1e-6, key_bias=1e-3)


@each_kind
@each_tie
def test_every_tensor_and_every_word_row_drifts(kind: str, tied: bool) -> None:
    toy = Toy.of(kind, tied=tied, double=False)
    found = train(toy, toy.dense(), sp_recipe())
    unused = set() if tied else {"lm_head.bias", "cls.predictions.bias"}  # an untied head uses decoder.bias alone
    assert found.changes.keys() == toy.theta.keys() - unused
    name = toy.backbone.word_name
    assert len(found.state[name]) > len(toy.words()), "some words must be absent from training"
    assert (found.state[name] != toy.theta[name]).any(1).all()


@each_kind
@each_tie
def test_the_tie_of_input_and_output_is_kept_while_training(kind: str, tied: bool) -> None:
    toy = Toy.of(kind, tied=tied, double=False)
    equal = []

    def look(epoch: object) -> None:
        equal.append(torch.equal(toy.backbone.decoder.weight, toy.backbone.word_embeddings.weight))

    train(toy, toy.dense(), sp_recipe(epochs=1), on_epoch=look)
    assert equal == [tied]


@each_kind
@each_tie
def test_close_sets_every_weight_back_bit_for_bit_after_an_error_too(kind: str, tied: bool) -> None:
    toy = Toy.of(kind, tied=tied, double=False)

    def stop(epoch: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toy, toy.dense(), sp_recipe(), on_epoch=stop)
    for name, tensor in theta_of(toy.backbone).items():
        assert torch.equal(tensor.view(torch.int32), toy.theta[name].view(torch.int32)), name
    assert not any(p.requires_grad or p.grad is not None for p in toy.backbone.parameters.values())


def test_a_snapshot_brings_weights_back() -> None:
    toy = Toy.of("bert", double=False)
    weights = toy.dense()
    kept = weights.snapshot()
    with torch.no_grad():
        for parameter in weights.named_parameters().values():
            parameter.add_(1)
    weights.load(kept)
    assert weights.changes() == []
    weights.close()
