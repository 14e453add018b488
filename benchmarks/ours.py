"""ltprompt itself, driven by the calls that its own pipeline makes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from benchmarks import floors, work
from benchmarks.check import LOGITS
from benchmarks.job import Job, Movement, Outcome
from benchmarks.shapes import SEED, Place
from ltprompt.adapter import Adapter, revert
from ltprompt.backbone.changes import Change
from ltprompt.backbone.draws import drawn
from ltprompt.backbone.model import Backbone
from ltprompt.backbone.parameters import total
from ltprompt.backbone.pretrained import originals
from ltprompt.stage1.training import mlm_step
from ltprompt.stage1.weights import Trainee
from ltprompt.stage2.forward import Reader
from ltprompt.stage2.methods import LTP, METHODS
from ltprompt.stage2.readout import WordReadout, fold
from ltprompt.stage2.training import Learner, train_step
from ltprompt.stage2.weights import Weights, training_weights
from ltprompt.tasks.verbaliser import Verbaliser
from ltprompt.tickets import selection
from ltprompt.tickets.ticket import Ticket


def stage_one(job: Job, *, joined: float = 0.0) -> Outcome:
    """Train as `find_movement` does.

    joined: share of the vocabulary's rows that are trained from the start, as they are late in a long run.
    """
    job.seeded()
    backbone = job.place.backbone(dropout=job.dropout)
    trainee = Trainee(backbone, "decoupled", work.STAGE_ONE_RATE)
    with originals(backbone, trainee.dense) as theta:
        for parameter in trainee.dense.values():
            parameter.requires_grad_(True)
        trainee.touch(np.arange(round(joined * len(backbone.word_embeddings.weight))))
        for number, (inputs, targets) in enumerate(work.stage_one(job.place, job.steps, job.seed)):
            with drawn(backbone, job.seed, number):
                loss = mlm_step(trainee, inputs, targets, theta, l1=work.L1, clip=work.CLIP, compute=job.compute)
            job.clock.lap(loss)
        return Outcome() if job.dropout else Outcome(trainee.movement(theta))


def stage_two(job: Job, *, method: str) -> Outcome:
    """Train as `tune` does, with a method of ltprompt and the paper's recipe."""
    backbone = job.place.backbone(dropout=job.dropout)
    given = work.stage_two(job.place, job.steps, job.seed)
    reader, prompt = reader_of(job, backbone), work.prompt_of(backbone.width)
    chosen = METHODS[method]
    ticket = job.place.ticket() if chosen.trains == "ticket" else None
    builder = training_weights(
        chosen.trains, backbone, ticket=ticket, token_ids=[*given.words, backbone.tokenizer.pad_token_id],
        label_ids=reader.readout.label_ids, rank=chosen.rank, seed=SEED,
    )  # fmt: skip
    with builder as weights:
        job.seeded()
        learner = Learner.of(reader, weights, prompt, LTP)
        trained = dict(weights.named_parameters()) if ticket is None else {}
        moved = Movement(job, trained | work.named_prompt(prompt))
        for number, batch in enumerate(given.batches):
            with drawn(backbone, job.seed, number):
                loss = train_step(learner, given.examples, batch, work.CLIP)
            job.clock.lap(loss)
        if job.dropout:
            return Outcome()
        return Outcome({**moved.outcome().tensors, **_ticket_movement(job.place, ticket, weights)})


def evaluation(job: Job) -> Outcome:
    """Evaluate a prompt that was never trained; the first repetition warms up on a few examples."""
    backbone = job.place.backbone(dropout=job.dropout)
    reader, prompt = reader_of(job, backbone), fold(work.prompt_of(backbone.width))
    examples = work.evaluated(job.place)
    reader.predict(work.longest(examples, job.rows), prompt)
    for _ in range(job.steps):
        job.clock.begin()
        logits = reader.predict(examples, prompt)
        job.clock.lap()
    return Outcome({LOGITS: torch.from_numpy(logits)}, {"scale": work.scale(job.place), "examples": len(examples)})


def cutting(job: Job) -> Outcome:
    """Cut 20 % of the scores, which stand in the page cache, and count how often they are passed over."""
    scores = job.place.scores()
    entries = total(scores.parameters)
    passed: list[int] = []

    def chunks(group: Any) -> Any:
        for parameter, bits in whole(group):
            passed.append(len(bits))
            yield parameter, bits

    whole = selection._chunks
    for _ in range(job.steps):
        passed.clear()
        job.clock.begin()
        with patch.object(selection, "_chunks", chunks):
            ticket = scores.select(0.2)
        job.clock.lap()
    found = {} if job.dropout else {name: ticket.mask(name) for name in scores.tensors}
    passes = sum(passed) / entries
    return Outcome(found, {"entries": entries, "passes": passes, "bytes": floors.cut_bytes(entries)})


