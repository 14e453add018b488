from __future__ import annotations

import io
import itertools
import re

import pytest
from rich.console import Console

from ltprompt import terminal as progress
from ltprompt.stage1.training import Step
from ltprompt.stage1.watching import stage_one_bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands at its only entry."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_lines_come_every_fifteen_seconds_and_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bar("training", 40, "epoch") as advance:
        for _ in range(40):
            clock[0] += 2
            advance(1, "loss 0.5")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert [re.match(r"training (\d+)/40, ", line)[1] for line in lines] == ["8", "16", "24", "32", "40"]  # type: ignore[index]
    assert lines[0] == "training 8/40, 2.0 s/epoch, loss 0.5, 16 s spent, 64 s left"
    assert lines[-1].endswith("80 s spent, 0 s left")


def test_a_line_before_the_first_unit_has_neither_rate_nor_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bar("runs", 4, "run", first=1) as advance:
        clock[0] += 20
        advance(0, "sp, 4 shots, seed 1: started")
    assert capsys.readouterr().err == "runs 1/4, sp, 4 shots, seed 1: started, 20 s spent\n"


def test_a_live_bar_before_the_first_unit_has_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=screen, force_terminal=True, width=120))
    with progress.bar("runs", 4, "run") as advance:
        advance(0, "sp, 4 shots, seed 1: started")
        assert "/s" not in screen.getvalue()
        assert "s/run" not in screen.getvalue()
    assert "started" in screen.getvalue()


def test_a_fast_rate_is_told_a_second(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("predicting", 100, "example") as advance:
        clock[0] += 4
        advance(100)
    assert capsys.readouterr().err == "predicting 100/100, 25.0 examples/s, 4 s spent, 0 s left\n"


def test_text_in_brackets_is_shown_as_it_is(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("a", 1) as advance:
        clock[0] += 1
        advance(1, "[bold] " + "x" * 200)
    line = capsys.readouterr().err
    assert "[bold] " + "x" * 200 in line
    assert line.count("\n") == 1


def test_a_terminal_gets_a_live_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(progress, "Console", lambda **_: terminal)
    with progress.bar("training", 3, "step") as advance:
        for number in range(3):
            advance(1, f"loss {number}")
    shown = screen.getvalue()
    assert "training" in shown
    assert "3/3" in shown
    assert "loss 2" in shown


def test_stage_one_shows_steps_loss_and_the_held_out_loss(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with stage_one_bar() as watcher:
        watcher.start(2, 4)
        for number, loss in zip((3, 4), itertools.count(5), strict=False):
            clock[0] += 20
            watcher.step(Step(number, loss, 10))
            watcher.evaluation(number, 7.25)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(", ")[0] for line in lines] == ["stage 1 3/4", "stage 1 4/4"]
    assert "loss 5.000" in lines[0]
    assert "held-out" not in lines[0]
    assert "loss 6.000, held-out 7.250 at step 3" in lines[1]


def test_the_rate_of_a_resumed_stage_one_counts_its_own_steps(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with stage_one_bar() as watcher:
        watcher.start(900, 1000)
        for number in range(901, 911):
            clock[0] += 2
            watcher.step(Step(number, 1.0, 10))
    line = capsys.readouterr().err.splitlines()[-1]
    assert "2.0 s/step" in line
    spent, left = re.findall(r"(\d+) s (?:spent|left)", line)
    assert int(left) == pytest.approx(2 * (1000 - 900 - int(spent) / 2), abs=2)


def test_a_phase_says_at_once_what_is_done_and_how_long_it_took(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.phase("loading mini"):
        assert capsys.readouterr().err == "loading mini ...\n"
        clock[0] += 3
    assert capsys.readouterr().err == "loading mini: done, 3 s\n"


def test_a_phase_of_several_units_says_how_many_there_are_and_what_is_waited_for(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.phase("starting 2 workers", 2) as up:
        for done, text in ((0, ""), (0, "waiting"), (0, "waiting"), (1, ""), (1, "")):
            clock[0] += 5
            up(done, text)
    assert capsys.readouterr().err.splitlines() == [
        "starting 2 workers ...",
        "starting 2 workers: 0 of 2, waiting, 10 s",
        "starting 2 workers: 1 of 2, 20 s",
        "starting 2 workers: 2 of 2, 25 s",
    ]


def test_a_phase_that_fails_is_not_said_to_be_done(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), progress.phase("loading mini"):
        raise ValueError("no")
    assert capsys.readouterr().err == "loading mini ...\n"


def test_bars_that_overlap_share_one_display(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=screen, force_terminal=True, width=120))
    with progress.phase("starting 2 workers", 2) as up:
        up()
        with progress.bar("runs", 1, "run") as advance:
            up()
            advance()
            screen.truncate(0)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert re.search(r"starting 2 workers .* 2/2 .*\nruns .* 1/1 ", last)
    with progress.bar("again", 1) as advance:
        advance()
    assert "again" in screen.getvalue()


HEADER = ["layer", "entries", "of ticket", "of parameters", "enrichment"]
ROWS = [["0", "1,500", "75.00%", "40.00%", "1.88"], ["1", "500", "25.00%", "60.00%", "0.42"]]


def test_a_wide_table_lacks_the_columns_before_its_last_and_says_how_many() -> None:
    assert progress.table(HEADER, ROWS, 40).splitlines() == [
        "layer  entries  ...  enrichment",
        "0        1,500  ...        1.88",
        "1          500  ...        0.42",
        "... 2 more columns: a pipe has them all",
    ]


def test_a_table_is_cut_only_where_it_must_be_and_as_little_as_can_be() -> None:
    whole = progress.table(HEADER, ROWS)
    width = max(map(len, whole.splitlines()))
    assert progress.table(HEADER, ROWS, width) == whole
    for narrower in range(22, width):
        *lines, note = progress.table(HEADER, ROWS, narrower).splitlines()
        assert max(map(len, lines)) <= narrower
        kept = len(lines[0].split("  ...")[0].replace("of ", "of").split())
        assert note == f"... {4 - kept} more column{'s' * (kept < 3)}: a pipe has them all"
        missing = sum(len(name) + 2 for name in HEADER[kept : kept + 1])
        assert len(lines[0]) + missing > narrower or kept == 3


def test_the_first_and_the_last_column_are_always_shown() -> None:
    assert progress.table(["name", "n"], [["a" * 50, "7"]], 20) == progress.table(["name", "n"], [["a" * 50, "7"]])
    assert progress.table(["name", "m", "n"], [["a" * 50, "5", "7"]], 20).splitlines()[1] == "a" * 50 + "  ...  7"


def test_standard_output_that_is_no_terminal_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    assert progress.stdout_width() is None
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert progress.stdout_width() == 77
    monkeypatch.setattr("sys.stdout", None)
    assert progress.stdout_width() is None


def test_a_sheet_is_a_table_and_its_note() -> None:
    sheet = progress.Sheet(["name", "n"], [["<a>", "1"]], "one & only")
    assert sheet.text() == "name  n\n<a>   1\none & only"
    assert sheet.html() == (
        "<table><thead><tr><th>name</th><th>n</th></tr></thead>"
        "<tbody><tr><td>&lt;a&gt;</td><td>1</td></tr></tbody></table><p>one &amp; only</p>"
    )
    assert progress.Sheet(["name"], []).html() == "<table><thead><tr><th>name</th></tr></thead><tbody></tbody></table>"
