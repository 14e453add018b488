"""Commands of the two stages: find scores, train, evaluate, predict, merge. Imports happen when a command runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ltprompt.cli.options import (
    AdapterDir,
    BackboneName,
    Device,
    Dtype,
    Json,
    OtherBackbone,
    OtherRevision,
    Revision,
    SettingsCommand,
    TaskName,
    Threads,
    TrainedDtype,
    one_place,
)
from ltprompt.cli.process import computing
from ltprompt.errors import InputError

if TYPE_CHECKING:
    from ltprompt.backbone.model import Backbone
    from ltprompt.device import Compute

_LANGUAGE = re.compile(r"[^/\\]*=")


class ScoresCommand(SettingsCommand):
    """Stage 1's command."""

    settings = "ScoresSettings"


class TrainCommand(SettingsCommand):
    """Stage 2's command."""

    settings = "TrainSettings"


def scores(
    ctx: typer.Context,
    backbone: BackboneName,
    texts: Annotated[
        list[Path], typer.Option("--text", help="text file, one sentence or paragraph a line; may be repeated")
    ],
    out: Annotated[Path, typer.Option(help="folder for scores.safetensors and scores.json")],
    resume: Annotated[bool, typer.Option(help="go on from the checkpoint in --out")] = False,
    revision: Revision = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = None,
) -> None:
    """Find the scores: fine-tune on text and measure how far every parameter moves (once for a backbone)."""
    from ltprompt.files.artifacts import SCORES_TENSORS, check_place
    from ltprompt.settings import ScoresSettings
    from ltprompt.stage1.corpus import read_lines
    from ltprompt.stage1.find_scores import find_scores
    from ltprompt.stage1.watching import stage_one_bar

    if ctx.obj["steps"] is not None and ctx.obj["epochs"] is not None:
        raise typer.BadParameter("give --steps or --epochs, not both")
    settings = ScoresSettings.of(**ctx.obj)
    check_place(out, SCORES_TENSORS, "finished scores")
    lines = read_lines(texts)
    loaded, compute = _load(backbone, revision, device, dtype, threads)
    with stage_one_bar() as watcher:
        found = find_scores(loaded, lines, out, settings=settings, compute=compute, resume=resume, watcher=watcher)
    _say(f"scores of {sum(p.numel for p in found.parameters):,} parameters in {out}")


def train(
    ctx: typer.Context,
    backbone: BackboneName,
    task: TaskName,
    train: Annotated[Path, typer.Option(help="labelled table: .tsv, .csv or .jsonl")],
    out: Annotated[Path, typer.Option(help="folder for the adapter")],
    method: Annotated[
        str | None, typer.Option(help="ltp, prompt-only, ft, dp, sp, mp, bitfit, lora, shira or super-tuning [ltp]")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="instead of --method: soft, discrete, mixed or plain (no template) [soft]")
    ] = None,
    trains: Annotated[
        str | None,
        typer.Option(
            help="instead of --method: ticket, nothing, everything, encoder, biases, lora, shira or super-tuning "
            "[ticket]"
        ),
    ] = None,
    ticket: Annotated[Path | None, typer.Option(help="ticket file, or mini-20 or mini-75; needed by ltp")] = None,
    dev: Annotated[Path | None, typer.Option(help="labelled table that chooses the epoch")] = None,
    revision: Revision = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = None,
) -> None:
    """Train a prompt, and the ticket's parameters, on a few labelled examples."""
    from ltprompt.classifier import PromptClassifier, check_ticket_given
    from ltprompt.files.artifacts import ADAPTER_RECORD, check_place
    from ltprompt.settings import TrainSettings
    from ltprompt.stage2.fit import training_bar
    from ltprompt.stage2.methods import choose_method
    from ltprompt.tasks import load_task, read_rows
    from ltprompt.tickets.ticket import Ticket

    settings = TrainSettings.of(**ctx.obj)
    check_place(out, ADAPTER_RECORD, "an adapter")
    found_task = load_task(task)
    chosen_method = choose_method(method, template, trains)
    check_ticket_given(chosen_method, ticket)
    rows = read_rows(train, found_task)
    dev_rows = None if dev is None else read_rows(dev, found_task)
    chosen = None if ticket is None else Ticket.load(ticket)
    loaded, compute = _load(backbone, revision, device, dtype, threads)
    classifier = PromptClassifier(loaded, found_task, chosen_method.name, chosen, compute=compute, settings=settings)
    for note in classifier.notes:
        _warn(note)

    with training_bar(classifier.recipe.epochs) as on_epoch:
        fit = classifier.fit(rows, dev=dev_rows, on_epoch=on_epoch).history_
    for warning in fit.warnings:
        _warn(warning)
    classifier.save_pretrained(out)
    kept = fit.epochs[fit.kept_epoch - 1]
    _say(f"adapter of {fit.changed_entries:,} changed entries from epoch {fit.kept_epoch} ({kept}) in {out}")


