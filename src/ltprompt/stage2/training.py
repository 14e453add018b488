"""Stage 2: training the prompt and what the method trains of the backbone, on a few examples (paper, section 3.2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ltprompt.device import forked_random
from ltprompt.errors import TrainingError
from ltprompt.packing.batching import TRAINING_TOKENS, epoch_order
from ltprompt.stage2.forward import Reader
from ltprompt.stage2.methods import Recipe, Weights, trained_tensors
from ltprompt.tasks.template import Encoded

PADDED_TOKENS = 4096  # of a micro-batch where sequences are padded, as on a GPU: few large products are faster there


@dataclass(frozen=True)
class Epoch:
    """What one epoch reports: its number from 1, mean training loss in nats, dev accuracy if there is a dev set."""

    number: int
    loss: float
    dev_accuracy: float | None


@dataclass(frozen=True)
class LabelledExamples:
    """Encoded examples with their class numbers."""

    examples: Sequence[Encoded]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.examples)


@dataclass
class Best:
    """The epoch that is kept so far, with copies of what was trained."""

    epoch: int = 0
    accuracy: float = -1.0
    weights: Any = None
    prompt: dict[str, Tensor] = field(default_factory=dict)


def tune(
    reader: Reader,
    weights: Weights,
    prompt: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    train: LabelledExamples,
    dev: LabelledExamples | None,
    recipe: Recipe,
    *,
    seed: int,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple[list[Epoch], int]:
    """Train, and leave `weights` and `prompt` at the epoch with the best dev accuracy, the earliest of equals.

    prompt: what is trained beside the backbone and folds to one matrix: a `PromptEncoder`, for plain fine-tuning a
    `PooledClassifier`, for discrete prompts nothing.
    Without a dev set the last epoch is left. Returns all epochs and the number of the one that is left.
    Raises `TrainingError` where the loss, or what is left, is no longer finite.
    """
    epochs: list[Epoch] = []
    best = Best()
    rates = [group["lr"] for group in optimizer.param_groups]
    total = recipe.epochs * math.ceil(len(train) / recipe.batch_size)
    step = 0
    with forked_random(reader.backbone.device):
        torch.manual_seed(seed)
        for number in range(1, recipe.epochs + 1):
            losses = []
            order = epoch_order(len(train), seed, number)
            for start in range(0, len(train), recipe.batch_size):
                _set_rates(optimizer, rates, 1 - step / total if recipe.schedule == "linear" else 1.0)
                losses.append(
                    train_step(
                        reader, weights, prompt, optimizer, train, order[start : start + recipe.batch_size], recipe.clip
                    )
                )
                step += 1
                if not math.isfinite(losses[-1]):
                    raise TrainingError(_diverged(f"the loss became {losses[-1]}", step, recipe))
            accuracy = _accuracy(reader, weights, prompt, dev) if dev else None
            epochs.append(Epoch(number, float(np.mean(losses)), accuracy))
            if accuracy is None or accuracy > best.accuracy:
                best = Best(number, accuracy if accuracy is not None else -1.0)
                if accuracy is not None:
                    best.weights = weights.snapshot()
                    best.prompt = copy.deepcopy(prompt.state_dict()) if prompt is not None else {}
            if on_epoch:
                on_epoch(epochs[-1])
    if best.weights is not None and best.epoch != recipe.epochs:
        weights.load(best.weights)
        if prompt is not None:
            prompt.load_state_dict(best.prompt)
    # No loss follows the last step, which may have overflowed too.
    if not all(tensor.isfinite().all() for tensor in trained_tensors(optimizer)):
        raise TrainingError(_diverged("trained values became infinite", step, recipe))
    return epochs, best.epoch


def train_step(
    reader: Reader,
    weights: Weights,
    prompt: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    train: LabelledExamples,
    batch: np.ndarray,
    clip: float,
) -> float:
    """Take one optimizer step on the examples numbered in `batch` and return the mean loss.

    The batch runs in micro-batches whose losses are divided by the whole batch's size: one gradient. The
    prompt is encoded once; its gradient is collected over the micro-batches and goes back through the encoder once.
    """
    reader.backbone.model.train()
    optimizer.zero_grad(set_to_none=False)  # in place: the packed ticket's hooks hold on to its gradient
    folded = None if prompt is None else prompt()
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
    torch.nn.utils.clip_grad_norm_(trained_tensors(optimizer), clip)
    if math.isfinite(total):
        optimizer.step()
        weights.step_done()
    return total


@torch.no_grad()
def fold(prompt: nn.Module | None) -> Tensor | None:
    """Return the prompt's vectors [n, w] as they are evaluated and saved: in the masters' precision, no gradient."""
    if prompt is None:
        return None
    vectors: Tensor = prompt()
    return vectors.detach()


def _accuracy(reader: Reader, weights: Weights, prompt: nn.Module | None, dev: LabelledExamples) -> float:
    with torch.no_grad():
        rows = weights.output_rows()
    logits = reader.predict(dev.examples, fold(prompt), embed=weights.embed, rows=rows)
    return float((logits.argmax(1) == dev.labels).mean())


def _set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float], factor: float) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def _diverged(what: str, step: int, recipe: Recipe) -> str:
    return (
        f"{what} at step {step}; nothing was written. Lower `lr` (now {recipe.lr:g}) "
        f"or `prompt_lr` (now {recipe.prompt_lr:g}), or train with `dtype` fp32"
    )
