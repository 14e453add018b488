"""The demonstration: the whole method on the embedded backbone and data, offline, in a few minutes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from ltprompt.backbone.loading import MINI
from ltprompt.backbone.model import Backbone
from ltprompt.classifier import PromptClassifier
from ltprompt.cli.show import show_distribution
from ltprompt.device import Compute, resolve
from ltprompt.errors import FileFormatError, InputError
from ltprompt.files.artifacts import SCORES_CHECKPOINT, read_json, sha256, write_json, write_text
from ltprompt.files.places import check_folder
from ltprompt.settings import ScoresSettings, TrainSettings
from ltprompt.stage1.corpus import read_lines
from ltprompt.stage1.find_scores import find_scores
from ltprompt.stage1.watching import stage_one_bar
from ltprompt.stage2.measures import Evaluation
from ltprompt.stage2.methods import find_method
from ltprompt.tasks import Rows, load_task, read_rows
from ltprompt.terminal import bar, table
from ltprompt.tickets.chart import draw_distribution
from ltprompt.tickets.distribution import distribution
from ltprompt.tickets.ticket import Ticket

RATIO = 0.2
METHODS = ("prompt-only", "sp", "ltp")
# Shorter than the paper's 3 epochs of 300,000 lines, so that the whole takes minutes.
SCORES = ScoresSettings(steps=40, batch_size=16, max_length=96, evaluate_every=40, seed=1)
# The rates that suit the small backbone, and a tenth of the paper's epochs; the shots are the paper's 32 a class.
TRAIN = TrainSettings(epochs=8, lr=2e-4, prompt_lr=1e-3, schedule="linear", max_length=128, seed=1)
RESAMPLES = 2000
RECORD = "demo.json"
# What the paper has where no setting of ours says it (sections 4.1 and 4.2).
PAPER_LINES = 300_000
PAPER_SHOTS = "1 to 32"
PAPER_SEEDS = 5


def demo(out: Path, compute: Compute, say: Callable[[str], None] = print) -> None:
    """Run the demonstration and leave its files in `out`: text, tables, scores, ticket, adapters, measures.

    What an earlier demonstration left there is replaced. Raises `InputError` where `out` holds anything else or cannot
    be written.
    """
    inputs = _inputs(out)
    written = _check_place(out, inputs)
    check_folder(out, "out")
    say(f"ltprompt demo: the lottery ticket method, offline; everything is kept in {out}")
    _write_inputs(out, inputs, written)
    backbone = Backbone.from_pretrained(MINI, device=compute.device)
    say(_introduction(backbone, compute))
    tables = _read_tables(out)
    say(_shortened(tables["train.en.tsv"]))
    ticket = _find_ticket(backbone, out, compute, say)
    found = _train_all(backbone, ticket, tables, out, compute, say)
    write_json(out / "results.json", {method: evaluation.to_json() for method, evaluation in found.items()})
    labels = len(next(iter(found.values())).labels)
    say(f"\n3. Accuracy by language (trained on English alone; chance is {1 / labels:.1%})\n")
    say(_results(found))
    say("\n" + conclusion(found, [fields[0] for fields in tables["test.en.tsv"].texts]))
    say(_what_next(out, compute))


def _inputs(out: Path) -> dict[Path, str]:
    """Return the text and the tables that the commands shown read, by where they are written."""
    tables = {out / "data" / file.name: file.read_text(encoding="utf-8") for file in embedded_tables()}
    return {out / "text.txt": "\n".join(embedded_text()) + "\n"} | tables


def _check_place(out: Path, inputs: Mapping[Path, str]) -> dict[str, list[str]]:
    """Return name -> SHA-256 of what earlier demonstrations wrote in `out`: that, and no other file, is overwritten.

    The manual's text differs between versions of Python, and the tables may between releases. Raises `InputError` where
    `out` is not a folder of the demonstration's own.
    """
    if not out.exists():
        return {}
    if not out.is_dir():
        raise InputError(f"{out} is a file, and the demo makes a folder; choose another --out")
    present = [path for path in inputs if path.exists()]
    if not present and any(out.iterdir()):
        raise InputError(f"{out} holds other files, and the demo needs a folder of its own; choose another --out")
    written = _read_record(out / RECORD)
    for path in present:
        known = {sha256(inputs[path]), *written.get(_name(path, out), [])}
        if not path.is_file() or sha256(path.read_text(encoding="utf-8", errors="replace")) not in known:
            raise _not_ours(path)
    return written


def _read_record(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        return {}
    try:
        return {name: [str(digest) for digest in digests] for name, digests in read_json(path, "a record").items()}
    except (InputError, FileFormatError, TypeError) as error:
        raise _not_ours(path) from error


def _not_ours(path: Path) -> InputError:
    return InputError(f"{path} is not as the demo writes it; choose another --out, or move it away")


def _write_inputs(out: Path, inputs: Mapping[Path, str], written: Mapping[str, list[str]]) -> None:
    """Write the inputs, and before them their digests beside the earlier ones: wherever it stops, all are known."""
    digests = {_name(path, out): sha256(text) for path, text in inputs.items()}
    write_json(out / RECORD, {name: sorted({digest, *written.get(name, [])}) for name, digest in digests.items()})
    for path, text in inputs.items():
        write_text(path, text)


def _name(path: Path, out: Path) -> str:
    return path.relative_to(out).as_posix()


def _read_tables(out: Path) -> dict[str, Rows]:
    task = load_task("xnli")
    return {file.name: read_rows(out / "data" / file.name, task) for file in embedded_tables()}


def _find_ticket(backbone: Backbone, out: Path, compute: Compute, say: Callable[[str], None]) -> Ticket:
    text, folder, path = out / "text.txt", out / "scores", out / "ticket-20.safetensors"
    say("\n1. Once for a backbone: which parameters move when it is fine-tuned on English text?")
    say(_command("scores", MINI, "--text", text, "--out", folder, *_flags(SCORES), *_where(compute)))
    # The demonstration starts anew, also where its command was tried and broken off.
    (folder / SCORES_CHECKPOINT).unlink(missing_ok=True)
    with stage_one_bar() as watcher:
        scores = find_scores(backbone, read_lines([text]), folder, settings=SCORES, compute=compute, watcher=watcher)
    say(_command("ticket", "cut", folder, "--ratio", RATIO, "--out", path))
    ticket = scores.select(RATIO)
    ticket.save(path)
    _inspect(ticket, path, say)
    return ticket


def _inspect(ticket: Ticket, path: Path, say: Callable[[str], None]) -> None:
    chart = path.with_suffix(".png")
    say(_command("ticket", "inspect", path, "--plot", chart) + "\n")
    found = distribution(ticket)
    draw_distribution({path.stem: found}, chart)
    say(show_distribution({name: getattr(ticket, name) for name in ("strategy", "ratio", "scope", "layers")}, found))


def _train_all(
    backbone: Backbone,
    ticket: Ticket,
    tables: Mapping[str, Rows],
    out: Path,
    compute: Compute,
    say: Callable[[str], None],
) -> dict[str, Evaluation]:
    """Train and evaluate every method."""
    train, dev = tables["train.en.tsv"], tables["dev.en.tsv"]
    tests = {name.split(".")[1]: rows for name, rows in tables.items() if name.startswith("test.")}
    say(
        "\n2. Then for a task: train the prompt, and what the method trains of the backbone, on "
        f"{len(train)} English pairs; {len(dev)} others choose the epoch"
    )
    found = {}
    for method in METHODS:
        classifier = PromptClassifier(
            backbone, load_task("xnli"), method, ticket if method == "ltp" else None, compute=compute, settings=TRAIN
        )
        _train(classifier, train, dev, out, say)
        say(_evaluate_command(out / f"adapter-{method}", tests, compute))
        with bar(f"evaluating {method}", sum(map(len, tests.values())), "example") as advance:
            found[method] = classifier.evaluate(tests, on_examples=advance)
    return found


def _train(classifier: PromptClassifier, train: Rows, dev: Rows, out: Path, say: Callable[[str], None]) -> None:
    """Train one method and save its adapter."""
    method = classifier.resolved.method.name
    adapter = out / f"adapter-{method}"
    ticket = ["--ticket", out / "ticket-20.safetensors"] if method == "ltp" else []
    say(
        _command(
            *("train", MINI, "--task", classifier.resolved.task.name, "--method", method, *ticket),
            *("--train", train.name, "--dev", dev.name, "--out", adapter),
            *_flags(TRAIN),
            *_where(classifier.resolved.compute),
        )
    )
    with bar(f"training {method}", classifier.recipe.epochs, "epoch") as advance:
        fit = classifier.fit(train, dev=dev, on_epoch=lambda epoch: advance(1, f"loss {epoch.loss:.3f}")).history_
    classifier.save_pretrained(adapter)
    say(f"{fit.changed_entries:,} backbone entries changed; kept epoch {fit.kept_epoch} of {len(fit.epochs)}")


def embedded_text() -> list[str]:
    """Return the prose of the standard library's manual, a paragraph a line: text that every machine has."""
    blocks = [block for name in sorted(topics) for block in topics[name].split("\n\n") if not block.startswith(" ")]
    lines = [" ".join(block.split()) for block in blocks if "::=" not in block]
    return list(dict.fromkeys(line for line in lines if len(line.split()) >= 8 and line[0].isupper()))


