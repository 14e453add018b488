"""A small study of methods on few shots: one JSON file a run, finished runs are skipped, `table` prints what there is.

    python tools/study.py run OUT --tickets ltp-20=FILE ltp-75=FILE --data ../shared/data --rate mini [--shots 16 32]
    python tools/study.py table OUT

Rates: `paper` is each method's own recipe; `mini` suits the small backbone: 2e-4 for the backbone's part, 1e-3 for
the prompt, linear decay, 10 epochs. Tests on the first `--examples` XNLI dev examples of each language.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from itertools import product
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from ltprompt import Backbone, PromptClassifier, Task, Ticket, load_task
from ltprompt.device import resolve, tune_process
from ltprompt.files.artifacts import read_json, write_json
from ltprompt.tasks import Rows, read_rows

LANGUAGES = ("en", "es", "sw", "tr", "zh")
RATES: dict[str, dict[str, Any]] = {
    "paper": {},
    "mini": {"lr": 2e-4, "prompt_lr": 1e-3, "schedule": "linear", "epochs": 10},
}


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--tickets", nargs="*", default=[], help="NAME=FILE")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rate", choices=RATES, default="mini")
    parser.add_argument("--methods", nargs="*", help="default: prompt-only, sp and every ticket's name")
    parser.add_argument("--shots", nargs="*", type=int, default=[16, 32])
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    print_table(given.out) if given.action == "table" else run(given)


def run(given: argparse.Namespace) -> None:
    """Run every combination whose file does not exist yet, with one loaded backbone."""
    compute, task = resolve(), load_task("xnli")
    tune_process(given.threads, on_cpu=compute.device.type == "cpu")
    tickets = {name: Ticket.load(Path(file)) for name, file in (pair.split("=", 1) for pair in given.tickets)}
    backbone = Backbone.from_pretrained("mini", device=compute.device)
    tests = {name: _first(read_rows(given.data / f"xnli/dev/{name}.tsv", task), given.examples) for name in LANGUAGES}
    methods = given.methods or ["prompt-only", "sp", *tickets]
    for seed, shots, method in product(given.seeds, given.shots, methods):
        path = given.out / f"{given.rate}.{method}.{shots}.{seed}.json"
        if path.exists():
            continue
        start = time.monotonic()
        result = one_run(backbone, task, method, tickets.get(method), shots, seed, given, tests, compute)
        seconds = round(time.monotonic() - start, 1)
        record = {"rate": given.rate, "method": method, "shots": shots, "seed": seed, "seconds": seconds}
        write_json(path, {**record, "threads": given.threads, "dtype": compute.dtype_name, **result})
        print(path.name, f"{seconds} s", result["test"]["mean"], flush=True)


def one_run(
    backbone: Backbone, task: Task, method: str, ticket: Ticket | None, shots: int, seed: int,
    given: argparse.Namespace, tests: dict[str, Rows], compute: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train on the published few-shot split and evaluate zero-shot."""
    folder = given.data / "xnli" / "fewshot" / "en"
    name = "ltp" if ticket is not None else method
    classifier = PromptClassifier(backbone, task, name, ticket, compute=compute, seed=seed, **RATES[given.rate])
    rows, dev = (read_rows(folder / f"{part}.{shots}.jsonl", task) for part in ("train", "dev"))
    fit = classifier.fit(rows, dev)
    found = classifier.evaluate(tests).to_json()
    kept = fit.epochs[fit.kept_epoch - 1]
    return {"kept_epoch": fit.kept_epoch, "dev_accuracy": kept.dev_accuracy, "train_loss": kept.loss, "test": found}


def print_table(out: Path) -> None:
    """Print mean and deviation over the seeds of accuracy by rate, shots and method, as Markdown."""
    cells: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(out.glob("*.json")):
        found = read_json(path, "a run of the study")
        cells[found["rate"], found["shots"], found["method"]].append(found)
    print("| rate | shots | method | seeds | " + " | ".join(LANGUAGES) + " | mean | median seconds a run |")
    print("|---" * (len(LANGUAGES) + 6) + "|")
    for (rate, shots, method), runs in sorted(cells.items()):
        columns = [[100 * run["test"]["languages"][name]["accuracy"] for run in runs] for name in LANGUAGES]
        columns.append([100 * run["test"]["mean"]["accuracy"] for run in runs])
        shown = " | ".join(f"{mean(column):.1f} ± {_deviation(column):.1f}" for column in columns)
        seconds = median(run["seconds"] for run in runs)
        print(f"| {rate} | {shots} | {method} | {len(runs)} | {shown} | {seconds:.0f} |")


def _first(rows: Rows, count: int) -> Rows:
    return rows.select(range(min(count, len(rows))))


def _deviation(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
