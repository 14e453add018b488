"""What a command prints into a file or a pipe: plain text, whole, and no word about a pipe that was closed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from helpers.terminals import Terminal

SCORES = ("scores", "toy", "--text", "english.txt", "--steps", 2, "--max-length", 48)
INSPECT = "ltprompt ticket inspect t.safetensors"


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_standard_error_into_a_file_has_no_control_characters(terminal: Terminal, environment: dict[str, str]) -> None:
    name = "-".join(environment) or "plain"
    shown = replace(terminal, environment=environment).run(*SCORES, "--out", f"scores-{name}", err="log").check()
    assert shown.lines == [f"scores of 8,040 parameters in scores-{name}"]
    (line,) = (terminal.folder / "log").read_text().splitlines()
    assert re.fullmatch(r"stage 1 2/2, [\d.]+ \w+/\w+, loss \d\.\d{3}, \d+ s spent, 0 s left", line)


def test_an_error_into_a_file_is_its_only_line(terminal: Terminal) -> None:
    shown = terminal.run("ticket", "inspect", "none", err="log").check(1)
    assert shown.raw == ""
    (line,) = (terminal.folder / "log").read_text().splitlines()
    assert line.startswith("error: none does not exist")


def test_standard_output_into_a_file_leaves_the_bar_on_the_terminal(terminal: Terminal) -> None:
    shown = terminal.run("predict", "a", "unlabelled.tsv", out="table").check()
    assert any("3/3" in line for line in shown.lines)
    table = (terminal.folder / "table").read_text()
    assert table.startswith("example\tpredicted\t")
    assert len(table.splitlines()) == 4


@pytest.mark.parametrize("command", [INSPECT, "ltprompt train --help", "ltprompt ticket inspect none 2>&1"])
def test_a_pipe_that_closes_early_ends_the_command_in_silence(terminal: Terminal, command: str) -> None:
    """`true` reads nothing and has ended long before the command prints."""
    assert terminal.line(f"{command} | true").check(141).raw == ""


def test_head_shows_the_first_line_alone(terminal: Terminal) -> None:
    unbuffered = replace(terminal, environment={"PYTHONUNBUFFERED": "1"})
    shown = unbuffered.line(f"{INSPECT} | head -1; exit 0").check()
    assert len(shown.lines) == 1
    assert shown.last.startswith("1,608 of 8,040 eligible parameters (20.00%)")


def test_a_full_disk_behind_standard_output_is_one_line(terminal: Terminal) -> None:
    shown = terminal.line(f"{INSPECT} > /dev/full").check(1)
    assert shown.lines == ["error: cannot write to standard output: No space left on device"]


def test_standard_output_may_be_closed(terminal: Terminal) -> None:
    assert terminal.line("ltprompt train --help >&-").check().raw == ""
