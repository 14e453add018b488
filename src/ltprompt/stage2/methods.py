"""The methods: what each trains of the backbone, with which template and which optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ltprompt.backbone.changes import Change
from ltprompt.backbone.model import Backbone
from ltprompt.backbone.pretrained import originals
from ltprompt.errors import InputError, choices
from ltprompt.stage2.peft_weights import PeftWeights
from ltprompt.stage2.ticket_weights import PackedWeights
from ltprompt.stage2.whole_weights import DenseWeights
from ltprompt.tickets.ticket import Ticket

Schedule = Literal["constant", "linear"]
Trains = Literal["ticket", "nothing", "everything", "encoder", "biases", "lora", "shira", "super-tuning"]


@dataclass(frozen=True)
class Recipe:
    """How a method is optimised, where the user says nothing else.

    lr, prompt_lr: rates of the backbone's part and of the prompt (for `ft`, of the classifier). weight_decay: as the
    optimizer takes it. clip: the largest joint gradient norm.
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
# Few new or scattered parameters want a higher rate than whole matrices.
LIGHT = replace(LTP, lr=5e-4)


@dataclass(frozen=True)
class Method:
    """A method by name: its input, what it trains of the backbone, its recipe.

    style: of its template, or ``plain`` for the bare texts and a classifier on the first token. size: how large what it
    adds is, where it adds anything: the rank of `lora` and `shira`, the sparsity of `super-tuning`.
    """

    name: str
    style: str
    trains: Trains
    recipe: Recipe
    size: float | None = None


METHODS = {
    method.name: method
    for method in (
        Method("ltp", "soft", "ticket", LTP),
        Method("prompt-only", "soft", "nothing", LTP),
        Method("ft", "plain", "encoder", replace(PUBLISHED, batch_size=8)),
        Method("dp", "discrete", "everything", PUBLISHED),
        Method("sp", "soft", "everything", PUBLISHED),
        Method("mp", "mixed", "everything", PUBLISHED),
        Method("bitfit", "soft", "biases", LIGHT),
        Method("lora", "soft", "lora", LIGHT, size=8),
        Method("shira", "soft", "shira", LIGHT, size=32),
        Method("super-tuning", "soft", "super-tuning", LIGHT, size=0.99),
    )
}


def find_method(name: str) -> Method:
    """Return a method by name. Raises `InputError` for an unknown one."""
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}: {choices(name, METHODS)}")
    return METHODS[name]


def resolved_size(method: Method, given: float | None) -> float | None:
    """Return the size that a method works with. Raises `InputError` where it takes none or the value makes no sense."""
    if method.size is None:
        if given is not None:
            raise InputError(f"method {method.name!r} takes no size; leave it out")
        return None
    size = method.size if given is None else given
    share = method.trains == "super-tuning"
    if not (0 < size < 1 if share else size >= 1 and size == int(size)):
        what = "a sparsity between 0 and 1" if share else "a rank, a whole number from 1"
        raise InputError(f"size {size:g} does not suit method {method.name!r}; give {what}, such as {method.size:g}")
    return size


class Weights(Protocol):
    """What training needs of the backbone's trained part: `PackedWeights`, `DenseWeights` and `PeftWeights`."""

    moves_output: bool

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return what the optimizer trains, by name."""

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


@contextmanager
def training_weights(
    method: Method,
    backbone: Backbone,
    *,
    ticket: Ticket | None,
    words: Sequence[int],
    outputs: Sequence[int],
    size: float | None,
    seed: int,
) -> Iterator[Weights]:
    """Yield what a method trains of the backbone; at the end every weight is θ again, whatever happened.

    words: ids that occur in training. outputs: the verbaliser's rows of the output matrix. size: as `resolved_size`
    gives it. seed: of what a method draws.
    """
    with ExitStack() as stack:
        stack.enter_context(backbone.reserved())
        weights: PackedWeights | DenseWeights | PeftWeights
        if method.trains in ("ticket", "nothing"):
            master = backbone.word_embeddings.weight.dtype
            weights = PackedWeights(backbone, ticket, words, outputs, master=master)
        elif method.trains in ("lora", "shira", "super-tuning"):
            assert size is not None
            weights = PeftWeights(backbone, method.trains, size, outputs, seed=seed)
        else:
            theta = stack.enter_context(originals(backbone, _trained_names(method, backbone)))
            weights = DenseWeights(backbone, theta, outputs)
        stack.callback(backbone.model.eval)
        stack.callback(weights.close)
        yield weights


def _trained_names(method: Method, backbone: Backbone) -> list[str]:
    if method.trains == "everything":
        return list(backbone.parameters)
    names = backbone.encoder_names
    return names if method.trains == "encoder" else [name for name in names if name.endswith("bias")]


def build_optimizer(
    recipe: Recipe, weights: Weights, prompt: nn.Module | None, norms: frozenset[str]
) -> torch.optim.Optimizer:
    """Return the optimizer of a method over the backbone's trained part and the prompt.

    norms: names of the normalisation layers' parameters, which are not decayed.
    """
    beside = {} if prompt is None else dict(prompt.named_parameters())
    groups = _groups(recipe, weights.named_parameters(), beside, norms)
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
