"""The demonstration: the whole method on the embedded backbone and data, offline, in a few minutes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from ltprompt.backbone import MINI, Backbone
from ltprompt.charts import draw_distribution
from ltprompt.config import ScoresSettings, TrainSettings
from ltprompt.corpus import read_lines
from ltprompt.device import Compute
from ltprompt.distribution import distribution
from ltprompt.files import write_json, write_text
from ltprompt.pipeline import Evaluation, PromptClassifier, find_scores
from ltprompt.progress import bar
from ltprompt.tasks import Rows, Task, load_task, read_rows
from ltprompt.texts import show_distribution, table
from ltprompt.ticket import Ticket
from ltprompt.watching import stage_one_bar

RATIO = 0.2
METHODS = ("prompt-only", "sp", "ltp")
# Shorter than the paper's 3 epochs of 300,000 lines, so that the whole takes minutes.
SCORES = ScoresSettings(steps=40, batch_size=16, max_length=96, evaluate_every=40, seed=1)
# The rates that suit the small backbone, and a tenth of the paper's epochs; the shots are the paper's 32 a class.
TRAIN = TrainSettings(epochs=8, lr=2e-4, prompt_lr=1e-3, schedule="linear", max_length=128, seed=1)
RESAMPLES = 2000


def demo(out: Path, compute: Compute, say: Callable[[str], None] = print) -> None:
    """Run the demonstration and leave its files in `out`: text, tables, scores, ticket, adapters, measures."""
    say(_introduction(out, compute))
    task, tests = load_task("xnli"), _unpack(out)
    backbone = Backbone.from_pretrained(MINI, device=compute.device)
    ticket = _find_ticket(backbone, out, compute, say)
    found = {method: _train(backbone, task, method, ticket, tests, out, compute, say) for method in METHODS}
    write_json(out / "results.json", {method: evaluation.to_json() for method, evaluation in found.items()})
    say("\n3. Accuracy by language (trained on English alone; chance is 33.3%)\n")
    say(_results(found))
    say("\n" + conclusion(found))
    say(_what_next(out))


def _find_ticket(backbone: Backbone, out: Path, compute: Compute, say: Callable[[str], None]) -> Ticket:
    text = out / "text.txt"
    say("\n1. Once for a backbone: which parameters move when it is fine-tuned on English text?")
    flags = _flags(SCORES.model_dump(exclude_defaults=True))
    say(f"$ ltprompt scores mini --text {text} --out {out / 'scores'} {flags}")
    with stage_one_bar() as watcher:
        scores = find_scores(
            backbone, read_lines([text]), out / "scores", settings=SCORES, compute=compute, watcher=watcher
        )
    path = out / "ticket-20.safetensors"
    say(f"$ ltprompt ticket cut {out / 'scores'} --ratio {RATIO} --out {path}")
    ticket = scores.select(RATIO)
    ticket.save(path)
    found = distribution(ticket)
    draw_distribution({"ticket": found}, out / "ticket-20.png")
    say(f"$ ltprompt ticket inspect {path}\n")
    names = ("strategy", "ratio", "scope", "layers")
    say(show_distribution({name: getattr(ticket, name) for name in names}, found, kinds=False))
    return ticket


def _train(
    backbone: Backbone, task: Task, method: str, ticket: Ticket, tests: Mapping[str, Rows], out: Path,
    compute: Compute, say: Callable[[str], None],
) -> Evaluation:  # fmt: skip
    if method == METHODS[0]:
        say("\n2. Then for a task: train the prompt, and what the method trains of the backbone, on 96 English pairs")
    tables = {part: out / "data" / f"{part}.en.tsv" for part in ("train", "dev")}
    adapter = out / f"adapter-{method}"
    flags = f" --ticket {out / 'ticket-20.safetensors'}" if method == "ltp" else ""
    say(
        f"$ ltprompt train mini --task xnli --method {method}{flags} --train {tables['train']} "
        f"--dev {tables['dev']} --out {adapter} {_flags(TRAIN.model_dump(exclude_defaults=True))}"
    )
    classifier = PromptClassifier(
        backbone, task, method, ticket if method == "ltp" else None, compute=compute, settings=TRAIN
    )
    train, dev = (read_rows(path, task) for path in tables.values())
    with bar(f"training {method}", classifier.recipe.epochs, "epoch") as advance:
        fit = classifier.fit(train, dev, on_epoch=lambda epoch: advance(1, f"loss {epoch.loss:.3f}"))
    classifier.save_pretrained(adapter)
    say(f"{fit.changed_entries:,} backbone entries changed; kept epoch {fit.kept_epoch} of {len(fit.epochs)}")
    with bar(f"evaluating {method}", sum(map(len, tests.values())), "example") as advance:
        return classifier.evaluate(tests, on_examples=advance)


def embedded_text() -> list[str]:
    """Return the prose of the standard library's manual, a paragraph a line: text that every machine has."""
    blocks = [block for name in sorted(topics) for block in topics[name].split("\n\n") if not block.startswith(" ")]
    lines = [" ".join(block.split()) for block in blocks if "::=" not in block]
    return list(dict.fromkeys(line for line in lines if len(line.split()) >= 8 and line[0].isupper()))


