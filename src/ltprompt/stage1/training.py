"""Stage 1: masked-language-model fine-tuning that shows how far every eligible parameter moves (paper, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltprompt.backbone.draws import drawn
from ltprompt.backbone.model import Backbone
from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.backbone.pretrained import originals, restore
from ltprompt.device import Compute
from ltprompt.errors import InputError, TrainingError
from ltprompt.files.artifacts import TensorFile, write_tensors
from ltprompt.packing.batching import TRAINING_TOKENS, micro_batches
from ltprompt.packing.sequences import Sequences
from ltprompt.stage1.cross_entropy import summed_cross_entropy
from ltprompt.stage1.masking import IGNORED, Lines, Masking, batch_indices, hold_out
from ltprompt.stage1.weights import Trainee

# Tokens of a padded micro-batch: fewer than in stage 2, as the logits of masked tokens are as wide as the vocabulary.
PADDED_TOKENS = 2048
DROPOUT = 4  # parts the draws of dropout from a seed's others
CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Step:
    """What one optimizer step reports: its number from 1, the MLM loss in nats a masked token, and its tokens."""

    number: int
    loss: float
    tokens: int


@dataclass
class History:
    """Losses of a stage 1 in nats a masked token, by step, and what was counted on the way."""

    training: list[tuple[int, float]] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    tokens: int = 0
    kept_step: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the history as plain JSON."""
        return {
            "training_loss": [list(pair) for pair in self.training],
            "held_out_loss": [list(pair) for pair in self.held_out],
            "tokens_trained": self.tokens,
            "kept_step": self.kept_step,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> History:
        """Build the history from what `to_json` returned."""
        training, held_out = (
            [(int(step), float(loss)) for step, loss in data[key]] for key in ("training_loss", "held_out_loss")
        )
        return cls(training, held_out, data["tokens_trained"], data["kept_step"])


@dataclass(frozen=True)
class Movement:
    """The outcome of stage 1: |θ^l − θ| of each eligible parameter, fp32 on the CPU, and the history."""

    parameters: tuple[EligibleParameter, ...]
    tensors: dict[str, Tensor]
    history: History


def masked_loss(backbone: Backbone, embeddings: Tensor, sequences: Sequences, targets: Tensor) -> Tensor:
    """Return the summed cross-entropy at the chosen positions; the head runs at those positions only.

    embeddings: [T, width]; targets: [T], −100 where no token was chosen.
    """
    chosen = (targets != IGNORED).nonzero().squeeze(1)
    logits = backbone.logits(backbone.encode(embeddings, sequences, chosen))
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return summed_cross_entropy(precise, targets[chosen])


class Watcher:
    """What hears of a stage 1 under way; this one keeps silent."""

    def start(self, first: int, steps: int) -> None:
        """Hear how many of `steps` optimizer steps a checkpoint has already done."""

    def step(self, step: Step) -> None:
        """Hear of one optimizer step."""

    def evaluation(self, number: int, loss: float) -> None:
        """Hear of the held-out loss, in nats a masked token, after step `number`."""


def find_movement(
    backbone: Backbone,
    lines: Lines,
    *,
    strategy: str,
    steps: int,
    batch_size: int,
    lr: float,
    l1: float,
    clip: float,
    held_out: float,
    evaluate_every: int,
    keep: str,
    seed: int,
    compute: Compute,
    checkpoint: Path | None = None,
    identity: str = "",
    watcher: Watcher | None = None,
) -> Movement:
    """Fine-tune with masked language modelling and return how far each eligible parameter moved.

    steps: optimizer steps; the rate decays linearly to 0 over them. l1: the coefficient of Σ|θ^l − θ| / N. held_out:
    share of the lines that is evaluated every `evaluate_every` steps and never trained on. keep: ``final`` weights or
    those of the ``best`` held-out loss. checkpoint: file to save to at each evaluation and to go on from where it
    exists and names the same `identity`. The backbone's weights are θ again afterwards, whatever happens.
    Raises `TrainingError` where the loss is no longer finite.
    """
    with ExitStack() as stack:
        stack.enter_context(backbone.reserved())
        trainee = Trainee(backbone, strategy, lr)
        mapped = stack.enter_context(originals(backbone, trainee.dense))
        theta = {name: tensor.to(backbone.device) for name, tensor in mapped.items()}
        run = StageOne(
            trainee, lines, theta, *hold_out(len(lines), held_out, seed),
            steps=steps, batch_size=batch_size, lr=lr, l1=l1, clip=clip, keep=keep, seed=seed, compute=compute,
        )  # fmt: skip
        stack.callback(restore, backbone, theta)
        stack.callback(backbone.model.eval)
        stack.callback(_require_grad, trainee.dense.values(), False)
        _require_grad(trainee.dense.values(), True)
        run.go(evaluate_every, checkpoint, identity, watcher or Watcher())
        return Movement(trainee.parameters, run.kept(), run.history)


@dataclass
class StageOne:
    """A stage 1 under way. theta: θ of what trains in place; train, held: line numbers; best: movement kept so far."""

    trainee: Trainee
    lines: Lines
    theta: Mapping[str, Tensor]
    train: np.ndarray
    held: np.ndarray
    steps: int
    batch_size: int
    lr: float
    l1: float
    clip: float
    keep: str
    seed: int
    compute: Compute
    history: History = field(default_factory=History)
    best: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.masking = Masking.of(self.trainee.backbone)

    def go(self, evaluate_every: int, checkpoint: Path | None, identity: str, watcher: Watcher) -> None:
        """Train from the start, or from the checkpoint, to the last step."""
        first = self._resume(checkpoint, identity) if checkpoint is not None and checkpoint.exists() else 0
        watcher.start(first, self.steps)
        for number in range(first, self.steps):
            step = self.step(number)
            watcher.step(step)
            last = step.number == self.steps
            if step.number % evaluate_every == 0 or last:
                if len(self.held):
                    watcher.evaluation(step.number, self.evaluate(step.number))
                if checkpoint is not None and not last:
                    self._save(checkpoint, identity)
        self.history.kept_step = self.history.kept_step if self.best else self.steps

    def step(self, number: int) -> Step:
        """Take optimizer step `number` (from 0)."""
        places = batch_indices(len(self.train), number, self.batch_size, self.seed)
        batch = [self.lines[int(self.train[place])] for place in places]
        inputs, targets = self.masking.apply(batch, np.random.default_rng([self.seed, 1, number]))
        for group in self.trainee.optimizer.param_groups:
            group["lr"] = self.lr * (1 - number / self.steps)
        # Dropout too depends on the seed and the step alone, so that a resumed run draws what an unbroken one draws.
        with drawn(self.trainee.backbone, self.seed, DROPOUT, number):
            loss = mlm_step(
                self.trainee, inputs, targets, self.theta, l1=self.l1, clip=self.clip, compute=self.compute
            )  # fmt: skip
        _require_finite(loss, number + 1, self.lr)
        step = Step(number + 1, loss, sum(map(len, batch)))
        self.history.training.append((step.number, loss))
        self.history.tokens += step.tokens
        return step

    def evaluate(self, number: int) -> float:
        """Evaluate on the held-out lines after step `number`, and keep the movement where it is the best to be kept."""
        loss = held_out_loss(self.trainee, self.lines, self.held, self.masking, self.seed, self.compute)
        _require_finite(loss, number, self.lr)
        lowest = min((value for _, value in self.history.held_out), default=math.inf)
        self.history.held_out.append((number, loss))
        if self.keep == "best" and loss < lowest:
            self.history.kept_step = number
            self.best = self.trainee.movement(self.theta)
        return loss

    def kept(self) -> dict[str, Tensor]:
        """Return the movement to be kept: the best so far, else that of the weights as they are."""
        moved = self.best or self.trainee.movement(self.theta)
        # The last step may break the weights after its loss was taken.
        _require_finite(sum(float(tensor.sum(dtype=torch.float64)) for tensor in moved.values()), self.steps, self.lr)
        return moved

    def _save(self, path: Path, identity: str) -> None:
        tensors = self.trainee.state() | {f"best/{name}": tensor for name, tensor in self.best.items()}
        write_tensors(path, CHECKPOINT, tensors, {"identity": identity, "history": self.history.to_json()})

    def _resume(self, path: Path, identity: str) -> int:
        with TensorFile(path, CHECKPOINT) as file:
            if file.metadata["identity"] != identity:
                raise InputError(
                    f"{path} was left by a stage 1 with other settings, dtype, text or backbone; "
                    "run it with those, choose another `out`, or delete it"
                )
            file.verify()
            state = {name: file.get(name) for name in file.names}
            self.trainee.load({name: tensor for name, tensor in state.items() if not name.startswith("best/")})
            self.best = {n.removeprefix("best/"): t.clone() for n, t in state.items() if n.startswith("best/")}
        self.history = History.from_json(file.metadata["history"])
        return self.history.training[-1][0]


def mlm_step(
    trainee: Trainee,
    inputs: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    theta: Mapping[str, Tensor],
    *,
    l1: float,
    clip: float,
    compute: Compute,
) -> float:
    """Take one optimizer step on a masked batch and return its MLM loss; a loss that is not finite moves nothing."""
    trainee.backbone.model.train()
    loss = masked_gradient(trainee, inputs, targets, compute)
    trainee.pull_back(theta, l1 / trainee.backbone.untied_size)
    torch.nn.utils.clip_grad_norm_(trainee.all(), clip)
    if math.isfinite(loss):
        trainee.optimizer.step()
    return loss


def masked_gradient(
    trainee: Trainee, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray], compute: Compute
) -> float:
    """Leave the gradient of a masked batch's mean loss with what is trained, and return that loss.

    The batch runs in micro-batches, each divided by the whole batch's count of chosen tokens.
    """
    count = sum(int((target != IGNORED).sum()) for target in targets)
    trainee.touch(np.concatenate(inputs))
    trainee.zero_grad()
    total = 0.0
    for ids, sequences, wanted in masked_batches(trainee.backbone, inputs, targets, compute):
        with compute.autocast():
            loss = masked_loss(trainee.backbone, trainee.embed(ids), sequences, wanted) / count
        loss.backward()
        total += float(loss.detach())
    return total


