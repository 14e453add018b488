"""What stage 1 trains of a backbone under each strategy (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ltprompt.backbone.model import Backbone
from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.errors import InputError, choices
from ltprompt.stage1.embedding_rows import GrowingRows
from ltprompt.tickets.header import STRATEGIES

BLOCK = 256  # rows


def trainable(backbone: Backbone, strategy: str) -> tuple[EligibleParameter, ...]:
    """Return the parameters that are eligible, and so trained in stage 1, under a strategy."""
    if strategy not in STRATEGIES:
        raise InputError(f"unknown strategy {strategy!r}: {choices(strategy, STRATEGIES)}")
    if strategy == "frozen-embeddings":
        return tuple(parameter for parameter in backbone.eligible if parameter.layer > 0)
    if strategy == "tied" and not backbone.tied:
        raise InputError("strategy 'tied' needs a backbone whose input and output embeddings are one; use decoupled")
    return backbone.eligible


class Trainee:
    """What stage 1 trains of a backbone, and how it looks words up: the one place where strategies differ.

    Layers, positions and types train in place. Word embeddings: ``decoupled`` trains a copy of the touched rows while
    the model's own matrix stays θ and goes on as the frozen output matrix; ``tied`` trains the shared matrix in place;
    ``frozen-embeddings`` trains none.
    """

    def __init__(self, backbone: Backbone, strategy: str, lr: float) -> None:
        self.backbone = backbone
        self.parameters = trainable(backbone, strategy)
        apart = {backbone.word_name} if strategy == "decoupled" else set()
        self.dense: dict[str, nn.Parameter] = {
            parameter.name: backbone.parameters[parameter.name]
            for parameter in self.parameters
            if parameter.name not in apart
        }
        self.rows = GrowingRows(backbone.word_embeddings.weight.detach()) if apart else None
        self.optimizer = torch.optim.AdamW(self.all(), lr=lr, weight_decay=0.0, fused=True)

    def all(self) -> list[nn.Parameter]:
        """Return every trained tensor."""
        return [*self.dense.values(), *([self.rows.table] if self.rows else [])]

    def touch(self, words: np.ndarray) -> None:
        """Make sure that the rows of a batch's words are trained from now on."""
        if self.rows:
            self.rows.join(torch.from_numpy(words).to(self.backbone.device), self.optimizer)

    def embed(self, ids: Tensor) -> Tensor:
        """Return the word embeddings of a batch, differentiable where they are trained."""
        if self.rows is None:
            embeddings: Tensor = self.backbone.word_embeddings(ids)
            return embeddings
        return self.rows.lookup(ids) if torch.is_grad_enabled() else self.rows.current(ids)

    def zero_grad(self) -> None:
        """Free gradients: the first backward pass hands over its own, which are not added to zeros."""
        for parameter in self.dense.values():
            parameter.grad = None
        if self.rows:
            self.rows.zero_grad()

    @torch.no_grad()
    def pull_back(self, theta: Mapping[str, Tensor], weight: float) -> None:
        """Add the subgradient of weight × Σ|θ^l − θ| to the gradients, in place."""
        for name, parameter in self.dense.items():
            assert parameter.grad is not None
            # In blocks of rows, whose differences stay in the cache.
            for gradient, value, origin in zip(
                *(tensor.split(BLOCK) for tensor in (parameter.grad, parameter, theta[name])), strict=True
            ):
                gradient.add_((value - origin).sign_(), alpha=weight)
        if self.rows:
            self.rows.pull_back(weight, BLOCK)

    @torch.no_grad()
    def movement(self, theta: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return |θ^l − θ| of every eligible parameter, on the CPU."""
        moved = {name: (parameter - theta[name]).abs().cpu() for name, parameter in self.dense.items()}
        if self.rows:
            ids, difference = self.rows.difference()
            words = torch.zeros(self.rows.matrix.shape, dtype=difference.dtype)
            words[ids.cpu()] = difference.abs().cpu()
            moved[self.backbone.word_name] = words
        return {parameter.name: moved[parameter.name] for parameter in self.parameters}

    def state(self) -> dict[str, Tensor]:
        """Return trained weights and optimizer state as named tensors."""
        state = {f"weight/{name}": parameter.detach() for name, parameter in self.dense.items()}
        for name, parameter in self.dense.items():
            state |= {f"{key}/{name}": value for key, value in self.optimizer.state[parameter].items()}
        if self.rows:
            state |= {f"rows/{key}": value for key, value in self.rows.state(self.optimizer).items()}
        return state

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned."""
        device = self.backbone.device
        for name, parameter in self.dense.items():
            parameter.copy_(state[f"weight/{name}"])
            kinds = ("step", "exp_avg", "exp_avg_sq")
            self.optimizer.state[parameter] = {kind: state[f"{kind}/{name}"].to(device, copy=True) for kind in kinds}
        if self.rows:
            self.rows.load(
                {k.removeprefix("rows/"): v for k, v in state.items() if k.startswith("rows/")}, self.optimizer
            )