def embedded_tables() -> list[Traversable]:
    """Return the embedded tables: train.en.tsv, dev.en.tsv and a parallel test.LANG.tsv for each language."""
    folder = files("ltprompt") / "data" / "nli"
    return sorted((file for file in folder.iterdir() if file.name.endswith(".tsv")), key=lambda file: file.name)


def _unpack(out: Path) -> dict[str, Rows]:
    """Write text and tables where the commands shown can find them; return the test tables by language."""
    write_text(out / "text.txt", "\n".join(embedded_text()) + "\n")
    for file in embedded_tables():
        write_text(out / "data" / file.name, file.read_text(encoding="utf-8"))
    task = load_task("xnli")
    return {path.suffixes[0][1:]: read_rows(path, task) for path in sorted((out / "data").glob("test.*.tsv"))}


def _results(found: Mapping[str, Evaluation]) -> str:
    languages = next(iter(found.values())).by_language
    rows = [[name, *(f"{part.by_language[name].accuracy:.1%}" for part in found.values())] for name in languages]
    means = [f"{part.mean['accuracy']:.1%}" for part in found.values()]
    return table(["language", *found], [*rows, ["mean", *means]])


def conclusion(found: Mapping[str, Evaluation]) -> str:
    """Say in a sentence how ltp compares with the others, with 95 % bootstrap intervals over the parallel examples."""
    parts = []
    for method in found:
        if method == "ltp":
            continue
        low, high = difference_interval(_hits(found["ltp"]), _hits(found[method]))
        mean = 100 * (_hits(found["ltp"]).mean() - _hits(found[method]).mean())
        verdict = "beyond noise" if low > 0 or high < 0 else "within noise"
        parts.append(f"{mean:+.1f} points over {method} (95% interval {low:+.1f} to {high:+.1f}: {verdict})")
    return f"What this run shows: ltp scores {' and '.join(parts)}."


def difference_interval(first: np.ndarray, second: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval, in points, of the difference of two accuracies.

    first, second: [examples, languages] hits. The rows are parallel translations, so whole rows are drawn.
    """
    rows = np.random.default_rng(seed).integers(len(first), size=(RESAMPLES, len(first)))
    differences = 100 * (first - second).mean(axis=1)[rows].mean(axis=1)
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def _hits(found: Evaluation) -> np.ndarray:
    return np.stack([found.probabilities[name].argmax(1) == found.gold[name] for name in found.gold], axis=1).astype(
        float
    )


def _flags(settings: Mapping[str, object]) -> str:
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())


def _introduction(out: Path, compute: Compute) -> str:
    return (
        "ltprompt demo: the lottery ticket method on a small multilingual backbone (12 layers, 35 M parameters), "
        f"offline.\nOn {compute.device}, {compute.dtype_name}; everything is kept in {out}. Shortened for the demo: "
        f"stage 1 takes {SCORES.steps} steps of {SCORES.batch_size} lines (paper: 3 epochs of 300,000 lines), "
        f"training {TRAIN.epochs} epochs (paper: 70) at rates that suit the small backbone."
    )


def _what_next(out: Path) -> str:
    return (
        f"\nKept in {out}: text, tables, scores, the ticket with its chart ticket-20.png, an adapter a method and "
        "results.json.\nTry one:\n"
        f"$ ltprompt predict {out / 'adapter-ltp'} {out / 'data' / 'test.sw.tsv'}"
    )
