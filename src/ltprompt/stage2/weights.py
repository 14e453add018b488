"""What of the backbone trains: a ticket, whole tensors or PEFT's adapters, and the optimizer over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ltprompt.backbone.changes import Change
from ltprompt.backbone.model import Backbone
from ltprompt.backbone.pretrained import originals
from ltprompt.errors import InputError
from ltprompt.stage2.methods import Recipe, Trains
from ltprompt.stage2.peft_weights import PeftWeights
from ltprompt.stage2.ticket_weights import PackedWeights
from ltprompt.stage2.whole_weights import DenseWeights
from ltprompt.tickets.ticket import Ticket


class Weights(Protocol):
    """What training needs of the backbone's trained part: `PackedWeights`, `DenseWeights` and `PeftWeights`."""

    moves_output: bool

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return what the optimizer trains, by name."""

    def embed(self, ids: Tensor) -> Tensor:
        """Return embeddings [..., width] of token ids."""

    def output_rows(self) -> tuple[Tensor, Tensor | None]:
        """Return the label words' rows of the output matrix and their bias."""

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


@contextmanager
def training_weights(
    trains: Trains,
    backbone: Backbone,
    *,
    ticket: Ticket | None,
    token_ids: Sequence[int],
    label_ids: Sequence[int],
    rank: float | None,
    seed: int,
) -> Iterator[Weights]:
    """Yield what trains of the backbone; at the end every weight is θ again, whatever happened.

    trains: as `methods.Trains` has it. token_ids: those that are looked up in training. label_ids: the label words'
    rows of the output matrix. rank: as `resolved_rank` gives it. seed: of what PEFT draws.
    """
    with ExitStack() as stack:
        stack.enter_context(backbone.reserved())
        weights: PackedWeights | DenseWeights | PeftWeights
        if trains in ("ticket", "nothing"):
            master = backbone.word_embeddings.weight.dtype
            weights = PackedWeights(backbone, ticket, token_ids, label_ids, master=master)
        elif trains == "lora" or trains == "shira" or trains == "super-tuning":
            assert rank is not None
            weights = PeftWeights(backbone, trains, rank, label_ids, seed=seed)
        else:
            theta = stack.enter_context(originals(backbone, _trained_names(trains, backbone)))
            weights = DenseWeights(backbone, theta, label_ids)
        stack.callback(backbone.model.eval)
        stack.callback(weights.close)
        yield weights


def _trained_names(trains: Trains, backbone: Backbone) -> list[str]:
    if trains == "everything":
        return list(backbone.parameters)
    names = backbone.encoder_names
    return names if trains == "encoder" else [name for name in names if name.endswith("bias")]


def build_optimizer(
    recipe: Recipe, weights: Weights, beside: nn.Module | None, norms: frozenset[str]
) -> torch.optim.Optimizer:
    """Return the optimizer over the backbone's trained part and what trains beside it, a prompt or a classifier.

    norms: names of the normalisation layers' parameters, which are not decayed. Raises `InputError` where neither has
    a parameter.
    """
    named = {} if beside is None else dict(beside.named_parameters())
    groups = _groups(recipe, weights.named_parameters(), named, norms)
    if not groups:
        raise InputError("nothing would train: the ticket is empty and the template has no prompt; cut a larger ticket")
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr, fused=True)


def _groups(
    recipe: Recipe, trained: dict[str, nn.Parameter], beside: dict[str, nn.Parameter], norms: frozenset[str]
) -> list[dict[str, Any]]:
    """Return parameter groups; biases and norms are not decayed."""
    groups = []
    for rate, named in ((recipe.lr, trained), (recipe.prompt_lr, beside)):
        for decayed in (True, False):
            chosen = [p for name, p in named.items() if decayed == _decayed(name, norms)]
            if chosen:
                decay = recipe.weight_decay if decayed else 0.0
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    return groups


def _decayed(name: str, norms: frozenset[str]) -> bool:
    return "bias" not in name and name not in norms


def trained_tensors(optimizer: torch.optim.Optimizer) -> Sequence[nn.Parameter]:
    """Return every tensor that an optimizer trains, for the joint gradient norm."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
