from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.toy_grid import (
    ASSETS,
    ToyWorker,
    calls,
    record_bytes,
    rows,
    toy_jobs,
    toy_record,
    toy_result,
    toy_spec,
)

from ltprompt.errors import InputError, OutputError
from ltprompt.experiments.folder import GridFolder, read_results
from ltprompt.experiments.records import Job, RunSpec
from ltprompt.experiments.run.ledger import Counts, Ledger
from ltprompt.experiments.run.local import OnEvent, Outcome, Summary, Worker, attempt, execute

SIZE = 5
# Runs the toy grid in a folder; the process kills itself in run K, or between the record and the row of run K.
CHILD = """
import os, signal, sys
from pathlib import Path
from helpers.toy_grid import ASSETS, ToyWorker, toy_jobs
from ltprompt.experiments.run.local import execute
from ltprompt.experiments.folder import GridFolder
from ltprompt.experiments.run.ledger import Ledger

root, seed, where, size = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
folder = GridFolder(root / "grid")
worker = ToyWorker(root / "marks", dies=seed if where == "run" else None)
if where == "commit":
    write = GridFolder.write_run
    def write_and_die(self, record):
        digest = write(self, record)
        if record.spec.seed == seed:
            (self.root / "runs" / ".half.json.x.part").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        return digest
    GridFolder.write_run = write_and_die
with Ledger.open(folder.ledger) as ledger:
    execute(toy_jobs(size), lambda: worker, assets=ASSETS, ledger=ledger, folder=folder)
"""


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture
def folder(tmp_path: Path) -> GridFolder:
    return GridFolder(tmp_path / "grid")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[object, ...], dict[str, bytes]]:
    """The rows and the record files of a grid that nothing interrupted."""
    root = tmp_path_factory.mktemp("whole")
    (root / "marks").mkdir()
    folder = GridFolder(root / "grid")
    run(folder, ToyWorker(root / "marks"))
    return rows(folder), record_bytes(folder)


def run(folder: GridFolder, worker: Worker, jobs: list[Job] | None = None, **settings: Any) -> Summary:
    with Ledger.open(folder.ledger) as ledger:
        return execute(
            toy_jobs(SIZE) if jobs is None else jobs, lambda: worker, assets=ASSETS, ledger=ledger, folder=folder,
            **settings,
        )  # fmt: skip


def heard(events: list[tuple[str, int, Counts]]) -> OnEvent:
    return lambda kind, spec, counts: events.append((kind, spec.seed, counts))


# --- what an undisturbed grid does


def test_every_run_is_made_once_and_recorded(folder: GridFolder, marks: Path) -> None:
    summary = run(folder, ToyWorker(marks))
    assert summary == Summary(Counts(0, 0, SIZE, 0), {}, interrupted=False)
    folder.write_plan("toy", [], [job.spec.id for job in toy_jobs(SIZE)])
    expected = sorted((toy_record(seed) for seed in range(SIZE)), key=lambda record: record.spec.id)
    assert read_results(folder.root).runs == tuple(expected)
    assert [calls(marks, seed) for seed in range(SIZE)] == [1] * SIZE


def test_what_is_done_is_never_run_again_and_needs_no_worker(folder: GridFolder, marks: Path) -> None:
    run(folder, ToyWorker(marks), toy_jobs(3))

    def make_none() -> Worker:
        raise AssertionError("a worker was made for nothing")

    with Ledger.open(folder.ledger) as ledger:
        assert execute(toy_jobs(3), make_none, assets={}, ledger=ledger, folder=folder).counts.done == 3
    run(folder, ToyWorker(marks))
    assert [calls(marks, seed) for seed in range(SIZE)] == [1] * SIZE


def test_jobs_of_equal_specs_are_one(folder: GridFolder, marks: Path) -> None:
    assert run(folder, ToyWorker(marks), toy_jobs(2) + toy_jobs(2)).counts == Counts(0, 0, 2, 0)
    assert calls(marks, 0) == 1


