"""Hugging Face's Trainer with a ticket's masks: dynamic padding, stock logits, L1 by autograd.

The masks are multiplied in after each backward pass and the L1 term is added once a step, both in `training_step`, as
composable-sft does. A callback could not: the Trainer calls them after it has clipped the gradients.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks import work
from benchmarks.check import LOGITS
from benchmarks.job import Clock, Job, Movement, Outcome
from benchmarks.rivals.published import ticket_masks, trainable
from ltprompt.stage1.masking import IGNORED
from ltprompt.tasks.template import Encoded

Item = dict[str, work.Line]


class MaskedTrainer(Trainer):
    """The Trainer with gradients multiplied by masks, the L1 term, and a clock.

    masks: by parameter; without one a gradient stays whole. originals: what the L1 term draws to; empty without it.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        masks: Mapping[str, Tensor],
        originals: Mapping[str, Tensor],
        clock: Clock,
        **given: Any,
    ) -> None:
        super().__init__(model, **given)
        self.masks = masks
        self.originals = originals
        self.named = dict(model.named_parameters())
        self.entries = sum(parameter.numel() for parameter in model.parameters())
        self.loss = 0.0
        self.add_callback(Laps(clock, self))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the stock loss; of a part of a batch, its share of the whole batch's masked tokens."""
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if num_items_in_batch is None:
            return found
        return found * (inputs["labels"] != IGNORED).sum() / num_items_in_batch

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Run one part of a batch forward and backward; with its last part the L1 term."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if self.originals and self.accelerator.sync_gradients:
            distance = [(self.named[name] - original).abs().sum() for name, original in self.originals.items()]
            (work.L1 * torch.stack(distance).sum() / self.entries).backward()
        for name, mask in self.masks.items():
            gradient = self.named[name].grad
            if gradient is not None:
                gradient *= mask
        self.loss += float(loss)
        return loss


class Laps(TrainerCallback):
    """Tells the clock of every step."""

    def __init__(self, clock: Clock, trainer: MaskedTrainer) -> None:
        self.clock = clock
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """End a lap."""
        self.clock.lap(self.trainer.loss)
        self.trainer.loss = 0.0


class Prompted(nn.Module):
    """A stock model behind a prompt, with the loss over the label words at the mask."""

    def __init__(self, model: Any, prompt: nn.Module, pieces: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.prompt = prompt
        self.pieces = list(pieces)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss and all logits; ids below 0 are slots of the prompt, labels stand at the mask alone."""
        words = self.model.get_input_embeddings()(input_ids.clamp_min(0))
        vectors = self.prompt()[(-input_ids - 1).clamp_min(0)]
        embeddings = torch.where((input_ids < 0).unsqueeze(-1), vectors.to(words.dtype), words)
        logits = self.model(inputs_embeds=embeddings, attention_mask=attention_mask).logits
        chosen = labels != IGNORED
        loss = functional.cross_entropy(logits[chosen][:, self.pieces].float(), labels[chosen])
        return {"loss": loss, "logits": logits}


def stage_one(job: Job) -> Outcome:
    """Fine-tune every eligible parameter with the stock masked-language-model loss and the L1 term."""
    model, trained = trainable(job.place, dropout=job.dropout)
    originals = {name: parameter.detach().clone() for name, parameter in trained.items()}
    moved = Movement(job, trained)
    batches = work.stage_one(job.place, job.steps, job.seed)
    items = [
        {"input_ids": line, "labels": target} for pair in batches for line, target in zip(*pair, strict=True)
    ]  # fmt: skip
    train(job, model, items, rate=work.STAGE_ONE_RATE, masks={}, originals=originals)
    return Outcome({name: tensor.abs() for name, tensor in moved.outcome().tensors.items()})


def stage_two(job: Job, *, masked: bool) -> Outcome:
    """Train the prompt, and with `masked` every eligible parameter, its gradient multiplied by the ticket's mask."""
    model, trained = trainable(job.place, dropout=job.dropout)
    if not masked:
        model.requires_grad_(False)
        trained = {}
    return prompted(job, model, trained, ticket_masks(job.place) if masked else {})


def prompted(job: Job, model: Any, trained: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Outcome:
    """Train a prompt before `model`, and whatever of the model requires a gradient.

    trained: what is compared beside the prompt, by name.
    """
    prompt = work.prompt_of(model.config.hidden_size)
    given = work.stage_two(job.place, job.steps, job.seed)
    moved = Movement(job, {**trained, **work.named_prompt(prompt)})
    chosen = [number for batch in given.batches for number in batch]
    items = [item(given.examples.examples[number], int(given.examples.labels[number])) for number in chosen]
    named = {f"model.{name}": mask for name, mask in masks.items()}
    train(job, Prompted(model, prompt, given.pieces), items, rate=work.RATE, masks=named, originals={})
    return moved.outcome()


def evaluation(job: Job) -> Outcome:
    """Evaluate with `predict`, which keeps of the logits only those of the label words."""
    model = job.place.stock(dropout=job.dropout)
    pieces = list(work.label_pieces(job.place.ids()))
    whole = Prompted(model, work.prompt_of(model.config.hidden_size), pieces)
    examples = work.evaluated(job.place)
    items: Any = [item(example, 0) for example in examples]

    def label_words(logits: Tensor, labels: Tensor) -> Tensor:
        return logits[labels != IGNORED][:, pieces]

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=whole,
            args=arguments(job, folder, work.RATE),
            data_collator=collator(job.place.ids().pad),
            preprocess_logits_for_metrics=label_words,
        )
        warm_up: Any = [item(example, 0) for example in work.longest(examples, job.rows)]
        trainer.predict(warm_up)
        for _ in range(job.steps):
            job.clock.begin()
            found = trainer.predict(items)
            job.clock.lap()
    logits = torch.from_numpy(np.asarray(found.predictions))
    return Outcome({LOGITS: logits}, {"scale": work.scale(job.place), "examples": len(items)})


def train(
    job: Job, model: nn.Module, items: Sequence[Item], *, rate: float, masks: Mapping[str, Tensor],
    originals: Mapping[str, Tensor],
) -> None:  # fmt: skip
    """Train on items in their order, a batch a step."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = MaskedTrainer(
            model,
            args=arguments(job, folder, rate),
            train_dataset=items,
            data_collator=collator(job.place.ids().pad),
            masks=masks,
            originals=originals,
            clock=job.clock,
        )
        trainer.train()


def arguments(job: Job, folder: str, rate: float) -> TrainingArguments:
    """Return the Trainer's settings: its own defaults but for the recipe and for what would write or print."""
    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=job.rows,
        per_device_eval_batch_size=job.rows,
        gradient_accumulation_steps=job.place.shape.batch // job.rows,
        num_train_epochs=1,
        learning_rate=rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=work.CLIP,
        train_sampling_strategy="sequential",
        bf16=job.dtype == "bf16",
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def item(example: Encoded, label: int) -> Item:
    """Return an example as the Trainer's data sets hold one."""
    labels = np.full(len(example.ids), IGNORED)
    labels[example.read_at] = label
    return {"input_ids": example.ids, "labels": labels}


def collator(pad_id: int) -> Any:
    """Return what pads a batch to its longest example."""

    def collate(items: Sequence[Item]) -> dict[str, Tensor]:
        ids, labels = ([torch.from_numpy(each[key]) for each in items] for key in ("input_ids", "labels"))
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_id),
            "attention_mask": pad_sequence([torch.ones_like(line) for line in ids], batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        }

    return collate
