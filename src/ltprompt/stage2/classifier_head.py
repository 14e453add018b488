"""The classifier of plain fine-tuning: a linear classifier on the pooled first token (facts.md, `ft`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class PooledClassifier(nn.Module):
    """dropout -> Linear(h, h) -> tanh -> dropout -> Linear(h, classes) on the first token's hidden state [h].

    It starts as transformers starts such heads: weights from N(0, init_std²), biases 0. Like a prompt it folds into one
    matrix, so that training, saving and evaluation know one kind of part beside the backbone.
    """

    def __init__(self, hidden_size: int, classes: int, init_std: float) -> None:
        super().__init__()
        self.pool = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, classes)
        for layer in (self.pool, self.out):
            nn.init.normal_(layer.weight, std=init_std)
            nn.init.zeros_(layer.bias)

    def forward(self) -> Tensor:
        """Return the folded classifier [h + classes, h + 1]: a row a unit, its bias last."""
        return torch.cat([torch.cat([layer.weight, layer.bias[:, None]], 1) for layer in (self.pool, self.out)])


def classify(first: Tensor, folded: Tensor, dropout: float) -> Tensor:
    """Return class logits [B, classes] of first tokens' hidden states [B, h].

    folded: as `PooledClassifier` gives it. dropout: its probability, 0 outside training.
    """
    hidden = first.shape[1]
    weights, biases = folded[:, :-1], folded[:, -1]
    pooled = functional.linear(functional.dropout(first, dropout), weights[:hidden], biases[:hidden]).tanh()
    return functional.linear(functional.dropout(pooled, dropout), weights[hidden:], biases[hidden:])