def evaluate(
    adapter_dir: AdapterDir,
    data: Annotated[
        list[str],
        typer.Option(
            metavar="[LANGUAGE=]FILE",
            help="labelled table; may be repeated; one FILE alone counts as the language of the adapter's label words, "
            "several are called by their names without the ending",
        ),
    ],
    backbone: OtherBackbone = None,
    revision: OtherRevision = None,
    json_: Json = None,
    predictions: Annotated[Path | None, typer.Option(help="folder for LANGUAGE.tsv with every prediction")] = None,
    device: Device = "auto",
    dtype: TrainedDtype = "auto",
    threads: Threads = None,
) -> None:
    """Evaluate an adapter on labelled tables: accuracy, macro-F1 and confusion by language."""
    from ltprompt.cli.outputs import STDOUT, check_outputs, give_result, write_predictions
    from ltprompt.cli.show import show_evaluation, show_precision
    from ltprompt.files.artifacts import json_text
    from ltprompt.files.places import check_folder
    from ltprompt.tasks import read_rows
    from ltprompt.terminal import bar

    pairs = parse_tables(data)
    check_outputs(json_=json_)
    if predictions is not None:
        check_folder(predictions, "predictions")
    task, language = _adapter_task(adapter_dir)
    files = name_tables(pairs, language)
    tables = {language: read_rows(file, task) for language, file in files.items()}
    classifier = _classifier(adapter_dir, backbone, revision, (device, dtype, threads))
    with bar("evaluating", sum(map(len, tables.values())), "example") as advance:
        found = classifier.evaluate(tables, on_examples=advance)
    precision = show_precision(classifier, dtype)
    if json_ == STDOUT:
        _warn(precision)
    give_result(f"{show_evaluation(found)}\n\n{precision}", json_text(found.to_json()).rstrip(), json_)
    if predictions is not None:
        for language in tables:
            write_predictions(
                predictions / f"{language}.tsv", found.labels, found.probabilities[language], found.gold[language]
            )


def predict(
    adapter_dir: AdapterDir,
    input_: Annotated[Path, typer.Argument(metavar="INPUT", help="table; it needs no labels")],
    out: Annotated[Path | None, typer.Option(help="TSV file to write; - is stdout [-, unless --json is]")] = None,
    backbone: OtherBackbone = None,
    revision: OtherRevision = None,
    json_: Json = None,
    device: Device = "auto",
    dtype: TrainedDtype = "auto",
    threads: Threads = None,
) -> None:
    """Predict labels with probabilities for a table."""
    from ltprompt.cli.outputs import STDOUT, check_outputs, give_result, predictions_json, predictions_tsv
    from ltprompt.cli.show import show_precision
    from ltprompt.files.artifacts import write_text
    from ltprompt.tasks import read_rows
    from ltprompt.terminal import bar

    if out == json_ == STDOUT:
        raise typer.BadParameter("--out and --json cannot both be written to stdout; give one of them a file")
    check_outputs(out=out, json_=json_)
    task, _ = _adapter_task(adapter_dir)
    rows = read_rows(input_, task, labelled=False)
    classifier = _classifier(adapter_dir, backbone, revision, (device, dtype, threads))
    with bar("predicting", len(rows), "example") as advance:
        probabilities = classifier.predict_proba(rows, on_examples=advance)
    table = predictions_tsv(task.labels, probabilities)
    file = None if out == STDOUT else out
    if file:
        write_text(file, table)
    said = f"{len(rows):,} predictions in {file}" if file else table.rstrip("\n")
    give_result(said, predictions_json(task.labels, probabilities), json_)
    _warn(show_precision(classifier, dtype))


