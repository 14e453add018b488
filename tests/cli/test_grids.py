"""`ltprompt grid` and `ltprompt report`, on a toy grid."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import Result, Run
from helpers.toy_grids import grid_of, make_base, written
from helpers.toys import toy_backbone

from ltprompt.classifier import PromptClassifier
from ltprompt.experiments.grid.schema import grid_names
from ltprompt.experiments.run.driver import Where, plan_grid
from ltprompt.experiments.run.estimate import duration, list_runs, run_seconds, stage_one_seconds

FP32 = ["--dtype", "fp32", "--device", "cpu", "--threads", "1"]
SMALL: dict[str, Any] = {"seeds": [1, 2], "shots": 1, "methods": ["dp", {"method": "ltp", "ratio": 0.3}]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def place(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, with the grid's file beside its data elsewhere."""
    written(base, **SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def one_line(result: Result, status: int = 1) -> str:
    assert result.status == status
    last = result.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in result.err
    return last


def test_ray_starts_before_the_libraries_are_imported() -> None:
    """They take seconds, in which Ray starts and its workers import the same."""
    program = """
import sys
from pathlib import Path
from ltprompt.cli.grids import grid
from ltprompt.experiments.run import ray_start

def ray_ahead(workers: int, device: str) -> None:
    sys.exit(f"{workers} workers, torch is imported: {'torch' in sys.modules}")

ray_start.ray_ahead = ray_ahead
grid("table1", Path("out"), workers=2)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stderr == "2 workers, torch is imported: False\n"


def test_a_dry_run_lists_the_runs_and_writes_nothing(base: Path, place: Path, run: Run) -> None:
    found = run("grid", base / "grid.yaml", "--out", "out", "--dry-run", *FP32)
    assert found.status == 0, found.err
    lines = found.out.splitlines()
    assert len([line for line in lines if "planned" in line]) == 4
    assert any("LTP 30 %" in line and " zero-shot " in line for line in lines)
    assert "4 runs, 0 of them done; the rest takes about " in found.out
    assert "before them stage 1, once, takes about " in found.out
    assert list(place.iterdir()) == []


def test_a_grid_runs_reports_and_is_not_run_again(
    base: Path, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["grid", base / "grid.yaml", "--out", "out", *FP32]
    first = run(*command)
    assert first.status == 0, first.err
    done, times, hint = first.out.splitlines()
    assert (done, hint) == ("4 runs done, 0 failed, 0 left, in out", "next: ltprompt report out")
    assert re.fullmatch(r"median of a run: \d+\.\d s; outside training and evaluation: \d+\.\d\d% of all time", times)
    assert "runs 4/4" in first.err
    shown = run("report", "out", "--html", "page.html")
    assert shown.status == 0, shown.err
    assert shown.out.startswith("toy: 4 of 4 runs finished.\n")
    assert "LTP 30 %" in shown.out
    assert (place / "page.html").is_file()
    assert sorted(path.name for path in Path("out/report").iterdir()) == ["comparisons.csv", "report.csv", "report.tex"]
    elsewhere = run("report", "out", "--out", "elsewhere")
    assert elsewhere.out.partition("written: ")[0] == shown.out.partition("written: ")[0]
    assert Path("elsewhere/report.csv").read_bytes() == Path("out/report/report.csv").read_bytes()
    Path("file").touch()
    for flag, bad in (("--out", "file"), ("--csv", "file/r.csv"), ("--html", "elsewhere")):
        refused = run("report", "out", flag, bad)
        assert (refused.status, refused.out) == (1, "")
        assert refused.err.endswith(f"choose another {flag}\n")
    monkeypatch.setattr(PromptClassifier, "fit", lambda *_, **__: pytest.fail("run again"))
    assert run(*command).status == 0
    again = run(*command[:2], "--out", "out", "--dry-run", *FP32)
    assert "4 runs, 4 of them done; the rest takes about 0 s" in again.out
    assert "stage 1" not in again.out


def test_a_report_packs_a_grid_which_reports_and_goes_on_as_before(base: Path, place: Path, run: Run) -> None:
    command = ["grid", base / "grid.yaml", "--out", "out", *FP32]
    assert run(*command).status == 0
    before = run("report", "out")
    packed = run("report", "out", "--pack")
    assert (packed.status, packed.out) == (0, before.out)
    kept = {path.name for path in Path("out").iterdir()}
    assert kept == {"grid.yaml", "ledger.sqlite", "records.jsonl", "report", "scores", "tickets"}
    assert run("report", "out").out == before.out
    again = run(*command, "--dry-run")
    assert "4 runs, 4 of them done; the rest takes about 0 s" in again.out
    assert run(*command).out.startswith("4 runs done, 0 failed, 0 left, in out\n")
    assert not Path("out/runs").exists(), "nothing was run again"


def test_without_the_data_a_report_is_still_made(base: Path, place: Path, run: Run) -> None:
    moved = shutil.copytree(base, place / "base")
    assert run("grid", moved / "grid.yaml", "--out", "out", *FP32).status == 0
    before = run("report", "out").out
    shutil.rmtree(moved)
    Path("out/ledger.sqlite").unlink()
    assert run("report", "out").out == before


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_scheduler_s_end_say_how_to_go_on(
    base: Path, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    real, calls = PromptClassifier.fit, []

    def fit(self: PromptClassifier, *given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(sent)
        return real(self, *given, **named)

    monkeypatch.setattr(PromptClassifier, "fit", fit)
    command = ["grid", base / "grid.yaml", "--out", "out", *FP32]
    stopped = run(*command)
    assert "2 runs done, 0 failed, 2 left" in stopped.out
    assert "the same command goes on from here" in stopped.err
    assert one_line(stopped, 130).startswith("error: interrupted;")
    assert run("report", "out").out.startswith("toy: 2 of 4 runs finished.\n")
    assert "4 runs done, 0 failed, 0 left" in run(*command).out
    assert len(calls) == 3 + 2


def test_ctrl_c_in_stage_one_says_so_too(base: Path, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("ltprompt.experiments.grid.tickets.find_scores", stop)
    found = run("grid", base / "grid.yaml", "--out", "out", *FP32)
    assert "the same command goes on from here" in found.err
    assert one_line(found, 130).startswith("error: interrupted;")


def test_a_grid_of_tickets_alone_has_an_estimate_too(base: Path, place: Path, run: Run) -> None:
    only = {"methods": None, "shots": None, "seeds": None, "data": None, "tickets": {"ratio": 0.2}}
    path = written(base, "tickets.yaml", **only, epochs=None, lr=None, max_length=None, layouts="figure3")
    found = run("grid", path, "--out", "out", "--dry-run", *FP32)
    assert found.status == 0, found.err
    assert re.search(r"stage 1, once, takes about \d+ s", found.out)
    assert grid_of(base)["scores"]["steps"] == 3


def test_failed_runs_are_named_and_end_with_1(
    base: Path, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(self: PromptClassifier, *given: Any, **named: Any) -> Any:
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(PromptClassifier, "fit", fit)
    found = run("grid", base / "grid.yaml", "--out", "out", *FP32)
    assert found.status == 1
    assert "0 runs done, 4 failed, 0 left, in out" in found.out
    assert found.err.count("failed: RuntimeError: no\n") == 4
    assert "the same command tries the failed runs again" in found.err


def test_paths_of_a_grid_are_seen_from_the_folder_named(base: Path, place: Path, run: Run) -> None:
    alone = shutil.copy(base / "grid.yaml", place / "alone.yaml")
    assert f"{place}/splits does not exist" in one_line(run("grid", alone, "--out", "out", *FP32))
    found = run("grid", alone, "--out", "out", "--base", base, "--dry-run", *FP32)
    assert found.status == 0, found.err


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"methods": ["ltpp", "spp"]}, ["has 2 problems", "did you mean 'ltp'?", "did you mean 'sp'?"]),
        ({"shots": [1, 64]}, ["train.64.jsonl"]),
        ({"shot": 1}, ["shot: unknown key; did you mean 'shots'?"]),
        ({"data": {"train": {"fewshot": "split"}}}, ["split does not exist", "zero-shot runs need test rows"]),
    ],
)
def test_bad_grids_end_with_one_line_and_write_nothing(
    base: Path, place: Path, run: Run, changes: dict[str, Any], messages: list[str]
) -> None:
    bad = written(base, "bad.yaml", **{**SMALL, **changes})
    line = one_line(run("grid", bad, "--out", "out", *FP32))
    for message in messages:
        assert message in line
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["grid", "tabel1", "--out", "out"], "unknown grid 'tabel1'; did you mean 'table1'?"),
        (["grid", "none.yaml", "--out", "out"], "none.yaml does not exist"),
        (["report", "."], ". holds no grid (plan.json is not there); name one that `ltprompt grid` filled"),
        (["report", "none"], "none holds no grid"),
    ],
)
def test_what_is_not_there_is_named(place: Path, run: Run, command: list[str], message: str) -> None:
    assert message in one_line(run(*command))
    assert list(place.iterdir()) == []


def test_every_shipped_grid_is_found_by_its_name_and_says_what_data_it_wants(place: Path, run: Run) -> None:
    for name in grid_names():
        if name.startswith("mini-"):
            line = one_line(run("grid", name, "--out", "out", "--dry-run", *FP32))
            assert line.startswith((f"error: {name} ", f"error: {name}: "))
            assert "does not exist" in line


def test_the_estimate_counts_every_pass(base: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_grid(
        str(base / "grid.yaml"), place / "out", Where("cpu", "fp32", 1), stage_one=lambda: None, say=print
    )  # fmt: skip
    job = plan.planner.jobs(plan.wishes)[0]
    assert run_seconds(job.spec, 0.5) == 0.5 * (2 * (3 * 3 + 3) + 6 + 6)
    backbone = toy_backbone("xlm-roberta")
    layers = sum(parameter.numel() for layer in backbone.layers for parameter in layer.parameters())
    head = 1 + 0.15 * backbone.decoder.weight.numel() / layers
    assert stage_one_seconds(10, 4, 0.5, backbone) == pytest.approx(10 * 4 * 3 * 0.5 * head)
    assert [duration(seconds) for seconds in (5, 300, 7 * 3600)] == ["5 s", "5 min", "7.0 h"]
    monkeypatch.setattr("ltprompt.experiments.run.estimate.seconds_per_text", lambda *_: 0.5)
    found = list_runs(plan)
    assert [row[-1] for row in found.rows] == ["18 s"] * 4
    assert found.summary[0].endswith("takes about 72 s on 1 worker")
