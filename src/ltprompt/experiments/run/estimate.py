"""How long a grid may take: tokens times the measured time of a token, before anything runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ltprompt.backbone.model import Backbone
from ltprompt.backbone.tokens import encode
from ltprompt.device import Compute
from ltprompt.experiments.labels import method_label
from ltprompt.experiments.records import RunSpec
from ltprompt.experiments.run.driver import Plan
from ltprompt.packing.sequences import Sequences

SAMPLE = 24  # examples that are measured
LONGEST = 64  # tokens of a measured text
BACKWARD = 2  # a backward pass costs about two forward passes
MASKED = 0.15  # share of the tokens for which stage 1 runs the head over the vocabulary


def seconds_per_text(backbone: Backbone, compute: Compute, texts: Sequence[str]) -> float:
    """Return the measured seconds of one text's way through the encoder, over some texts drawn evenly from these."""
    sample = texts[:: max(1, len(texts) // SAMPLE)][:SAMPLE]
    ids = [np.array(one[:LONGEST] or [0]) for one in encode(backbone.tokenizer, sample)]
    words, sequences = torch.from_numpy(np.concatenate(ids)).to(backbone.device), Sequences.of(ids)
    read = torch.from_numpy(sequences.starts).to(backbone.device)
    backbone.model.eval()
    seconds = []
    with torch.inference_mode(), compute.autocast():
        for _ in range(3):
            start = time.perf_counter()
            # Copied to the CPU, so that the time of a GPU's work is counted.
            backbone.encode(backbone.word_embeddings(words), sequences, read).sum().item()
            seconds.append(time.perf_counter() - start)
    return min(seconds) / len(sample)


def run_seconds(spec: RunSpec, per_example: float) -> float:
    """Return the seconds that a run may take: its epochs, each with its dev examples, and its tests."""
    dev = spec.dev.examples if spec.dev is not None else 0
    training = spec.settings["epochs"] * ((1 + BACKWARD) * spec.train.examples + dev)
    return float(per_example * (training + sum(table.examples for table in spec.tests.values())))


def stage_one_seconds(steps: float, batch_size: int, per_line: float, backbone: Backbone) -> float:
    """Return the seconds that a stage 1 may take. per_line: of a line's way through the encoder, without the head."""
    layers = sum(parameter.numel() for parameter in backbone.layers.parameters())
    head = MASKED * backbone.decoder.weight.numel() / layers
    return steps * batch_size * (1 + BACKWARD) * (1 + head) * per_line


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Listing:
    """A grid's runs as a table for people, and what they come to."""

    rows: list[list[str]]
    summary: list[str]


def list_runs(plan: Plan) -> Listing:
    """List a grid's runs with their state and the time that each may take. Measures the backbones, writes nothing."""
    jobs, speeds = plan.planner.jobs(plan.wishes), _speeds(plan)
    places = {plan.planner.backbones.place(name): speed for name, speed in speeds.items()}
    rows, left = [], 0.0
    for job in jobs:
        spec = job.spec
        done = plan.folder.has_run(spec.id)
        seconds = run_seconds(spec, places[spec.backbone])
        left += 0.0 if done else seconds
        state = ["done", ""] if done else ["planned", duration(seconds)]
        named = [spec.id[:8], method_label(spec), spec.setting, spec.language]
        rows.append([*named, str(spec.shots), str(spec.seed), *state])
    stages, before = _stages(plan)
    planned = sum(row[-2] == "planned" for row in rows)
    summary = [
        f"{len(rows)} runs, {len(rows) - planned} of them done; the rest takes about {duration(left)} on 1 worker"
    ]
    if stages:
        often = "once" if stages == 1 else f"{stages} times"
        summary.append(f"before them stage 1, {often}, takes about {duration(before)}")
    return Listing(rows, summary)


def _speeds(plan: Plan) -> dict[str, float]:
    """Return seconds of an example's way through the encoder by the name of the backbone."""
    found = {}
    for wish in plan.wishes:
        if wish.backbone not in found:
            sources = plan.planner.sources(wish.data, wish.task)
            tables = [sources.test(language, wish.shots).rows for language in sources.languages]
            texts = [" ".join(fields) for rows in tables for fields in rows.texts]
            backbone = plan.planner.backbones.get(wish.backbone, wish.revision)
            found[wish.backbone] = seconds_per_text(backbone, plan.compute, texts)
    return found


def _stages(plan: Plan) -> tuple[int, float]:
    """Return how many stages 1 are to be run before, and the seconds that they may take."""
    tickets = plan.planner.tickets
    wished = [*(wish.ticket for wish in plan.wishes if wish.ticket is not None), *plan.tickets]
    missing = {tickets.own_scores(wish): wish for wish in wished if tickets.lacks_scores(wish)}
    seconds = 0.0
    for wish in missing.values():
        assert wish.scores is not None
        lines = tickets.lines(wish.scores)
        backbone = plan.planner.backbones.get(wish.backbone, wish.revision)
        trained = len(lines) * (1 - wish.scores.held_out)
        steps = wish.scores.steps or wish.scores.epochs * trained / wish.scores.batch_size
        per_line = seconds_per_text(backbone, plan.compute, lines)
        seconds += stage_one_seconds(steps, wish.scores.batch_size, per_line, backbone)
    return len(missing), seconds