def merge(
    adapter_dir: AdapterDir,
    out_dir: Annotated[Path | None, typer.Argument(metavar="OUT_DIR", help="the same as --out")] = None,
    out: Annotated[Path | None, typer.Option(help="folder to write, which must not exist")] = None,
    backbone: OtherBackbone = None,
    revision: OtherRevision = None,
    device: Device = "cpu",
    dtype: TrainedDtype = "auto",
    threads: Threads = None,
) -> None:
    """Write adapter and backbone as one plain Hugging Face folder."""
    from ltprompt.files.places import check_new

    place = one_place(out_dir, out)
    check_new(place)
    classifier = _classifier(adapter_dir, backbone, revision, (device, dtype, threads))
    classifier.merge(place)
    _say(f"merged model in {place}; README.md there says how to use it")


def _load(name: str, revision: str | None, device: str, dtype: str, threads: int | None) -> tuple[Backbone, Compute]:
    from ltprompt.backbone.model import Backbone

    compute = computing(device, dtype, threads)
    return Backbone.from_pretrained(name, revision=revision, device=compute.device), compute


def _classifier(directory: Path, name: str | None, revision: str | None, hardware: tuple[str, str, int | None]) -> Any:
    """Return an adapter's classifier, on the backbone that is named, else on the one of its record."""
    from ltprompt.adapter import Adapter
    from ltprompt.backbone.model import Backbone
    from ltprompt.classifier import PromptClassifier

    adapter = Adapter.load(directory)
    compute = computing(*hardware, adapter.dtype)
    backbone = None
    if name is not None or revision is not None:
        backbone = Backbone.from_pretrained(name or adapter.backbone, revision=revision, device=compute.device)
    return PromptClassifier.of(adapter, backbone, compute=compute)


def _adapter_task(directory: Path) -> tuple[Any, str]:
    """Return an adapter's task and language without loading its backbone, so that bad tables are refused at once."""
    from ltprompt.adapter import read_record
    from ltprompt.files.artifacts import ADAPTER_RECORD
    from ltprompt.tasks import parse_task

    settings = read_record(directory)["settings"]
    task = parse_task(settings["task"], str(directory / ADAPTER_RECORD))
    return task, settings["train"].get("language") or task.default_language


def parse_tables(data: Sequence[str]) -> list[tuple[str, Path]]:
    """Return the languages and files of words spelt `LANGUAGE=FILE` or `FILE`, whose language is empty.

    A part with a slash is no language but the start of a path.
    """
    pairs = []
    for word in data:
        language, equals, file = word.partition("=") if _LANGUAGE.match(word) else ("", "", word)
        if not file or (equals and not language):
            raise typer.BadParameter(f"--data takes LANGUAGE=FILE, such as sw=test.sw.tsv, or FILE; found {word!r}")
        pairs.append((language, Path(file)))
    return pairs


def name_tables(pairs: Sequence[tuple[str, Path]], language: str) -> dict[str, Path]:
    """Return the files of `parse_tables` by language.

    language: that of a file without one; where several are, each is called by its name without the ending. Raises
    `InputError` where two have one name.
    """
    bare = sum(not name for name, _ in pairs)
    files: dict[str, Path] = {}
    for given, file in pairs:
        name = given or (language if bare == 1 else file.stem)
        if name in files:
            raise InputError(f"--data names the language {name!r} twice; give each once, as LANGUAGE=FILE")
        files[name] = file
    return files


def _say(text: str) -> None:
    print(text)


def _warn(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