def masked_batches(
    backbone: Backbone, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray], compute: Compute
) -> Iterator[tuple[Tensor, Sequences, Tensor]]:
    """Yield micro-batches as (ids [T], how they part into lines, targets [T])."""
    lengths = np.array([len(line) for line in inputs], np.int64)
    max_tokens = TRAINING_TOKENS[compute.dtype_name] if backbone.packs else PADDED_TOKENS
    for group in micro_batches(lengths, max_tokens=max_tokens, packed=backbone.packs):
        sequences = Sequences.of([inputs[i] for i in group])
        ids, wanted = (
            torch.from_numpy(np.concatenate([lines[i] for i in group])).to(backbone.device, torch.int64)
            for lines in (inputs, targets)
        )
        yield ids, sequences, wanted


@torch.no_grad()
def held_out_loss(
    trainee: Trainee, lines: Lines, held: np.ndarray, masking: Masking, seed: int, compute: Compute
) -> float:
    """Return the MLM loss in nats a masked token on the held-out lines, with the same masks at every call."""
    backbone = trainee.backbone
    backbone.model.eval()
    total, count = 0.0, 0
    order = held[np.argsort([-len(lines[int(i)]) for i in held], kind="stable")]
    for start in range(0, len(order), 256):
        generator = np.random.default_rng([seed, 3, start])
        inputs, targets = masking.apply([lines[int(i)] for i in order[start : start + 256]], generator)
        for ids, sequences, wanted in masked_batches(backbone, inputs, targets, compute):
            with compute.autocast():
                total += float(masked_loss(backbone, trainee.embed(ids), sequences, wanted))
            count += int((wanted != IGNORED).sum())
    return total / count


def _require_grad(parameters: Any, value: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(value)
        parameter.grad = None


def _require_finite(value: float, step: int, lr: float) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"the loss became {value} at step {step}; nothing was written. Lower `lr` (now {lr:g}), "
            "or train with `dtype` fp32"
        )
