"""`ltprompt grid --workers`: processes of Ray beside the command, and none of their lines among its own."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from importlib.util import find_spec

import pytest
from helpers.terminals import CTRL_C, Terminal

pytestmark = [
    pytest.mark.loopback,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install ray"),
]
WORKERS = ("--workers", 2, "--threads", 1)
LONG = ("grid", "base/long.yaml", *WORKERS)


def test_two_workers_make_a_grid_with_a_scores_stage(terminal: Terminal) -> None:
    shown = terminal.run("grid", "base/grid.yaml", *WORKERS, "--out", "on-ray").check()
    assert shown.last == "next: ltprompt report on-ray"
    assert "4 runs done, 0 failed, 0 left, in on-ray" in shown.lines
    assert any(re.match(r"runs .*4/4 ", line) for line in shown.lines)
    assert max(map(len, shown.lines)) <= 120


@pytest.mark.parametrize("seconds", [0, 3])
def test_ctrl_c_while_workers_start(terminal: Terminal, seconds: float) -> None:
    """Ray itself takes a second or two to start, a worker's imports some seconds more."""
    out = f"stopped-{seconds}"
    with terminal.typed(*LONG, "--out", out) as typed:
        typed.until("starting 2 workers .*0/2")
        time.sleep(seconds)
        typed.press(CTRL_C)
        shown = typed.end().check_interrupted()
    assert "note: the same command goes on from here" in shown.lines


def test_ctrl_c_while_workers_run(terminal: Terminal) -> None:
    with replace(terminal, columns=160).typed(*LONG, "--out", "broken-off") as typed:  # where a run's text has room
        typed.until(": started")
        typed.press(CTRL_C)
        shown = typed.end().check_interrupted()
    assert "0 runs done, 0 failed, 4 left, in broken-off" in shown.lines
