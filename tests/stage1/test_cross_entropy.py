"""The summed cross-entropy against torch's own, and what it keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ltprompt.stage1.cross_entropy import summed_cross_entropy


def example(rows: int = 7, words: int = 50, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = scale * torch.randn(rows, words, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(words, (rows,), generator=generator)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 3.0, 400.0])
def test_loss_and_gradient_are_torchs(scale: float) -> None:
    logits, targets = example(scale=scale)
    (0.3 * summed_cross_entropy(logits, targets)).backward()
    expected = logits.detach().clone().requires_grad_()
    loss = functional.cross_entropy(expected, targets, reduction="sum")
    (0.3 * loss).backward()
    assert logits.grad is not None
    torch.testing.assert_close(summed_cross_entropy(logits, targets), loss, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(logits.grad, expected.grad, rtol=1e-12, atol=1e-15)


def test_a_target_too_unlikely_for_its_probability_has_a_finite_loss() -> None:
    logits = torch.tensor([[0.0, -200.0]])  # exp(-200) is 0 in fp32
    assert float(summed_cross_entropy(logits, torch.tensor([1]))) == 200.0


def test_logits_that_are_not_finite_give_a_loss_that_is_not() -> None:
    for broken in (float("inf"), float("nan")):
        logits = torch.tensor([[0.0, broken]])
        assert not summed_cross_entropy(logits, torch.tensor([0])).isfinite()


def test_the_logits_stay_as_they_are() -> None:
    logits, targets = example()
    before = logits.detach().clone()
    summed_cross_entropy(logits, targets).backward()
    assert torch.equal(logits.detach(), before)


def test_no_words_drawn_have_no_loss() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = summed_cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert logits.grad.shape == (0, 5)


def test_a_second_backward_pass_is_refused() -> None:
    logits, targets = example()
    loss = summed_cross_entropy(logits, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_one_matrix_is_kept_for_the_backward_pass() -> None:
    logits, targets = example(rows=5, words=40)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = summed_cross_entropy(logits * 1.0, targets)
    (probabilities,) = (tensor for tensor in kept if tensor.shape == (5, 40))
    passed: list[Tensor] = []
    loss.grad_fn.register_hook(lambda gradients, _: passed.append(gradients[0]))  # type: ignore[union-attr]
    loss.backward()
    assert passed[0].data_ptr() == probabilities.data_ptr(), "it becomes the gradient"