def test_events_come_with_counts_that_add_up(folder: GridFolder, marks: Path) -> None:
    events: list[tuple[str, int, Counts]] = []
    run(folder, ToyWorker(marks), toy_jobs(1))
    run(folder, ToyWorker(marks, fails=1), toy_jobs(3), on_event=heard(events))
    assert events == [
        ("started", 1, Counts(planned=1, running=1, done=1, failed=0)),
        ("retried", 1, Counts(planned=2, running=0, done=1, failed=0)),
        ("started", 1, Counts(planned=1, running=1, done=1, failed=0)),
        ("failed", 1, Counts(planned=1, running=0, done=1, failed=1)),
        ("started", 2, Counts(planned=0, running=1, done=1, failed=1)),
        ("finished", 2, Counts(planned=0, running=0, done=2, failed=1)),
    ]


def test_seconds_are_told_apart() -> None:
    class Slow:
        def run(self, spec: RunSpec, assets: object) -> Outcome:
            time.sleep(0.05)
            return Outcome(toy_result(1), 0.02, 0.01)

    times = attempt(Slow(), toy_spec(1), {}).times
    assert times.training == 0.02
    assert times.evaluation == 0.01
    assert times.outside == pytest.approx(times.finished - times.started - 0.03, abs=1e-5)
    assert times.outside is not None
    assert times.outside > 0.019


# --- failures


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_a_failing_run_is_tried_again_and_left_as_failed(folder: GridFolder, marks: Path, retries: int) -> None:
    summary = run(folder, ToyWorker(marks, fails=2), retries=retries)
    assert summary.counts == Counts(planned=0, running=0, done=SIZE - 1, failed=1)
    assert calls(marks, 2) == retries + 1
    [(run_id, error)] = summary.failures.items()
    assert run_id == toy_spec(2).id
    assert error.startswith("ValueError: run 2 cannot go on\n")
    assert "in _strike" in error
    assert not folder.run(run_id).exists()
    with Ledger.open(folder.ledger) as ledger:
        row = next(row for row in ledger.rows() if row.id == run_id)
        assert (row.status, row.attempts, row.error) == ("failed", retries + 1, error)
        assert [times.training for (failed, _), times in ledger.times().items() if failed == run_id] == [None] * (
            retries + 1
        )


def test_a_second_start_tries_failed_runs_alone(
    folder: GridFolder, marks: Path, whole: tuple[Any, dict[str, bytes]]
) -> None:
    run(folder, ToyWorker(marks, fails=2))
    summary = run(folder, ToyWorker(marks))
    assert summary == Summary(Counts(0, 0, SIZE, 0), {}, interrupted=False)
    assert [calls(marks, seed) for seed in range(SIZE)] == [1, 1, 3, 1, 1]
    # Where a run failed its attempts differ, and nothing else.
    assert [replace(row, attempts=1) for row in rows(folder)] == list(whole[0])  # type: ignore[type-var]
    assert record_bytes(folder) == whole[1]


def test_a_run_that_fails_once_is_done_at_the_second_attempt(folder: GridFolder, marks: Path) -> None:
    assert run(folder, ToyWorker(marks, fails=0, times=1)).failures == {}
    assert calls(marks, 0) == 2


def test_a_result_that_cannot_be_written_as_json_is_the_runs_failure(folder: GridFolder) -> None:
    class Diverging:
        def run(self, spec: RunSpec, assets: object) -> Outcome:
            shift = float("nan") if spec.seed == 1 else 0.25
            return Outcome(toy_result(spec.seed, shift), 0.0, 0.0)

    summary = run(folder, Diverging(), toy_jobs(3))
    assert summary.counts == Counts(planned=0, running=0, done=2, failed=1)
    assert "not JSON compliant" in summary.failures[toy_spec(1).id]


def test_a_disk_that_is_full_stops_the_grid_and_the_run_is_made_again(
    folder: GridFolder, marks: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[Any, dict[str, bytes]]
) -> None:
    def full(*_: object) -> str:
        raise OutputError("cannot write: no space left on the disk")

    with monkeypatch.context() as patch:
        patch.setattr(GridFolder, "write_run", full)
        with pytest.raises(OutputError, match="no space left"):
            run(folder, ToyWorker(marks))
    run(folder, ToyWorker(marks))
    assert (rows(folder), record_bytes(folder)) == whole
    assert calls(marks, 0) == 2


