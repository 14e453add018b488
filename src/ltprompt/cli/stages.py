"""Commands of the two stages: find scores, train, evaluate, predict, merge. Imports happen when a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ltprompt.cli.options import (
    AdapterDir,
    BackboneName,
    Device,
    Dtype,
    Language,
    OtherBackbone,
    Revision,
    TaskName,
    Threads,
    TrainedDtype,
)
from ltprompt.cli.process import computing
from ltprompt.errors import InputError

if TYPE_CHECKING:
    from ltprompt.backbone.model import Backbone
    from ltprompt.device import Compute


def scores(
    backbone: BackboneName,
    texts: Annotated[
        list[Path], typer.Option("--text", help="text file, one sentence or paragraph a line; may be repeated")
    ],
    out: Annotated[Path, typer.Option(help="folder for scores.safetensors and scores.json")],
    strategy: Annotated[str | None, typer.Option(help="decoupled, tied or frozen-embeddings [decoupled]")] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the text [3]")] = None,
    steps: Annotated[
        int | None, typer.Option(help="optimizer steps, instead of epochs; the rate decays over them")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="lines a step [32]")] = None,
    lr: Annotated[float | None, typer.Option(help="initial rate, decaying linearly [5e-05]")] = None,
    l1: Annotated[float | None, typer.Option(help="coefficient of the L1 term [0.1]")] = None,
    max_length: Annotated[int | None, typer.Option(help="tokens a line [256]")] = None,
    evaluate_every: Annotated[int | None, typer.Option(help="steps between evaluations and checkpoints [1000]")] = None,
    keep: Annotated[str | None, typer.Option(help="weights to score: final, or best on held-out lines [final]")] = None,
    seed: Annotated[int | None, typer.Option(help="of masks, order and dropout [0]")] = None,
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

    given = _given(strategy=strategy, epochs=epochs, batch_size=batch_size, lr=lr, l1=l1, max_length=max_length)
    if steps is not None and epochs is not None:
        raise typer.BadParameter("give --steps or --epochs, not both")
    settings = ScoresSettings.of(**given, **_given(steps=steps, evaluate_every=evaluate_every, keep=keep, seed=seed))
    check_place(out, SCORES_TENSORS, "finished scores")
    lines = read_lines(texts)
    loaded, compute = _load(backbone, revision, device, dtype, threads)
    with stage_one_bar() as watcher:
        found = find_scores(loaded, lines, out, settings=settings, compute=compute, resume=resume, watcher=watcher)
    _say(f"scores of {sum(p.numel for p in found.parameters):,} parameters in {out}")


def train(
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
    epochs: Annotated[int | None, typer.Option(help="[70; ft, dp, sp, mp: 50]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="examples a step [32; ft: 8; dp, sp, mp: 12]")] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="rate [2e-05; ft, dp, sp, mp: 1e-05; bitfit, lora, shira, super-tuning: 0.0005]"),
    ] = None,
    prompt_lr: Annotated[float | None, typer.Option(help="the prompt's own rate [that of --lr]")] = None,
    size: Annotated[
        float | None,
        typer.Option(help="rank of lora and shira, sparsity of super-tuning [lora: 8; shira: 32; super-tuning: 0.99]"),
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="constant or linear decay [constant]")] = None,
    prompt_length: Annotated[int | None, typer.Option(help="pseudo-tokens [4]")] = None,
    max_length: Annotated[int | None, typer.Option(help="tokens an example [256]")] = None,
    language: Language = None,
    seed: Annotated[int | None, typer.Option(help="of the prompt's start, order and dropout [0]")] = None,
    keep_prompt_encoder: Annotated[bool, typer.Option(help="save the prompt before folding too")] = False,
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

    given = _given(epochs=epochs, batch_size=batch_size, lr=lr, prompt_lr=prompt_lr, schedule=schedule, size=size)
    given |= _given(prompt_length=prompt_length, max_length=max_length, language=language, seed=seed)
    settings = TrainSettings.of(**given, keep_prompt_encoder=keep_prompt_encoder)
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
        fit = classifier.fit(rows, dev_rows, on_epoch=on_epoch)
    for warning in fit.warnings:
        _warn(warning)
    classifier.save_pretrained(out)
    kept = fit.epochs[fit.kept_epoch - 1]
    _say(f"adapter of {fit.changed_entries:,} changed entries from epoch {fit.kept_epoch} ({kept}) in {out}")


def evaluate(
    adapter_dir: AdapterDir,
    data: Annotated[list[str], typer.Option(help="LANGUAGE=FILE, a labelled table; may be repeated")],
    backbone: OtherBackbone = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write the measures to this file")] = None,
    predictions: Annotated[Path | None, typer.Option(help="folder for LANGUAGE.tsv with every prediction")] = None,
    device: Device = "auto",
    dtype: TrainedDtype = "auto",
    threads: Threads = None,
) -> None:
    """Evaluate an adapter on labelled tables: accuracy, macro-F1 and confusion by language."""
    from ltprompt.cli.predictions import write_predictions
    from ltprompt.cli.show import show_evaluation, show_precision
    from ltprompt.files.artifacts import write_json
    from ltprompt.tasks import read_rows
    from ltprompt.terminal import bar

    files = _languages(data)
    task = _adapter_task(adapter_dir)
    tables = {language: read_rows(file, task) for language, file in files.items()}
    classifier = _classifier(adapter_dir, backbone, device, dtype, threads)
    with bar("evaluating", sum(map(len, tables.values())), "example") as advance:
        found = classifier.evaluate(tables, on_examples=advance)
    if json_ is not None:
        write_json(json_, found.to_json())
    if predictions is not None:
        for language in tables:
            write_predictions(
                predictions / f"{language}.tsv", found.labels, found.probabilities[language], found.gold[language]
            )
    _say(f"{show_evaluation(found)}\n\n{show_precision(classifier, dtype)}")


def predict(
    adapter_dir: AdapterDir,
    input_: Annotated[Path, typer.Argument(metavar="INPUT", help="table; it needs no labels")],
    out: Annotated[Path | None, typer.Option(help="TSV file to write [stdout]")] = None,
    backbone: OtherBackbone = None,
    device: Device = "auto",
    dtype: TrainedDtype = "auto",
    threads: Threads = None,
) -> None:
    """Predict labels with probabilities for a table."""
    from ltprompt.cli.predictions import predictions_tsv, write_predictions
    from ltprompt.cli.show import show_precision
    from ltprompt.tasks import read_rows
    from ltprompt.terminal import bar

    task = _adapter_task(adapter_dir)
    rows = read_rows(input_, task, labelled=False)
    classifier = _classifier(adapter_dir, backbone, device, dtype, threads)
    with bar("predicting", len(rows), "example") as advance:
        probabilities = classifier.predict_proba(rows, on_examples=advance)
    if out is None:
        sys.stdout.write(predictions_tsv(task.labels, probabilities))
    else:
        write_predictions(out, task.labels, probabilities)
        _say(f"{len(rows):,} predictions in {out}")
    _warn(show_precision(classifier, dtype))


def merge(
    adapter_dir: AdapterDir,
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="folder to write, which must not exist")],
    backbone: OtherBackbone = None,
    device: Device = "cpu",
    dtype: TrainedDtype = "auto",
    threads: Threads = None,
) -> None:
    """Write adapter and backbone as one plain Hugging Face folder."""
    classifier = _classifier(adapter_dir, backbone, device, dtype, threads)
    classifier.merge(out_dir)
    _say(f"merged model in {out_dir}; README.md there says how to use it")


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _load(name: str, revision: str | None, device: str, dtype: str, threads: int | None) -> tuple[Backbone, Compute]:
    from ltprompt.backbone.model import Backbone

    compute = computing(device, dtype, threads)
    return Backbone.from_pretrained(name, revision=revision, device=compute.device), compute


def _classifier(directory: Path, backbone: str | None, device: str, dtype: str, threads: int | None) -> Any:
    from ltprompt.adapter import Adapter
    from ltprompt.backbone.model import Backbone
    from ltprompt.classifier import PromptClassifier

    adapter = Adapter.load(directory)
    compute = computing(device, dtype, threads, adapter.dtype)
    other = None if backbone is None else Backbone.from_pretrained(backbone, device=compute.device)
    return PromptClassifier.of(adapter, other, compute=compute)


def _adapter_task(directory: Path) -> Any:
    """Return the task of an adapter without loading its backbone, so that bad tables are refused at once."""
    from ltprompt.adapter import read_record
    from ltprompt.files.artifacts import ADAPTER_RECORD
    from ltprompt.tasks import parse_task

    return parse_task(read_record(directory)["settings"]["task"], str(directory / ADAPTER_RECORD))


def _languages(data: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for pair in data:
        language, equals, file = pair.partition("=")
        if not equals or not language or not file:
            raise typer.BadParameter(f"--data takes LANGUAGE=FILE, such as sw=test.sw.tsv; found {pair!r}")
        if language in files:
            raise InputError(f"--data names the language {language!r} twice; give each once")
        files[language] = Path(file)
    return files


def _say(text: str) -> None:
    print(text)


def _warn(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