def applying(job: Job, *, load: bool) -> Outcome:
    """Put an adapter on a loaded backbone and take it off again; only the first is timed.

    load: whether reading the adapter's files, which stand in the page cache, is timed too.
    """
    backbone = job.place.backbone(dropout=True)
    assert backbone.fingerprint  # taken once a process, before any adapter
    adapter = Adapter.load(job.place.adapter_folder)
    for _ in range(job.steps):
        job.clock.begin()
        if load:
            adapter = Adapter.load(job.place.adapter_folder)
        adapter.apply(backbone)
        job.clock.lap()
        revert(backbone)
    return Outcome({}, {"entries": adapter.size, "bytes": floors.apply_bytes(adapter.size)})


def adapter_size(job: Job) -> Outcome:
    """Count the bytes of the adapter's files and of the model in fp16."""
    files = [path for path in job.place.adapter_folder.iterdir() if path.is_file()]
    parameters = sum(tensor.numel() for tensor in job.place.stock(dropout=True).parameters())
    job.clock.lap()
    return Outcome({}, {"adapter_bytes": sum(path.stat().st_size for path in files), "model_bytes": 2 * parameters})


def help_text(job: Job) -> Outcome:
    """Ask for the command line's help in a new process each time."""
    for _ in range(job.steps):
        job.clock.begin()
        subprocess.run([sys.executable, "-m", "ltprompt", "--help"], check=True, capture_output=True)
        job.clock.lap()
    return Outcome()


def linear_evaluation(job: Job) -> Outcome:
    """Evaluate more and more examples, each number once after a warm-up."""
    backbone = job.place.backbone(dropout=True)
    reader, prompt = reader_of(job, backbone), fold(work.prompt_of(backbone.width))
    series = job.place.shape.series
    reader.predict(work.evaluated(job.place, series[0] // 4), prompt)
    for count in series:
        examples = work.evaluated(job.place, count)
        job.clock.begin()
        reader.predict(examples, prompt)
        job.clock.lap()
    return Outcome({}, {"sizes": list(series), "unit": "examples"})


def linear_stage_one(job: Job) -> Outcome:
    """Train on more and more lines from the pretrained weights on, each number once after a warm-up step."""
    sizes = []
    for lines in job.place.shape.lines:
        backbone = job.place.backbone(dropout=True)
        trainee = Trainee(backbone, "decoupled", work.STAGE_ONE_RATE)
        batches = work.stage_one(job.place, lines // job.place.shape.batch + 1, job.seed)
        with originals(backbone, trainee.dense) as theta:
            for parameter in trainee.dense.values():
                parameter.requires_grad_(True)
            for number, (inputs, targets) in enumerate(batches):
                mlm_step(trainee, inputs, targets, theta, l1=work.L1, clip=work.CLIP, compute=job.compute)
                if number == 0:
                    job.clock.begin()
        job.clock.lap()
        sizes.append(sum(len(line) for inputs, _ in batches[1:] for line in inputs))
    return Outcome({}, {"sizes": sizes, "unit": "tokens"})


def reader_of(job: Job, backbone: Backbone) -> Reader:
    """Return the reader of three label words of one piece each."""
    pieces = work.label_pieces(job.place.ids())
    names = tuple(map(str, pieces))
    average = torch.eye(len(pieces), dtype=torch.float64)
    verbaliser = Verbaliser(names, names, tuple((piece,) for piece in pieces), pieces, (), average)
    return Reader(backbone, WordReadout(verbaliser, work.PROMPT), job.compute)


def _ticket_movement(place: Place, ticket: Ticket | None, weights: Weights) -> dict[str, Tensor]:
    """Return the movement of every tensor that a ticket may train, whole."""
    if ticket is None:
        return {}
    changes = {change.name: change for change in weights.changes()}
    with safe_open(place.model_folder(dropout=False) / "model.safetensors", framework="pt") as file:
        return {p.name: _difference(changes.get(p.name), file.get_tensor(p.name)) for p in ticket.parameters}


def _difference(change: Change | None, theta: Tensor) -> Tensor:
    moved = torch.zeros_like(theta)
    if change is not None:
        index = change.index.long()
        moved.view(-1)[index] = change.values - theta.view(-1)[index]
    return moved
