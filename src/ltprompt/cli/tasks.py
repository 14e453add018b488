"""Commands for a task of the user's own: check it, start one, split a table. Imports happen when a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ltprompt.cli.options import BareJson, Command, Language, Revision, TaskName, one_place
from ltprompt.errors import InputError

task_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Check a task, or start one of your own.")


@task_app.command("check", cls=Command)
def task_check(
    task: Annotated[str, typer.Argument(metavar="FILE_OR_NAME", help="task file .yaml, or xnli, americasnli")],
    data: Annotated[list[Path] | None, typer.Option(help="table to look at; may be repeated")] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="the tables have no labels")] = False,
    backbone: Annotated[str, typer.Option(help="hub id, folder or mini; only its tokenizer is read")] = "mini",
    revision: Revision = None,
    language: Language = None,
    prompt_length: Annotated[int, typer.Option(min=1, help="pseudo-tokens")] = 4,
    max_length: Annotated[int, typer.Option(min=1, help="tokens an example")] = 256,
    json_: BareJson = None,
) -> None:
    """Show a task as a backbone reads it: filled templates, label words, lengths, how the language is split."""
    from ltprompt.backbone.loading import load_tokenizer
    from ltprompt.cli.outputs import check_outputs, give_result, result_json
    from ltprompt.cli.show import show_task_report
    from ltprompt.tasks import load_task, read_rows
    from ltprompt.tasks.check import report_task

    check_outputs(json_=json_)
    found_task = load_task(task)
    tables = [read_rows(path, found_task, labelled=not unlabelled) for path in data or ()]
    found = report_task(
        found_task,
        load_tokenizer(backbone, revision),
        tables,
        backbone=backbone,
        language=language or found_task.default_language,
        prompt_length=prompt_length,
        max_length=max_length,
    )
    give_result(show_task_report(found), result_json(found.to_json()), json_)


@task_app.command("new", cls=Command)
def task_new(
    file: Annotated[Path | None, typer.Argument(metavar="FILE.yaml", help="the same as --out")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="task file to write")] = None,
    pairs: Annotated[bool, typer.Option("--pairs/--single", help="two texts an example, or one")] = True,
) -> None:
    """Write a commented task file to start from; it works as it stands."""
    from ltprompt.files.artifacts import write_text
    from ltprompt.tasks import starter_text

    file = one_place(file, out)
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"{file} does not end in .yaml, by which task files are known; name it {file.with_suffix('.yaml').name}"
        )
    if file.exists():
        raise InputError(f"{file} exists already; choose another name or delete it")
    write_text(file, starter_text("pairs" if pairs else "single"))
    print(f"task file in {file}; change it to your own, then: ltprompt task check {file} --data YOUR_TABLE")


@task_app.command("split", cls=Command)
def split(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="labelled table: .tsv, .csv or .jsonl")],
    task: TaskName,
    shots: Annotated[int, typer.Option(min=1, help="examples a class to train on")],
    out: Annotated[Path, typer.Option(help="folder for train.K.jsonl, dev.K.jsonl and rest.jsonl")],
    dev_shots: Annotated[int | None, typer.Option(min=0, help="examples a class for dev [as many]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the draw")] = 0,
) -> None:
    """Draw balanced, disjoint train and dev sets from a labelled table; the rest can serve as a test set.

    Columns that the task does not name are left out. Rows that share only one of their texts, such as a premise, count
    as different and may fall on both sides.
    """
    from ltprompt.tasks import label_counts, load_task, read_rows
    from ltprompt.tasks.splits import draw, split_paths, write_rows

    dev_shots = shots if dev_shots is None else dev_shots
    paths = split_paths(out, shots, dev_shots)
    found_task = load_task(task)
    rows = read_rows(table, found_task)
    found = draw(rows, found_task, shots=shots, dev_shots=dev_shots, seed=seed)
    for name, indices in (("train", found.train), ("dev", found.dev), ("rest", found.rest)):
        if indices:
            part = rows.select(indices)
            write_rows(paths[name], part, found_task)
            counts = ", ".join(f"{label} {count:,}" for label, count in label_counts(part, found_task).items())
            print(f"{paths[name]}: {len(part):,} rows ({counts})")
    if found.copies:
        _note(f"left out as copies of drawn rows: {found.copies:,}")
    if found.contradictory:
        _note(f"never drawn, their texts standing under several labels: {found.contradictory:,} rows")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
