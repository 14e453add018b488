"""The methods: what each trains of the backbone, with which template and which optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ltprompt.changes import Change
from ltprompt.dense import DenseWeights
from ltprompt.errors import InputError, choices
from ltprompt.packed import PackedWeights

Schedule = Literal["constant", "linear"]


@dataclass(frozen=True)
class Recipe:
    """How a method is optimised, where the user says nothing else.

    lr, prompt_lr: rates of the backbone's part and of the prompt. weight_decay: as the optimizer takes it. clip: the
    largest joint gradient norm.
    """

    optimizer: Literal["adamw", "adam"]
    lr: float
    prompt_lr: float
    batch_size: int
    epochs: int
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    clip: float = 1.0


# Paper, section 4.2: AdamW, rate 2e-5 for everything trained, batches of 32, 70 epochs.
LTP = Recipe("adamw", 2e-5, 2e-5, 32, 70)
# Zhao & Schütze 2021 (facts.md): Adam with L2 in the gradient, rate 1e-5, batches of 12, 50 epochs.
PUBLISHED = Recipe("adam", 1e-5, 1e-5, 12, 50, weight_decay=0.01)


@dataclass(frozen=True)
class Method:
    """A method by name: its template style, what it trains of the backbone, its recipe."""

    name: str
    style: str
    trains: Literal["ticket", "nothing", "everything"]
    recipe: Recipe


METHODS = {
    method.name: method
    for method in (
        Method("ltp", "soft", "ticket", LTP),
        Method("prompt-only", "soft", "nothing", LTP),
        Method("sp", "soft", "everything", PUBLISHED),
    )
}


def find_method(name: str) -> Method:
    """Return a method by name. Raises `InputError` for an unknown one."""
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}: {choices(name, METHODS)}")
    return METHODS[name]


class Weights(Protocol):
    """What training needs of the backbone's trained part: `PackedWeights` and `DenseWeights`."""

    moves_output: bool

    def zero_grad(self) -> None:
        """Set gradients to zero."""

    def embed(self, ids: Tensor) -> Tensor:
        """Return embeddings [..., width] of word ids."""

    def output_rows(self) -> tuple[Tensor, Tensor | None]:
        """Return the verbaliser's rows of the output matrix and its bias."""

    def step_done(self) -> None:
        """Bring the model up to date after an optimizer step."""

    def snapshot(self) -> Any:
        """Return a copy of the trained values."""

    def load(self, snapshot: Any) -> None:
        """Take up a copy."""

    def changes(self) -> list[Change]:
        """Return the entries that differ from θ."""

    def close(self) -> None:
        """Set the model back to θ."""


def build_optimizer(recipe: Recipe, weights: PackedWeights | DenseWeights, prompt: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a method over the backbone's trained part and the prompt."""
    if isinstance(weights, PackedWeights):
        groups = _groups(
            recipe, {f"flat/{i}": p for i, p in enumerate(weights.parameters())}, prompt, plain=frozenset()
        )
    else:
        groups = _groups(recipe, weights.named_parameters(), prompt, plain=weights.backbone.norms)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr, fused=True)


def _groups(
    recipe: Recipe, trained: dict[str, nn.Parameter], prompt: nn.Module, plain: frozenset[str]
) -> list[dict[str, Any]]:
    """Return parameter groups; biases and the parameters named in `plain` (norms) are not decayed."""
    groups = []
    for rate, named in ((recipe.lr, trained), (recipe.prompt_lr, dict(prompt.named_parameters()))):
        for decayed in (True, False):
            chosen = [p for name, p in named.items() if decayed == _decayed(name, plain)]
            if chosen:
                decay = recipe.weight_decay if decayed else 0.0
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    return groups


def _decayed(name: str, plain: frozenset[str]) -> bool:
    return "bias" not in name and name not in plain


def trained_tensors(optimizer: torch.optim.Optimizer) -> Sequence[nn.Parameter]:
    """Return every tensor that an optimizer trains, for the joint gradient norm."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
