"""Attention within packed sequences against a softmax written out, sequence by sequence."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ltprompt.packing import attention
from ltprompt.packing.attention import packed_attention
from ltprompt.packing.dropout import FastDropout
from ltprompt.packing.sequences import Sequences

HEADS, WIDTH = 3, 4
UNSORTED = (5, 9, 9, 2, 1, 1, 7, 8)


def packed(lengths: tuple[int, ...], *, gradient: bool) -> list[Tensor]:
    """Query, key and value [1, heads, T, d], as transformers makes them: transposed."""
    generator = torch.Generator().manual_seed(len(lengths))
    shape = (1, sum(lengths), HEADS, WIDTH)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=gradient) for _ in range(3)]
    return [tensor.transpose(1, 2) for tensor in made]


def alone(lengths: tuple[int, ...], parts: list[Tensor], scale: float, kept: list[Tensor] | None = None) -> Tensor:
    """What attention is, [1, T, heads, d]. kept: of each sequence, what its weights [heads, n, n] are multiplied by."""
    found = []
    for number, (q, k, v) in enumerate(zip(*(part[0].split(lengths, dim=1) for part in parts), strict=True)):
        weights = (scale * q @ k.mT).exp()
        weights = weights / weights.sum(-1, keepdim=True)
        found.append((weights * (kept[number] if kept else 1)) @ v)
    return torch.cat(found, dim=1).transpose(0, 1).unsqueeze(0)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("lengths", [UNSORTED, (6,), (4, 4, 4), (12, 9, 5, 1)])
def test_training_attends_as_the_formula_does_and_so_do_its_gradients(
    lengths: tuple[int, ...], scale: float | None
) -> None:
    parts = packed(lengths, gradient=True)
    found, _ = packed_attention(nn.Module(), *parts, None, sequences=Sequences(lengths), scaling=scale)
    expected = alone(lengths, parts, scale or WIDTH**-0.5)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    weights = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients, wanted = (torch.autograd.grad((each * weights).sum(), parts) for each in (found, expected))
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


def test_evaluation_attends_as_the_formula_does() -> None:
    parts = packed(UNSORTED, gradient=False)
    found, _ = packed_attention(nn.Module(), *parts, None, sequences=Sequences(UNSORTED))
    torch.testing.assert_close(found, alone(UNSORTED, parts, WIDTH**-0.5), rtol=1e-12, atol=1e-14)


def test_weights_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three sequences of one group, whose masks are known, so that what each weight is multiplied by is too."""
    lengths = (5, 5, 4)
    mask = torch.rand(3, HEADS, 5, 5, generator=torch.Generator().manual_seed(3)) > 0.25
    monkeypatch.setattr(FastDropout, "_mask", lambda self, shape, level: mask.view(shape))
    parts = packed(lengths, gradient=True)
    with FastDropout(0):
        found, _ = packed_attention(nn.Module(), *parts, None, sequences=Sequences(lengths), dropout=0.25)
    kept = [part[:, :n, :n] / 0.75 for part, n in zip(mask.double(), lengths, strict=True)]
    torch.testing.assert_close(found, alone(lengths, parts, WIDTH**-0.5, kept), rtol=1e-12, atol=1e-14)


def test_bf16_keeps_what_it_can() -> None:
    """At sizes whose products are oneDNN's; gradients too, each within a few roundings of what fp64 gives."""
    lengths, generator = (40, 33, 32, 30, 9), torch.Generator().manual_seed(5)
    made = [torch.randn(1, sum(lengths), 4, 32, generator=generator).to(torch.bfloat16) for _ in range(3)]
    parts = [part.transpose(1, 2).requires_grad_() for part in made]
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = packed_attention(nn.Module(), *parts, None, sequences=Sequences(lengths))
    exact = [part.detach().double().requires_grad_() for part in parts]
    expected = alone(lengths, exact, 32**-0.5)
    weights = torch.randn(found.shape, generator=generator).to(torch.bfloat16)
    gradients = torch.autograd.grad((found * weights).sum(), parts)
    wanted = torch.autograd.grad((expected * weights.double()).sum(), exact)
    for one, other in zip((found.detach(), *gradients), (expected.detach(), *wanted), strict=True):
        assert one.dtype == torch.bfloat16
        assert float((one.double() - other).norm() / other.norm()) < 0.02


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_groups_are_neighbours_of_similar_length(lengths: list[int]) -> None:
    slices = list(attention._similar(lengths))
    parts = [lengths[part] for part in slices]
    assert [length for part in parts for length in part] == lengths
    assert all(min(part) >= attention.SIMILAR * max(part) for part in parts)
    for part, after in pairwise(parts):
        longer = [*part, after[0]]
        assert min(longer) < attention.SIMILAR * max(longer), "the next would have had room"


def test_what_knows_masks_of_its_own_is_refused() -> None:
    parts = packed((3,), gradient=False)
    with pytest.raises(TypeError, match="Module attends in a way that packed sequences do not know"):
        packed_attention(nn.Module(), *parts, torch.zeros(1), sequences=Sequences((3,)))
    with pytest.raises(TypeError, match="do not know"):
        packed_attention(nn.Module(), *parts, None, sequences=Sequences((3,)), sliding_window=4)
