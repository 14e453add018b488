"""The published loops, as their repositories have them.

Every input is padded to the longest length allowed, logits are computed at every position over the whole vocabulary,
the prompt is put in by Python loops (Zhao & Schütze 2021), gradients are dense and multiplied by masks, the optimizer
holds state for every parameter, and the threshold is found in one list of Python floats (Ansell et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import work
from benchmarks.check import LOGITS
from benchmarks.job import Job, Movement, Outcome
from benchmarks.shapes import Place
from ltprompt.stage1.masking import IGNORED
from ltprompt.tasks.template import Encoded

LISTED = 70_000_000  # some 4 GB: a float object, its place in a list, and its two copies while it is partitioned

EVALUATED = 4  # one example of so many is timed
PAGE = 1024  # fp32 numbers


def stage_one(job: Job) -> Outcome:
    """Fine-tune every eligible parameter with the L1 term by autograd."""
    job.seeded()
    model, trained = trainable(job.place, dropout=job.dropout)
    originals = {name: parameter.detach().clone() for name, parameter in trained.items()}
    entries = sum(parameter.numel() for parameter in model.parameters())
    optimizer = torch.optim.AdamW(trained.values(), lr=work.STAGE_ONE_RATE, weight_decay=0.0)
    moved = Movement(job, trained)
    for inputs, targets in work.stage_one(job.place, job.steps, job.seed):
        optimizer.zero_grad()
        count = sum(int((target != IGNORED).sum()) for target in targets)
        total = 0.0
        for part in parts(len(inputs), job.rows):
            ids, attention = padded([inputs[i] for i in part], job.place.ids().pad, job.place.shape.max_length)
            labels, _ = padded([targets[i] for i in part], IGNORED, job.place.shape.max_length)
            with job.compute.autocast():
                logits = model(input_ids=ids, attention_mask=attention).logits
                loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / count
            loss.backward()
            total += loss.item()
        distance = torch.stack([(parameter - originals[name]).abs().sum() for name, parameter in trained.items()])
        (work.L1 * distance.sum() / entries).backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), work.CLIP)
        optimizer.step()
        job.clock.lap(total)
    return Outcome({name: tensor.abs() for name, tensor in moved.outcome().tensors.items()})


def stage_two(job: Job, *, masked: bool) -> Outcome:
    """Train the prompt, and with `masked` every eligible parameter, its gradient multiplied by the ticket's mask."""
    model, trained = trainable(job.place, dropout=job.dropout)
    if not masked:
        model.requires_grad_(False)
        trained = {}
    masks = ticket_masks(job.place) if masked else {}
    prompt = work.prompt_of(model.config.hidden_size)
    everything = [*trained.values(), *prompt.parameters()]
    optimizer = torch.optim.AdamW(everything, lr=work.RATE, weight_decay=0.0)
    moved = Movement(job, trained | work.named_prompt(prompt))
    given = work.stage_two(job.place, job.steps, job.seed)
    job.seeded()
    for batch in given.batches:
        optimizer.zero_grad()
        total = 0.0
        for part in parts(len(batch), job.rows):
            examples = [given.examples.examples[i] for i in batch[part]]
            labels = torch.from_numpy(given.examples.labels[batch[part]])
            logits = label_logits(job, model, prompt, examples, given.pieces)
            loss = functional.cross_entropy(logits, labels, reduction="sum") / len(batch)
            loss.backward()
            total += loss.item()
        for name, parameter in trained.items():
            if parameter.grad is not None:
                parameter.grad *= masks[name]
        torch.nn.utils.clip_grad_norm_(everything, work.CLIP)
        optimizer.step()
        job.clock.lap(total)
    return moved.outcome()


@torch.no_grad()
def evaluation(job: Job) -> Outcome:
    """Evaluate batch by batch in the given order.

    Padded to one length every example costs the same, so that a part of them is timed, and the time scaled.
    """
    model = job.place.stock(dropout=job.dropout).eval()
    prompt, pieces = work.prompt_of(model.config.hidden_size), work.label_pieces(job.place.ids())
    part = EVALUATED if job.dropout else 1  # whole where results are compared
    examples = work.evaluated(job.place)[::part]

    def predict(some: Sequence[Encoded]) -> Tensor:
        batches = [[some[i] for i in part] for part in parts(len(some), job.rows)]
        return torch.cat([label_logits(job, model, prompt, batch, pieces).float() for batch in batches])

    predict(work.longest(examples, job.rows))
    for _ in range(job.steps):
        job.clock.begin()
        logits = predict(examples)
        job.clock.lap()
    return Outcome({LOGITS: logits}, {"scale": part * work.scale(job.place), "examples": len(examples), "part": part})