def test_what_make_worker_raises_is_no_runs_failure(folder: GridFolder) -> None:
    def make() -> Worker:
        raise InputError("no such backbone")

    with Ledger.open(folder.ledger) as ledger:
        with pytest.raises(InputError, match="no such backbone"):
            execute(toy_jobs(2), make, assets=ASSETS, ledger=ledger, folder=folder)
        assert ledger.counts() == Counts(planned=2, running=0, done=0, failed=0)


def test_negative_retries_are_refused(folder: GridFolder, marks: Path) -> None:
    with pytest.raises(InputError, match="retries cannot be -1; give 0 or more"):
        run(folder, ToyWorker(marks), retries=-1)


# --- interruptions


@pytest.mark.parametrize("seed", range(SIZE))
def test_an_interrupted_grid_goes_on_to_the_same_end(
    folder: GridFolder, marks: Path, seed: int, whole: tuple[Any, dict[str, bytes]]
) -> None:
    summary = run(folder, ToyWorker(marks, interrupts=seed))
    assert summary == Summary(Counts(SIZE - seed, 0, seed, 0), {}, interrupted=True)
    assert len(list(folder.root.glob("runs/*"))) == seed
    run(folder, ToyWorker(marks), random.Random(seed).sample(toy_jobs(SIZE), SIZE))
    assert (rows(folder), record_bytes(folder)) == whole
    assert [calls(marks, each) for each in range(SIZE)] == [1 + (each == seed) for each in range(SIZE)]


@pytest.mark.parametrize("number", range(2 * SIZE))
def test_an_interrupt_at_any_event_loses_nothing(
    folder: GridFolder, marks: Path, number: int, whole: tuple[Any, dict[str, bytes]]
) -> None:
    events = 0

    def interrupt(kind: str, spec: RunSpec, counts: Counts) -> None:
        nonlocal events
        events += 1
        if events == number + 1:
            raise KeyboardInterrupt

    summary = run(folder, ToyWorker(marks), on_event=interrupt)
    assert (summary.interrupted, summary.counts.done) == (True, (number + 1) // 2)
    run(folder, ToyWorker(marks))
    assert (rows(folder), record_bytes(folder)) == whole
    assert sum(calls(marks, seed) for seed in range(SIZE)) == SIZE


def test_an_interrupt_while_the_worker_is_made(folder: GridFolder) -> None:
    def make() -> Worker:
        raise KeyboardInterrupt

    with Ledger.open(folder.ledger) as ledger:
        summary = execute(toy_jobs(2), make, assets=ASSETS, ledger=ledger, folder=folder)
    assert summary == Summary(Counts(2, 0, 0, 0), {}, interrupted=True)


@pytest.mark.parametrize("where", ["run", "commit"])
def test_a_killed_driver_goes_on_to_the_same_end(
    folder: GridFolder, marks: Path, where: str, whole: tuple[Any, dict[str, bytes]]
) -> None:
    seed = random.Random(where).randrange(1, SIZE)
    arguments = [str(marks.parent), str(seed), where, str(SIZE)]
    child = subprocess.run([sys.executable, "-c", CHILD, *arguments], cwd=Path(__file__).parents[2], check=False)
    assert child.returncode == -signal.SIGKILL
    events: list[tuple[str, int, Counts]] = []
    run(folder, ToyWorker(marks), on_event=heard(events))
    assert (rows(folder), record_bytes(folder)) == whole  # nor is a half-written file left
    # A record without its row is adopted, not run again; what was done before is left alone.
    again = [each for kind, each, _ in events if kind == "started"]
    assert again == list(range(seed if where == "run" else seed + 1, SIZE))


def test_records_are_plain_json_without_times(folder: GridFolder, marks: Path) -> None:
    run(folder, ToyWorker(marks), toy_jobs(1))
    data = json.loads(folder.run(toy_spec(0).id).read_text())
    assert data == json.loads(json.dumps(toy_record(0).model_dump(mode="json")))
