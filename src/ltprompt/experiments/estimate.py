"""How long a grid may take: tokens times the measured time of a token, before anything runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import torch

from ltprompt.backbone import Backbone
from ltprompt.batching import pad
from ltprompt.device import Compute
from ltprompt.experiments.driver import Plan
from ltprompt.experiments.labels import method_label
from ltprompt.experiments.records import RunSpec
from ltprompt.tasks import Rows
from ltprompt.tokens import encode

SAMPLE = 24  # examples that are measured
BACKWARD = 2  # a backward pass costs about two forward passes


def seconds_per_example(backbone: Backbone, compute: Compute, tables: Sequence[Rows]) -> float:
    """Return the measured seconds of one example's forward pass, over examples drawn evenly from some tables."""
    each = -(-SAMPLE // len(tables))
    texts = [" ".join(fields) for fields in islice(chain.from_iterable(rows.texts[:each] for rows in tables), SAMPLE)]
    ids = [np.array(one[:64] or [0]) for one in encode(backbone.tokenizer, texts)]
    batch, attention = pad(ids, backbone.tokenizer.pad_token_id, backbone.device)
    backbone.model.eval()
    seconds = []
    with torch.inference_mode(), compute.autocast():
        for _ in range(3):
            start = time.perf_counter()
            # Copied to the CPU, so that the time of a GPU's work is counted.
            backbone.encode(backbone.word_embeddings(batch), attention).sum().item()
            seconds.append(time.perf_counter() - start)
    return min(seconds) / len(texts)


def run_seconds(spec: RunSpec, per_example: float) -> float:
    """Return the seconds that a run may take: its epochs, each with its dev examples, and its tests."""
    dev = spec.dev.examples if spec.dev is not None else 0
    training = spec.settings["epochs"] * ((1 + BACKWARD) * spec.train.examples + dev)
    return float(per_example * (training + sum(table.examples for table in spec.tests.values())))


def stage_one_seconds(steps: float, batch_size: int, per_example: float) -> float:
    """Return the seconds that a stage 1 may take, a line of text taken for as long as an example."""
    return steps * batch_size * (1 + BACKWARD) * per_example


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
    jobs = plan.planner.jobs(plan.wishes)
    speeds = _speeds(plan)
    rows, left = [], 0.0
    for job in jobs:
        spec = job.spec
        done = plan.folder.run(spec.id).is_file()
        seconds = run_seconds(spec, speeds[spec.backbone])
        left += 0.0 if done else seconds
        state = ["done", ""] if done else ["planned", duration(seconds)]
        named = [spec.id[:8], method_label(spec), spec.setting, spec.language]
        rows.append([*named, str(spec.shots), str(spec.seed), *state])
    stages, before = _stages(plan, speeds)
    planned = sum(row[-2] == "planned" for row in rows)
    summary = [
        f"{len(rows)} runs, {len(rows) - planned} of them done; the rest takes about {duration(left)} on 1 worker"
    ]
    if stages:
        often = "once" if stages == 1 else f"{stages} times"
        summary.append(f"before them stage 1, {often}, takes about {duration(before)}")
    return Listing(rows, summary)


def _speeds(plan: Plan) -> dict[str, float]:
    """Return seconds an example's forward pass by the name of the backbone."""
    found = {}
    for wish in plan.wishes:
        if wish.backbone not in found:
            sources = plan.planner.sources(wish.data, wish.task)
            tables = [sources.test(language, wish.shots).rows for language in sources.languages]
            backbone = plan.planner.backbones.get(wish.backbone, wish.revision)
            found[wish.backbone] = seconds_per_example(backbone, plan.compute, tables)
    return found


def _stages(plan: Plan, speeds: dict[str, float]) -> tuple[int, float]:
    """Return how many stages 1 are to be run before, and the seconds that those of measured backbones may take."""
    wished = [*(wish.ticket for wish in plan.wishes if wish.ticket is not None), *plan.tickets]
    missing = {
        plan.planner.tickets.own_scores(wish): wish for wish in wished if plan.planner.tickets.lacks_scores(wish)
    }
    seconds = 0.0
    for wish in missing.values():
        assert wish.scores is not None
        lines = plan.planner.tickets.lines(wish.scores) * (1 - wish.scores.held_out)
        steps = wish.scores.steps or wish.scores.epochs * lines / wish.scores.batch_size
        seconds += stage_one_seconds(steps, wish.scores.batch_size, speeds.get(wish.backbone, 0.0))
    return len(missing), seconds
