"""Commands for experiments: run a grid, report what it found. Imports happen when a command runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ltprompt.cli.options import Device, Dtype
from ltprompt.cli.process import SAME_BYTES, computing
from ltprompt.cli.streams import INTERRUPTED

if TYPE_CHECKING:
    from ltprompt.experiments.records import RunSpec
    from ltprompt.experiments.run.driver import Plan, Ran
    from ltprompt.experiments.run.ledger import Counts
    from ltprompt.experiments.run.local import Kind, OnEvent
    from ltprompt.terminal import Advance

GO_ON = "the same command goes on from here"


def grid(
    config: Annotated[str, typer.Argument(metavar="CONFIG.yaml", help="grid file, or a shipped grid such as table1")],
    out: Annotated[Path, typer.Option(help="folder for ledger, records, scores and tickets")],
    base: Annotated[
        Path | None, typer.Option(help="folder that the grid's paths are seen from [the file's own]")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check, list the runs with an estimate of time, stop")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="worker processes on this machine, through Ray")] = None,
    ray: Annotated[str | None, typer.Option(help="address of a Ray cluster: auto or host:port")] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            "--gpus-per-worker", min=0, help="share of a GPU for each worker [on CUDA: 1, or this machine's shared out]"
        ),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Annotated[
        int | None, typer.Option(help=f"CPU threads of a worker; {SAME_BYTES} [all cores, shared out]")
    ] = None,
) -> None:
    """Run a grid of experiments; what is finished is never run again, so start it anew to go on."""
    from ltprompt.experiments.run.ray_start import ray_ahead
    from ltprompt.files.places import check_folder
    from ltprompt.terminal import phase

    check_folder(out, "out")
    with ray_ahead(None if dry_run or ray else workers, device):
        with phase("loading the libraries"):
            from ltprompt.experiments.run.driver import Where, plan_grid, run_grid
            from ltprompt.stage1.watching import stage_one_bar
        computing(device, dtype, threads)  # stage 1 here, and without workers the runs
        where = Where(device, dtype, threads, workers, ray, gpus)
        plan = plan_grid(config, out, where, base=base, stage_one=stage_one_bar, say=_note, phase=phase)
        for note in plan.notes:
            _note(note)
        if dry_run:
            _list(plan)
            return
        try:
            ran = run_grid(plan, where, on_event=_runs_bar)
        except KeyboardInterrupt:
            _note(GO_ON)
            raise
    _conclude(ran, out)


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="folder that `grid --out` filled")],
    out: Annotated[Path | None, typer.Option(help="folder of figures and files [DIR/report]")] = None,
    html: Annotated[Path | None, typer.Option(help="HTML file to write [report.html in --out]")] = None,
    latex: Annotated[Path | None, typer.Option(help="LaTeX file to write [report.tex in --out]")] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV file to write [report.csv in --out]")] = None,
    pack: Annotated[
        bool, typer.Option("--pack", help="then put plan and records into one file, DIR/records.jsonl, to keep them")
    ] = False,
) -> None:
    """Print a grid's tables and comparisons, and write them with its figures."""
    from ltprompt.cli.outputs import check_outputs
    from ltprompt.experiments.folder import GridFolder, read_results
    from ltprompt.experiments.report.report import write_report
    from ltprompt.files.places import check_folder
    from ltprompt.terminal import stdout_width

    results = read_results(directory)
    place = out or GridFolder(directory).report
    check_outputs(html=html, latex=latex, csv=csv)
    check_folder(place, "out")
    write_report(results, place, html=html, latex=latex, csv=csv, width=stdout_width(), show=print)
    if pack:
        from ltprompt.experiments.run.driver import pack_grid

        pack_grid(GridFolder(directory))


def _list(plan: Plan) -> None:
    """Print what a grid would run, what of it is finished, and how long the rest may take."""
    from ltprompt.experiments.run.estimate import list_runs
    from ltprompt.terminal import stdout_width, table

    found = list_runs(plan)
    if found.rows:
        header = ["run", "method", "setting", "language", "shots", "seed", "state", "time"]
        print(table(header, found.rows, stdout_width()))
        print()
    print("\n".join(found.summary))


@contextmanager
def _runs_bar(total: int, first: int) -> Iterator[OnEvent]:
    """Yield what shows a grid's runs as a bar; `first` of them were finished before."""
    from ltprompt.terminal import bar

    with ExitStack() as stack:
        opened: list[Advance] = []

        def hear(kind: Kind, spec: RunSpec, counts: Counts) -> None:
            if not opened:  # with the first run, so that neither time nor rate counts what comes before
                opened.append(stack.enter_context(bar("runs", total, "run", first)))
            ended = int(kind in ("finished", "failed"))
            failed = f", {counts.failed} failed" if counts.failed else ""
            opened[0](ended, f"{spec.method}, {spec.shots} shots, seed {spec.seed}: {kind}{failed}")

        yield hear


def _conclude(ran: Ran, out: Path) -> None:
    summary, counts = ran.summary, ran.summary.counts
    print(f"{counts.done} runs done, {counts.failed} failed, {counts.planned + counts.running} left, in {out}")
    if ran.seconds is not None and ran.outside is not None:
        print(f"median of a run: {ran.seconds:.1f} s; outside training and evaluation: {ran.outside:.2%} of all time")
    for run_id, error in summary.failures.items():
        _note(f"run {run_id[:12]} failed: {error.splitlines()[0]}")
    if summary.interrupted:
        _note(GO_ON)
        raise typer.Exit(INTERRUPTED)
    if counts.failed:
        _note("the same command tries the failed runs again")
        raise typer.Exit(1)
    print(f"next: ltprompt report {out}")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
