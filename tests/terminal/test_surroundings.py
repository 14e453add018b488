"""What a terminal is and what it says of itself: its width, TERM, NO_COLOR, its locale."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from helpers.terminals import CONTROL, Shown, Terminal

WIDTHS = (40, 80, 200)
SCORES = ("scores", "toy", "--text", "english.txt", "--steps", 6, "--batch-size", 4, "--max-length", 48)
GRID = ("grid", "base/grid.yaml")
TABLES = {
    "inspect": ("ticket", "inspect", "t.safetensors"),
    "check": ("task", "check", "xnli", "--backbone", "toy", "--data", "train.tsv"),
    "evaluate": ("evaluate", "a", "--data", "sw=test.sw.tsv"),
    "list": (*GRID, "--out", "runs", "--dry-run"),
    "report": ("report", "runs"),
}
CUT = re.compile(r"\.\.\. \d+ more columns?: a pipe has them all")
IN_ASCII = {"PYTHONIOENCODING": "ascii"}
# Python takes such a locale for UTF-8 unless it is told not to.
UNSET_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_bar_fits_and_says_what_is_done_and_what_is_left(terminal: Terminal, columns: int) -> None:
    shown = replace(terminal, columns=columns).run(*SCORES, "--out", f"scores-{columns}").check()
    *bars, last = shown.lines
    assert last == f"scores of 8,040 parameters in scores-{columns}"
    assert max(map(len, bars)) <= columns
    assert all(re.match(r"stage 1 .*\d/6 .*left +[-\d:]+$", line) for line in bars), bars
    assert re.search(r" 6/6 .*loss \d\.\d{3} .*left 0:00:00$", bars[-1]), bars


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_grid_with_a_scores_stage_fits(terminal: Terminal, columns: int) -> None:
    shown = replace(terminal, columns=columns).run(*GRID, "--out", f"runs-{columns}").check()
    assert shown.last == f"next: ltprompt report runs-{columns}"
    bars = [line for line in shown.lines if re.match("stage 1 |runs ", line)]
    assert max(map(len, bars)) <= columns
    assert any("3/3" in line for line in bars)
    assert any(re.match(r"runs .*4/4 ", line) for line in bars)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_lacks_columns_on_a_terminal_that_is_too_narrow_and_says_so(terminal: Terminal, name: str) -> None:
    """What fits is shown whole, and a file or a pipe has all columns whatever the terminal's width."""
    narrow, _, wide = (replace(terminal, columns=columns).run(*TABLES[name]).check() for columns in WIDTHS)
    tables = [without_progress(shown) for shown in (narrow, wide)]
    notes = [[line for line in table if CUT.fullmatch(line)] for table in tables]
    assert notes[0], narrow.text
    assert not notes[1], wide.text
    replace(terminal, columns=WIDTHS[0]).run(*TABLES[name], out=f"{name}.txt").check()
    kept = (terminal.folder / f"{name}.txt").read_text().splitlines()
    assert [re.sub(r" *\d+ s\b", " # s", line) for line in kept if line] == tables[1]


def without_progress(shown: Shown) -> list[str]:
    """What is no bar, without seconds, which differ from time to time."""
    kept = [line for line in shown.lines if " left " not in line and not re.match("loading |reading ", line)]
    return [re.sub(r" *\d+ s\b", " # s", line) for line in kept]


@pytest.mark.parametrize("columns", WIDTHS)
def test_help_and_bad_usage_fit(terminal: Terminal, columns: int) -> None:
    this = replace(terminal, columns=columns)
    assert max(map(len, this.run("train", "--help").check().lines)) <= max(columns, 50)  # typer goes no lower
    wrong = this.run("train", "toy", "--tusk", "xnli").check(2)
    assert "--tusk" in wrong.last


def test_a_dumb_terminal_gets_lines_and_no_control_characters(terminal: Terminal) -> None:
    shown = replace(terminal, environment={"TERM": "dumb"}).run(*SCORES, "--out", "scores-dumb").check()
    assert "\x1b" not in shown.raw
    assert not re.search(r"\r(?!\n)", shown.raw)
    bars, last = shown.raw.split("\r\n")[:-1]
    assert re.fullmatch(r"stage 1 6/6, .* left", bars)
    assert last.startswith("scores of ")


def test_no_color_takes_the_colours_and_leaves_the_bar(terminal: Terminal) -> None:
    plain = replace(terminal, environment={"NO_COLOR": "1"}).run(*SCORES, "--out", "scores-colourless").check()
    assert CONTROL.search(plain.raw)
    assert not COLOUR.search(plain.raw)
    assert COLOUR.search(terminal.run(*SCORES, "--out", "scores-coloured").check().raw)


def test_an_ascii_terminal_shows_other_characters_as_escapes(terminal: Terminal) -> None:
    shown = replace(terminal, environment=IN_ASCII).run("task", "check", "xnli", "--language", "ru").check()
    assert shown.raw.isascii()
    assert r"\u0412\u043e\u043f\u0440\u043e\u0441" in shown.text


def test_an_ascii_terminal_has_a_bar_of_its_characters(terminal: Terminal) -> None:
    shown = replace(terminal, environment=IN_ASCII).run(*SCORES, "--out", "scores-ascii").check()
    assert shown.raw.isascii()
    assert "\\u" not in shown.text
    assert any("6/6" in line for line in shown.lines)


def test_an_unset_locale_writes_files_in_utf_8(terminal: Terminal) -> None:
    bare = replace(terminal, environment=UNSET_LOCALE)
    assert bare.line("ltprompt task check xnli --language ru --json > check.json").check().raw == ""
    assert "Вопрос" in (terminal.folder / "check.json").read_text(encoding="utf-8")
