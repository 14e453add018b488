"""Cross-entropy over a whole vocabulary, with one matrix of probabilities where torch's own makes three."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return Σ −log softmax(logits)[target], a scalar, as torch.nn.functional.cross_entropy sums it.

    logits: [N, V] in a floating dtype, unchanged. targets: [N], int64, each a column. The probabilities become the
    gradient in place, so a second backward pass is refused, as is a second derivative.
    """
    loss: Tensor = _Summed.apply(logits, targets)  # type: ignore[no-untyped-call]
    return loss


class _Summed(torch.autograd.Function):
    """Torch keeps log-probabilities, fills a matrix with zeros for what the targets pass back, and makes a third."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, targets: Tensor) -> Tensor:
        probabilities = logits.softmax(1)
        if logits.requires_grad:
            ctx.save_for_backward(probabilities, targets)
        # By the likeliest word, whose probability is at least 1/V: a target's own may be too small to have a logarithm.
        largest, likeliest = logits.max(1, keepdim=True)
        normaliser = largest - probabilities.gather(1, likeliest).log()
        return (normaliser - logits.gather(1, targets.unsqueeze(1))).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        probabilities, targets = ctx.saved_tensors
        probabilities[torch.arange(len(targets), device=targets.device), targets] -= 1
        return probabilities.mul_(gradient), None
