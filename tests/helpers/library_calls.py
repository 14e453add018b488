"""A program that calls the library as its users do, and prints what each call changed of its own process."""

from __future__ import annotations

import csv
import locale
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from helpers.toy_classifiers import OTHER, TRAIN, toy_ticket, write_table
from helpers.toy_grids import make_base, write_lines, written
from ltprompt import Adapter, Backbone, PromptClassifier, Scores, ScoresSettings, Ticket, find_scores, load_task
from ltprompt.device import resolve
from ltprompt.experiments.folder import read_results
from ltprompt.experiments.report.report import write_report
from ltprompt.experiments.run.driver import Where, plan_grid, run_grid
from ltprompt.experiments.run.local import OnEvent
from ltprompt.stage1.corpus import read_lines
from ltprompt.stage1.criteria import find_criterion
from ltprompt.tasks import read_rows

BLOCK = 2**24  # fp32 entries, 64 MiB: by itself glibc gives so large a block back as soon as it is free


def state() -> dict[str, object]:
    """What is the whole process's: a caller's own."""
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "locale": locale.setlocale(locale.LC_ALL),
        "limit of csv": csv.field_size_limit(),
        "recursion": sys.getrecursionlimit(),
        "timeout": socket.getdefaulttimeout(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "precision of products": torch.get_float32_matmul_precision(),
        "determinism": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "autocast": torch.is_autocast_enabled("cpu"),
        "backends": (torch.backends.mkldnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.enabled),
        "freed memory kept": freed_memory_is_kept(),
    }


def freed_memory_is_kept() -> bool:
    """Whether the allocator keeps a large block for the next one; elsewhere than on Linux it is not asked."""
    memory = Path("/proc/self/statm")
    if not memory.exists():
        return False
    before = int(memory.read_text().split()[1])
    torch.ones(BLOCK)
    return (int(memory.read_text().split()[1]) - before) * os.sysconf("SC_PAGE_SIZE") > 2 * BLOCK


def calls(folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the calls by name, each to be made before the next is asked for."""
    base = make_base(folder / "base")
    write_table(folder / "long.tsv", [{**row, "premise": row["premise"] * 9000} for row in TRAIN])
    text = (folder / "long.tsv").read_text().replace("\t", ",")
    (folder / "long.csv").write_text(text)
    write_lines(folder / "text.txt")
    yield "resolve", partial(resolve, "cpu")
    yield "load_task", partial(load_task, "xnli")
    yield "read_rows", partial(read_rows, folder / "long.csv", load_task("xnli"))
    yield "Backbone", partial(Backbone.from_pretrained, base / "toy")
    backbone = Backbone.from_pretrained(base / "toy")
    lines, settings = read_lines([folder / "text.txt"]), {"steps": 2, "batch_size": 4, "max_length": 32}
    yield "find_scores", partial(find_scores, backbone, lines, folder / "scores", settings=ScoresSettings(**settings))
    scores = Scores.load(folder / "scores")
    yield "fisher", partial(find_criterion, scores, "fisher", backbone=backbone, texts=lines, lines=8, max_length=32)
    yield "Scores", lambda: scores.select(0.3).save(folder / "ticket.safetensors")
    yield "Ticket", partial(Ticket.load, folder / "ticket.safetensors")
    for method in ("ltp", "ft", "lora"):
        yield from classifier_calls(method, backbone, folder)
    yield (
        "grid",
        partial(
            run_toy_grid, written(base, seeds=[1], shots=[1], scores=None, methods=["prompt-only"]), folder / "grid"
        ),
    )
    yield "report", lambda: write_report(read_results(folder / "grid"), folder / "report")


def classifier_calls(method: str, backbone: Backbone, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the calls of a classifier."""
    ticket = toy_ticket(backbone) if method == "ltp" else None
    classifier = PromptClassifier(backbone, "xnli", method, ticket, epochs=2, max_length=48)
    yield f"{method}: fit", partial(classifier.fit, TRAIN, OTHER)
    yield f"{method}: evaluate", partial(classifier.evaluate, {"en": TRAIN, "sw": OTHER})
    yield f"{method}: predict", partial(classifier.predict, OTHER)
    yield f"{method}: save", partial(classifier.save_pretrained, folder / method)
    yield f"{method}: load", lambda: PromptClassifier.from_pretrained(folder / method).predict(OTHER)
    adapter = Adapter.load(folder / method)
    yield f"{method}: apply", lambda: (adapter.apply(backbone), adapter.revert(backbone))
    if method != "ft":
        yield f"{method}: merge", partial(classifier.merge, folder / f"merged-{method}")


def run_toy_grid(config: str, out: Path) -> None:
    """Run a grid in this process."""
    where = Where(threads=1)
    plan = plan_grid(config, out, where, stage_one=nullcontext, say=lambda text: None)
    assert run_grid(plan, where, on_event=silent).summary.counts.failed == 0


@contextmanager
def silent(total: int, first: int) -> Iterator[OnEvent]:
    yield lambda kind, spec, counts: None


def main() -> None:
    """Make every call between two looks at the process."""
    torch.set_num_threads(2)
    before = state()
    for name, call in calls(Path(sys.argv[1])):
        call()
        after = state()
        changed = [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]
        print(f"{name}: {'; '.join(changed) or 'nothing'}")
        before = after


if __name__ == "__main__":
    main()
