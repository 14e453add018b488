"""Fast dropout against what dropout is: its share, its scale, its gradient, its seed; and against torch's own."""

from __future__ import annotations

import pytest
import torch
from helpers.families import LENGTHS, family, words
from torch.nn import functional

from ltprompt.packing.dropout import FastDropout
from ltprompt.packing.sequences import Sequences


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.float64)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_entries_are_dropped_one_by_one_with_the_probability_asked_for(p: float) -> None:
    size, times = 100_003, 8
    with FastDropout(0):
        drawn = torch.stack([functional.dropout(ones(size), p) for _ in range(times)])
    kept = drawn != 0
    deviation = (p * (1 - p) / (size * times)) ** 0.5
    assert abs(float(kept.double().mean()) - (1 - p)) < 5 * deviation
    assert drawn[kept].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-4)
    # no two entries know of each other: neighbours, and one entry from draw to draw
    for one, other in ((kept[:, :-1], kept[:, 1:]), (kept[:-1], kept[1:])):
        both = float((one & other).double().mean())
        assert abs(both - (1 - p) ** 2) < 5 * (p * (1 - p) / one.numel()) ** 0.5


def test_the_gradient_passes_where_the_value_did() -> None:
    values = torch.randn(50, 40, dtype=torch.float64, requires_grad=True)
    with FastDropout(0):
        found = functional.dropout(values, 0.3)
    found.backward(torch.full_like(found, 2.0))
    assert values.grad is not None
    factor = (found != 0).double() / (1 - round(0.3 * 65536) / 65536)
    torch.testing.assert_close(found, values * factor, rtol=1e-15, atol=0)
    torch.testing.assert_close(values.grad, 2 * factor, rtol=1e-15, atol=0)


def test_nothing_all_and_evaluation() -> None:
    values = torch.randn(7, 3)
    with FastDropout(0):
        assert torch.equal(functional.dropout(values, 0.0), values)
        assert torch.equal(functional.dropout(values, 0.5, training=False), values)
        assert torch.equal(functional.dropout(values, 1.0), torch.zeros(7, 3))
        assert torch.equal(torch.nn.Dropout(0.5).eval()(values), values)
        assert functional.dropout(torch.ones(0), 0.5).shape == (0,)
        for p in (-0.1, 1.1):
            with pytest.raises(ValueError, match="is not a probability"):
                functional.dropout(values, p)


def test_the_seed_decides_and_torch_s_generator_is_not_asked() -> None:
    found = []
    for seed in (1, 1, 2):
        with FastDropout(seed):
            found.append((torch.nn.Dropout(0.5)(ones(64)), functional.dropout(ones(64), 0.5)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[0][1])
    assert not torch.equal(found[0][0], found[2][0])
    torch.manual_seed(5)
    expected = torch.nn.Dropout(0.5)(ones(64))
    with FastDropout(3):
        torch.manual_seed(5)
        functional.dropout(ones(64), 0.5)
    assert torch.equal(torch.nn.Dropout(0.5)(ones(64)), expected), "outside the context it is torch's again"


@pytest.mark.parametrize("name", ["bert", "xlm-roberta"])
def test_an_encoder_trains_with_it_as_with_torchs_own(name: str) -> None:
    """Mean and spread of a hidden state over many draws are those of the stock model with its own dropout."""
    backbone = family(name, dropout=0.2)
    backbone.model.train()
    ids, draws = words(backbone)[: LENGTHS[0]], 2000
    torch.manual_seed(0)
    with torch.no_grad():
        many = backbone.word_embeddings(ids.repeat(draws))
        with FastDropout(0):
            found = backbone.encode(many, Sequences((LENGTHS[0],) * draws)).view(draws, -1)
        expected = backbone.base(input_ids=ids.repeat(draws, 1))[0].reshape(draws, -1)
    error = expected.std(0) * (2 / draws) ** 0.5
    assert ((found.mean(0) - expected.mean(0)).abs() < 5 * error).all()
    ratio = found.std(0) / expected.std(0)
    assert float(ratio.median()) == pytest.approx(1, abs=0.02)
    assert ((ratio - 1).abs() < 0.25).all()