def embedded_tables() -> list[Traversable]:
    """Return the embedded tables: train.en.tsv, dev.en.tsv and a parallel test.LANG.tsv for each language."""
    folder = files("ltprompt") / "data" / "nli"
    return sorted((file for file in folder.iterdir() if file.name.endswith(".tsv")), key=lambda file: file.name)


def _results(found: Mapping[str, Evaluation]) -> str:
    languages = next(iter(found.values())).by_language
    rows = [[name, *(f"{part.by_language[name].accuracy:.1%}" for part in found.values())] for name in languages]
    means = [f"{part.mean['accuracy']:.1%}" for part in found.values()]
    return table(["language", *found], [*rows, ["mean", *means]])


def conclusion(found: Mapping[str, Evaluation], premises: Sequence[str]) -> str:
    """Say in a line each how ltp compares with the others, with 95 % bootstrap intervals over the test premises.

    premises: [examples], those of the parallel test tables in one language.
    """
    lines = ["What one seed shows (another may differ), with 95% bootstrap intervals over the test premises:"]
    for method in found:
        if method == "ltp":
            continue
        low, high = difference_interval(_hits(found["ltp"]), _hits(found[method]), premises)
        mean = 100 * (_hits(found["ltp"]).mean() - _hits(found[method]).mean())
        verdict = "beyond noise" if low > 0 or high < 0 else "within noise"
        lines.append(f"ltp minus {method}: {mean:+.1f} points ({low:+.1f} to {high:+.1f}: {verdict})")
    return "\n".join(lines)


