"""The command line: every command is a thin call of the library, which is imported only when a command runs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from ltprompt.cli.grids import grid, report
from ltprompt.cli.options import Command, Device, Dtype, Threads
from ltprompt.cli.process import computing
from ltprompt.cli.stages import ScoresCommand, TrainCommand, evaluate, merge, predict, scores, train
from ltprompt.cli.streams import INTERRUPTED, delivered
from ltprompt.cli.tasks import split, task_app
from ltprompt.cli.tickets import ticket_app
from ltprompt.errors import LtpError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Lottery Ticket Prompt-learning for small multilingual masked language models. "
    "BACKBONE is a hub id, a folder or `mini`. Add --debug anywhere to see the traceback of an error.",
)
app.add_typer(ticket_app, name="ticket")
app.add_typer(task_app, name="task")
app.command(cls=ScoresCommand)(scores)
app.command(cls=TrainCommand)(train)
for command in (evaluate, predict, merge, split, grid, report):
    app.command(cls=Command)(command)


def _show_version(asked: bool) -> None:
    if asked:
        import ltprompt

        print(f"ltprompt {ltprompt.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command(cls=Command)
def demo(
    out: Annotated[Path, typer.Option(help="folder for everything that the demonstration makes")] = Path(
        "ltprompt-demo"
    ),
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = None,
) -> None:
    """Show the whole method in a few minutes, offline, on an embedded backbone and data."""
    from ltprompt.cli.demo import demo as run

    run(out, computing(device, dtype, threads))


def main() -> int:
    """Run the command line and return its exit status: 0 done, 1 failed with one line, 2 bad usage, 130 by Ctrl-C.

    SIGTERM, by which a cluster's scheduler ends a job, stops a command as Ctrl-C does. 141: whoever read the output
    stopped reading, as `head` does.
    """
    in_charge = threading.current_thread() is threading.main_thread()
    if in_charge and signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:  # as whoever started it may have it
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    return delivered(_run)


def _run() -> int:
    debug = "--debug" in sys.argv[1:]
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments, prog_name="ltprompt")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("error: interrupted; what was finished is whole, nothing is left half-written", file=sys.stderr)
        return int(end.code or 0)
    except Exception as error:
        if debug:
            raise
        known = isinstance(error, LtpError)
        text = str(error) if known else f"unexpected {type(error).__name__}: {error}; --debug shows where"
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
        return 1
    return 0
