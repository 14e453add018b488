"""Stage 2: training the prompt and what the method trains of the backbone, on a few examples (paper, section 3.2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from ltprompt.backbone.draws import drawn
from ltprompt.errors import TrainingError
from ltprompt.packing.batching import TRAINING_TOKENS, epoch_order
from ltprompt.stage2.forward import Reader
from ltprompt.stage2.methods import Recipe
from ltprompt.stage2.readout import fold
from ltprompt.stage2.weights import Weights, build_optimizer, trained_tensors
from ltprompt.tasks.template import Encoded

DROPOUT = 5  # parts the draws of dropout from a seed's others
PADDED_TOKENS = 4096  # of a micro-batch where sequences are padded, as on a GPU: few large products are faster there


@dataclass(frozen=True)
class Epoch:
    """What one epoch reports: its number from 1, mean training loss in nats, dev accuracy if there is a dev set."""

    number: int
    loss: float
    dev_accuracy: float | None

    def __str__(self) -> str:
        dev = "" if self.dev_accuracy is None else f", dev accuracy {self.dev_accuracy:.1%}"
        return f"loss {self.loss:.4f}{dev}"


@dataclass(frozen=True)
class LabelledExamples:
    """Encoded examples with their class numbers."""

    examples: Sequence[Encoded]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.examples)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Copies of what trained of the backbone and beside it."""

    weights: Any
    beside: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Learner:
    """All that learns: how labels are read, what trains of the backbone and beside it, and their optimizer."""

    reader: Reader
    weights: Weights
    beside: nn.Module | None
    optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, reader: Reader, weights: Weights, beside: nn.Module | None, recipe: Recipe) -> Learner:
        """Put the parts together with a recipe's optimizer."""
        return cls(reader, weights, beside, build_optimizer(recipe, weights, beside, reader.backbone.norms))

    @property
    def tensors(self) -> Sequence[nn.Parameter]:
        """Every tensor that trains, for the joint gradient norm."""
        return trained_tensors(self.optimizer)

    def accuracy(self, examples: LabelledExamples) -> float:
        """Return the share of right labels, with everything as it stands."""
        with torch.no_grad():
            rows = self.weights.output_rows()
        logits = self.reader.predict(examples.examples, fold(self.beside), embed=self.weights.embed, rows=rows)
        return float((logits.argmax(1) == examples.labels).mean())

    def snapshot(self) -> Snapshot:
        """Return copies of what trains."""
        state = {} if self.beside is None else copy.deepcopy(self.beside.state_dict())
        return Snapshot(self.weights.snapshot(), state)

    def load(self, snapshot: Snapshot) -> None:
        """Take copies up."""
        self.weights.load(snapshot.weights)
        if self.beside is not None:
            self.beside.load_state_dict(snapshot.beside)


@dataclass(frozen=True)
class Tuned:
    """What a training did: all its epochs, and the number of the one that the learner was left at."""

    epochs: tuple[Epoch, ...]
    kept_epoch: int


def tune(
    learner: Learner,
    train: LabelledExamples,
    dev: LabelledExamples | None,
    recipe: Recipe,
    *,
    seed: int,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Tuned:
    """Train, and leave the learner at the epoch with the best dev accuracy, the earliest of equals.

    Without a dev set the last epoch is left. Raises `TrainingError` where the loss, or what is left, is no longer
    finite.
    """
    epochs: list[Epoch] = []
    best: tuple[float, int, Snapshot] | None = None
    steps = recipe.epochs * math.ceil(len(train) / recipe.batch_size)
    schedule = _schedule(learner.optimizer, recipe, steps)
    for number in range(1, recipe.epochs + 1):
        loss = _train_epoch(learner, train, number, recipe, schedule, seed)
        accuracy = learner.accuracy(dev) if dev else None
        epochs.append(Epoch(number, loss, accuracy))
        if accuracy is not None and (best is None or accuracy > best[0]):
            best = accuracy, number, learner.snapshot()
        if on_epoch:
            on_epoch(epochs[-1])
    kept = recipe.epochs if best is None else best[1]
    if best is not None and kept != recipe.epochs:
        learner.load(best[2])
    # No loss follows the last step, which may have overflowed too.
    if not all(tensor.isfinite().all() for tensor in learner.tensors):
        raise TrainingError(_diverged("trained values became infinite", steps, recipe))
    return Tuned(tuple(epochs), kept)


def _train_epoch(
    learner: Learner, train: LabelledExamples, number: int, recipe: Recipe, schedule: LRScheduler, seed: int
) -> float:
    """Take the steps of epoch `number`, from 1, and return their mean loss.

    The order of the examples depends on the seed and the epoch alone, dropout on the seed and the step.
    """
    order, losses = epoch_order(len(train), seed, number), []
    for start in range(0, len(train), recipe.batch_size):
        with drawn(learner.reader.backbone, seed, DROPOUT, schedule.last_epoch):
            losses.append(train_step(learner, train, order[start : start + recipe.batch_size], recipe.clip))
        if not math.isfinite(losses[-1]):
            raise TrainingError(_diverged(f"the loss became {losses[-1]}", schedule.last_epoch + 1, recipe))
        schedule.step()
    return float(np.mean(losses))


def train_step(learner: Learner, train: LabelledExamples, batch: np.ndarray, clip: float) -> float:
    """Take one optimizer step on the examples numbered in `batch` and return the mean loss.

    The batch runs in micro-batches whose losses are divided by the whole batch's size: one gradient. What trains beside
    the backbone is folded once; its gradient is collected over the micro-batches and goes back through it once.
    """
    reader, weights = learner.reader, learner.weights
    reader.backbone.model.train()
    learner.optimizer.zero_grad(set_to_none=False)  # in place: the packed ticket's hooks hold on to its gradient
    folded = None if learner.beside is None else learner.beside()
    leaf = None if folded is None else folded.detach().requires_grad_()
    total = 0.0
    max_tokens = TRAINING_TOKENS[reader.compute.dtype_name] if reader.backbone.packs else PADDED_TOKENS
    for group in reader.micro_batches([train.examples[i] for i in batch], max_tokens):
        chosen = batch[group]
        logits = reader.logits([train.examples[i] for i in chosen], leaf, weights.embed, weights.output_rows())
        labels = torch.from_numpy(train.labels[chosen]).to(logits.device)
        loss = functional.cross_entropy(logits, labels, reduction="sum") / len(batch)
        loss.backward()
        total += float(loss.detach())
    if folded is not None and leaf is not None:
        folded.backward(leaf.grad)
    torch.nn.utils.clip_grad_norm_(learner.tensors, clip)
    if math.isfinite(total):
        learner.optimizer.step()
        weights.step_done()
    return total


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """Return what sets the rates: constant, or decaying linearly to 0 over so many steps."""
    linear = recipe.schedule == "linear"
    return LambdaLR(optimizer, lambda step: 1 - step / steps if linear else 1.0)


def _diverged(what: str, step: int, recipe: Recipe) -> str:
    return (
        f"{what} at step {step}; nothing was written. Lower `lr` (now {recipe.lr:g}) "
        f"or `prompt_lr` (now {recipe.prompt_lr:g}), or train with `dtype` fp32"
    )