def difference_interval(
    first: np.ndarray, second: np.ndarray, premises: Sequence[str], seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval, in points, of the difference of two accuracies.

    first, second: [examples, languages] hits. premises: [examples]. Rows are parallel translations and those of one
    premise are alike, so premises are drawn, each with all its rows.
    """
    groups = np.unique(np.asarray(premises), return_inverse=True)[1]
    sums, sizes = np.bincount(groups, weights=(first - second).mean(axis=1)), np.bincount(groups)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    differences = 100 * sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def _hits(found: Evaluation) -> np.ndarray:
    return np.stack([found.probabilities[name].argmax(1) == found.gold[name] for name in found.gold], axis=1).astype(
        float
    )


def _command(*words: object) -> str:
    """Return a command as it is typed: names with spaces in quotes."""
    return "$ " + shlex.join(["ltprompt", *map(str, words)])


def _evaluate_command(adapter: Path, tests: Mapping[str, Rows], compute: Compute) -> str:
    pairs = [f"{language}={rows.name}" for language, rows in tests.items()]
    return _command("evaluate", adapter, "--data", *pairs, *_where(compute))


def _flags(settings: ScoresSettings | TrainSettings) -> list[object]:
    """Return the flags of the settings that are not the defaults."""
    given = settings.model_dump(exclude_defaults=True)
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]


def _where(compute: Compute) -> list[str]:
    """Return the flags of device and dtype where they are not what a command takes of itself."""
    return [] if compute == resolve() else ["--device", str(compute.device), "--dtype", compute.dtype_name]


def _introduction(backbone: Backbone, compute: Compute) -> str:
    size = sum(parameter.numel() for parameter in backbone.parameters.values())
    return (
        f"The embedded backbone has {len(backbone.layers)} layers and {size:,} parameters; it runs on "
        f"{compute.device} in {compute.dtype_name}."
    )


def _shortened(train: Rows) -> str:
    """Say what the demonstration does otherwise than the paper or a method's recipe, which stand in parentheses."""
    paper, usual = ScoresSettings(), TrainSettings()
    shots = len(train) // len(set(train.labels or ()))
    lines = {
        "stage 1": f"{SCORES.steps} steps ({paper.epochs} epochs of {PAPER_LINES:,} lines)",
        "lines a step": f"{SCORES.batch_size} ({paper.batch_size})",
        "tokens a line": f"{SCORES.max_length} ({paper.max_length})",
        "training": f"{shots} examples a class ({PAPER_SHOTS})",
        "epochs": _beside_recipes("epochs", TRAIN.epochs),
        "examples a step": _beside_recipes("batch_size", TRAIN.batch_size),
        "tokens an example": f"{TRAIN.max_length} ({usual.max_length})",
        "rate": _beside_recipes("lr", TRAIN.lr),
        "rate of the prompt": _beside_recipes("prompt_lr", TRAIN.prompt_lr or TRAIN.lr),
        "decay": _beside_recipes("schedule", TRAIN.schedule),
        "seeds": f"1 ({PAPER_SEEDS})",
    }
    width = max(map(len, lines))
    return "\n".join(
        [
            "Shortened for the demo, at rates that suit the small backbone (in parentheses the paper or the recipe):",
            *(f"  {name.ljust(width)}  {value}" for name, value in lines.items()),
        ]
    )


def _beside_recipes(name: str, given: object) -> str:
    """Return a setting of training with what the methods' recipes have; that alone where none is given."""
    own = {method: getattr(find_method(method).recipe, name) for method in METHODS}
    alike = len(set(own.values())) == 1
    shown = str(own[METHODS[0]]) if alike else ", ".join(f"{method} {value}" for method, value in own.items())
    return shown if given is None else f"{given} ({shown})"


def _what_next(out: Path, compute: Compute) -> str:
    command = _command("predict", out / "adapter-ltp", out / "data" / "test.sw.tsv", *_where(compute))
    return (
        f"\nKept in {out}: text, tables, scores, the ticket with its chart ticket-20.png, an adapter a method and "
        f"results.json.\nTry one:\n{command}"
    )
