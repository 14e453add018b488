"""Commands in a real pseudo-terminal, as a person types them.

To import torch and transformers takes seconds, so most commands run in forks of one process that has imported them,
each in a session of its own with the terminal as its controlling one: Ctrl-C comes from the terminal and goes to all of
a command's processes. `Terminal.line` hands a line to a shell instead: the installed program, pipes and redirections.
"""

from __future__ import annotations

import multiprocessing
import os
import pty
import re
import signal
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import pexpect
from pexpect.fdpexpect import fdspawn
from pexpect.spawnbase import SpawnBase

CTRL_C = "\x03"
ROWS = 40
SECONDS = 300.0  # a busy machine is no failure
# What a program reads of its surroundings, so that those of whoever runs the tests do not matter.
UNSET = (
    *("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "LC_ALL"),
    *("PYTHONUNBUFFERED", "PYTHONIOENCODING"),
)
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
# Imported once; what commands import as they run is among it.
WARM = (
    *(
        "pexpect.fdpexpect",
        "pytest",
        "ltprompt.cli.main",
        "ltprompt.cli.demo",
        "ltprompt.merge",
        "ltprompt.tasks.check",
    ),
    *("ltprompt.experiments.run.driver", "ltprompt.experiments.run.estimate", "ltprompt.experiments.report.report"),
    *("transformers.models.xlm_roberta.modeling_xlm_roberta", "transformers.models.auto.modeling_auto"),
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "matplotlib.pyplot", "scipy.stats"),
)


@dataclass(frozen=True)
class Shown:
    """What a command left: its exit status, and all that the terminal received, control sequences among it."""

    status: int
    raw: str

    @property
    def lines(self) -> list[str]:
        """What is to be read: every state of a bar on a line, without control sequences and the echo of Ctrl-C."""
        return [line for line in re.split(r"[\r\n]+", CONTROL.sub("", self.raw).replace("^C", "")) if line]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def last(self) -> str:
        return self.lines[-1]

    def check(self, status: int = 0, command: object = "") -> Shown:
        """Assert how the command ended, and what holds of every command whatever it does; return this."""
        assert self.status == status, f"{command} ended with {self.status}:\n{self.text}"
        for word in ("Traceback", "error: unexpected", "Exception ignored", "Fatal Python error"):
            assert word not in self.text, f"{command}:\n{self.text}"
        assert self.raw.count("\x1b[?25l") == self.raw.count("\x1b[?25h"), f"{command} leaves the cursor hidden"
        return self

    def check_interrupted(self) -> Shown:
        """Assert that Ctrl-C ended the command in order; return this."""
        assert self.last.startswith("error: interrupted; "), self.text
        return self.check(130)


@dataclass
class Typed:
    """A command that was typed and may still run."""

    screen: SpawnBase
    wait: Callable[[], int]
    seen: str = ""

    def until(self, pattern: str) -> None:
        """Wait until the terminal shows a pattern."""
        self.screen.expect(pattern)
        self.seen += self.screen.before + self.screen.after

    def press(self, keys: str) -> None:
        self.screen.send(keys)

    def end(self) -> Shown:
        """Wait until the command has ended."""
        self.screen.expect(pexpect.EOF)
        return Shown(self.wait(), self.seen + self.screen.before)


@dataclass
class Terminal:
    """A terminal in a folder. environment: beyond that of the tests. prepare: called first in a command's process."""

    folder: Path
    columns: int = 80
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], object] = int

    @property
    def variables(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name not in UNSET}
        return own | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"} | dict(self.environment)

    def run(self, *arguments: object, out: str | None = None, err: str | None = None) -> Shown:
        """Run a command to its end. out, err: files for what it prints."""
        with self.typed(*arguments, out=out, err=err) as typed:
            return typed.end()

    @contextmanager
    def typed(self, *arguments: object, out: str | None = None, err: str | None = None) -> Iterator[Typed]:
        """Yield a command that has begun to run; one that still runs afterwards is killed."""
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (ROWS, self.columns))
        words = [str(argument) for argument in arguments]
        given = (DupFd(slave), words, self.folder, self.variables, out, err, self.prepare)
        process = _warm().Process(target=_run, args=given)
        process.start()
        os.close(slave)
        screen = fdspawn(master, timeout=SECONDS, encoding="utf-8", codec_errors="backslashreplace")

        def wait() -> int:
            process.join(SECONDS)
            assert process.exitcode is not None
            return process.exitcode

        try:
            yield Typed(screen, wait)
        finally:
            process.kill()
            process.join()
            screen.close()

    def line(self, line: str) -> Shown:
        """Have a shell run a line, in which `ltprompt` is the installed program; a pipe fails where any of it does."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        with self.spawned("bash", "-c", f"set -o pipefail; {line}", PATH=path) as typed:
            return typed.end()

    @contextmanager
    def spawned(self, program: str, *arguments: str, **variables: str) -> Iterator[Typed]:
        """Yield a program that has begun to run; one that still runs afterwards is hung up on."""
        screen = pexpect.spawn(
            program,
            list(arguments),
            timeout=SECONDS,
            cwd=str(self.folder),
            env=self.variables | variables,  # type: ignore[arg-type]
            encoding="utf-8",
            codec_errors="backslashreplace",
            dimensions=(ROWS, self.columns),
        )
        try:
            yield Typed(screen, lambda: _status(screen))
        finally:
            screen.close(force=True)


def _status(screen: pexpect.spawn[str]) -> int:
    """Return a program's exit status as a shell gives it."""
    screen.wait()
    return 128 + screen.signalstatus if screen.exitstatus is None else screen.exitstatus


@cache
def _warm() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(WARM))
    return context


def _run(
    terminal: Any, words: list[str], folder: Path, variables: Mapping[str, str], out: str | None, err: str | None,
    prepare: Callable[[], object],
) -> None:  # fmt: skip
    """Make this process what a shell starts for a command, and run the command."""
    from ltprompt.cli import main as cli

    os.setsid()
    handed = terminal.detach()
    screen = os.open(os.ttyname(handed), os.O_RDWR)  # the controlling terminal, as the session has none yet
    os.chdir(folder)
    for number, file in enumerate((None, out, err)):
        os.dup2(screen if file is None else os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.close(handed)
    os.close(screen)
    os.environ.clear()
    os.environ.update(variables)
    encoding = variables.get("PYTHONIOENCODING")
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding=encoding, buffering=1) for number in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["ltprompt", *words]
    prepare()
    sys.exit(cli.main())
