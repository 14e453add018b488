"""The command line of the benchmarks.

    python -m benchmarks run [--case NAME ...] [--only NAME ...] [--shape xlmr|mini|toy] [--dtype fp32|bf16]
                             [--threads N] [--runs N] [--work FOLDER] [--out docs/benchmarks.json]
    python -m benchmarks profile [--case NAME] [--implementation NAME] [--shape ...] [--dtype ...] [--threads N]
                             [--work FOLDER]
    python -m benchmarks table docs/benchmarks.json docs/benchmarks.md

`run` adds to the JSON file, so that several shapes and precisions come together in it; `profile` prints the operators
that one step costs; `table` makes a document of the file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ltprompt.errors import InputError, LtpError

OUT = Path("docs") / "benchmarks.json"
OPERATORS = 16  # that a profile shows


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; a user's mistake gives one line."""
    given = _parser().parse_args(arguments)
    try:
        {"run": _run, "profile": _profile, "table": _table, "worker": _work}[given.command](given)
    except LtpError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure ltprompt against its rivals.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure and write JSON")
    run.add_argument("--case", action="append", help="a case; may be repeated [all but the linear ones]")
    run.add_argument(
        "--only",
        action="append",
        help="an implementation; may be repeated; without --case of all cases that have it [all]",
    )
    run.add_argument("--runs", type=int, default=3, help="processes of each implementation, of 2 laps or more [3]")
    run.add_argument("--out", type=Path, default=OUT)
    profile = commands.add_parser("profile", help="print the operators that one step costs")
    profile.add_argument("--case", default="stage2-ltp")
    profile.add_argument("--implementation", default="ours")
    for each in (run, profile):
        each.add_argument("--shape", default="xlmr", help="xlmr, mini or toy")
        each.add_argument("--dtype", default="fp32", help="fp32 or bf16, of every implementation")
        each.add_argument("--threads", type=int, default=os.cpu_count(), help="[all cores]")
        each.add_argument("--work", type=Path, help="folder for checkpoints, kept and used again [a temporary one]")
    table = commands.add_parser("table", help="make Markdown, and charts beside it, of the JSON")
    table.add_argument("json", type=Path)
    table.add_argument("markdown", type=Path)
    worker = commands.add_parser("worker", help="what `run` starts in a fresh process")
    worker.add_argument("order")
    return parser


def _run(given: argparse.Namespace) -> None:
    from benchmarks.cases import CASES, find_case
    from benchmarks.check import tolerance_of
    from benchmarks.harness import Settings, run

    _check_positive("--runs", given.runs)
    _check_positive("--threads", given.threads)
    usual = [name for name in CASES if not name.startswith("linear")]
    cases = [find_case(name).only(given.only or ()) for name in given.case or _with(given.only, usual)]
    tolerance_of(given.dtype)  # refuses an unknown one
    with _folder(given) as folder:
        settings = Settings(given.shape, given.dtype, given.threads, given.runs, folder)
        run(cases, settings, given.out, lambda line: print(line, flush=True))


def _with(only: Sequence[str] | None, usual: Sequence[str]) -> list[str]:
    """Return the cases that have every implementation asked for. Raises `InputError` where none has."""
    from benchmarks.cases import CASES

    names = {name: [each.name for each in CASES[name].implementations] for name in usual}
    found = [name for name in usual if set(only or ()) <= set(names[name])]
    if not found:
        raise InputError(f"no case has all of {', '.join(only or ())}; name one with --case")
    return found


def _profile(given: argparse.Namespace) -> None:
    import torch

    from benchmarks.cases import find_case
    from benchmarks.check import tolerance_of
    from benchmarks.harness import rows_of
    from benchmarks.profiling import profile, table
    from benchmarks.shapes import Place, find_shape, prepare

    _check_positive("--threads", given.threads)
    case, shape = find_case(given.case), find_shape(given.shape)
    implementation = case.find(given.implementation)
    tolerance_of(given.dtype)  # refuses an unknown one
    torch.set_num_threads(given.threads)
    with _folder(given) as folder:
        place = Place(folder, shape)
        prepare(place)
        costs = profile(case, implementation.name, place, given.dtype, rows_of(implementation, shape))
    print(table(costs, OPERATORS))


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} {value} is not a positive number")


@contextmanager
def _folder(given: argparse.Namespace) -> Iterator[Path]:
    """Yield the folder of a shape's checkpoints, temporary unless one is given."""
    from benchmarks.shapes import find_shape, folder_name

    name = folder_name(find_shape(given.shape))
    with tempfile.TemporaryDirectory(prefix="ltprompt-benchmarks-") as temporary:
        folder: Path = (given.work or Path(temporary)) / name
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()


def _table(given: argparse.Namespace) -> None:
    from benchmarks.report import write_report

    write_report(given.json, given.markdown)


def _work(given: argparse.Namespace) -> None:
    from benchmarks.worker import Order, work

    work(Order(**json.loads(given.order)))


if __name__ == "__main__":
    sys.exit(main())