def cutting(job: Job) -> Outcome:
    """Find the threshold in one list of every score, then the masks.

    The list of a large model takes minutes and most of the memory. So no more than LISTED scores are timed, in
    proportion of every tensor, and the time is scaled: building the list and partitioning it are linear in its entries.
    Where results are compared it is all of them, in an array in the place of the list.
    """
    scores = job.place.scores()
    entries = sum(tensor.numel() for tensor in scores.tensors.values())
    share = min(1.0, LISTED / entries) if job.dropout else 1.0
    used = {name: tensor.view(-1)[: round(share * tensor.numel())] for name, tensor in scores.tensors.items()}
    for _ in range(job.steps):
        job.clock.begin()
        everything = _listed(used) if job.dropout else torch.cat([tensor.abs() for tensor in used.values()]).numpy()
        place = len(everything) - int(0.2 * len(everything) + 0.5)
        threshold = np.partition(everything, place)[place]
        masks = {name: tensor.abs() >= threshold for name, tensor in used.items()}
        job.clock.lap()
    found = {} if job.dropout else {n: m.view(scores.tensors[n].shape) for n, m in masks.items()}
    return Outcome(found, {"entries": sum(map(len, used.values())), "scale": 1 / share})


def _listed(scores: Mapping[str, Tensor]) -> list[float]:
    everything: list[float] = []
    for tensor in scores.values():
        everything.extend(tensor.abs().tolist())
    return everything


def loading(job: Job, *, read: bool) -> Outcome:
    """Load a whole checkpoint: what a user does who keeps a fine-tuned model a task.

    read: whether every page of the weights is read too. Where transformers maps the file, loading alone puts that off
    until the weights are first used.
    """
    for _ in range(job.steps):
        job.clock.begin()
        model = job.place.stock(dropout=True)
        if read:
            sum(float(parameter.detach().view(-1)[::PAGE].sum()) for parameter in model.parameters())
        job.clock.lap()
    return Outcome()


def trainable(place: Place, *, dropout: bool) -> tuple[Any, dict[str, nn.Parameter]]:
    """Return the stock model with a frozen output matrix of its own, and the eligible parameters, which train."""
    model = place.stock(dropout=dropout).train().requires_grad_(False)
    output = model.get_output_embeddings()
    output.weight = nn.Parameter(output.weight.detach().clone(), requires_grad=False)
    named = dict(model.named_parameters())
    trained = {parameter.name: named[parameter.name] for parameter in place.ticket().parameters}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    return model, trained


def ticket_masks(place: Place) -> dict[str, Tensor]:
    """Return the ticket as a mask a tensor."""
    ticket = place.ticket()
    return {parameter.name: ticket.mask(parameter.name) for parameter in ticket.parameters}


def label_logits(job: Job, model: Any, prompt: nn.Module, examples: Sequence[Encoded], pieces: Sequence[int]) -> Tensor:
    """Return the logits [B, labels] of the label words at the mask, out of all logits at all positions."""
    ids, attention = padded([example.ids for example in examples], job.place.ids().pad, job.place.shape.max_length)
    embeddings = inserted(model.get_input_embeddings()(ids.clamp_min(0)), ids, prompt())
    with job.compute.autocast():
        logits = model(inputs_embeds=embeddings, attention_mask=attention).logits
    return torch.stack([logits[row, example.read_at][list(pieces)] for row, example in enumerate(examples)])


def inserted(embeddings: Tensor, ids: Tensor, vectors: Tensor) -> Tensor:
    """Put the prompt's vectors [n, w] into embeddings [B, L, w], one after another, and return them."""
    places = (ids < 0).nonzero().reshape(len(ids), len(vectors), 2)[:, :, 1]
    for row in range(len(ids)):
        for slot in range(len(vectors)):
            embeddings[row, places[row, slot], :] = vectors[slot, :]
    return embeddings


def padded(lines: Sequence[work.Line], value: int, length: int) -> tuple[Tensor, Tensor]:
    """Return lines as [B, length], filled up with `value`, and their attention mask."""
    ids, attention = torch.full((len(lines), length), value), torch.zeros(len(lines), length, dtype=torch.int64)
    for row, line in enumerate(lines):
        ids[row, : len(line)] = torch.from_numpy(line)
        attention[row, : len(line)] = 1
    return ids, attention


def parts(size: int, rows: int) -> Iterator[range]:
    """Yield a batch's positions, `rows` at a time."""
    for start in range(0, size, rows):
        yield range(start, min(start + rows, size))
