"""The results in docs/results: their runs are still those that this version would ask for, so that they go on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ltprompt.classifier import PromptClassifier
from ltprompt.experiments.folder import GridFolder, read_results
from ltprompt.experiments.report.report import write_report
from ltprompt.experiments.run.driver import Where, plan_grid, run_grid, unfinished
from ltprompt.experiments.run.ledger import Ledger
from ltprompt.experiments.run.local import OnEvent
from ltprompt.stage2.measures import Measures

RESULTS = Path(__file__).parents[2] / "docs" / "results"
# Number of planned runs, and the SHA-256 over their ids one after the other: what they were when they were made.
PLANNED = {
    "mini-figure2a": (12, "4dd730441d5115dce11aa069dbefcbb3dff008f890995f5fbc1f4206d69305f6"),
    "mini-figure2b": (10, "5877009d1f2b6212bd6bb0385e1f322e795aed1c25cea27453699c646cb70aa8"),
    "mini-figure3": (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    "mini-table1": (84, "3ec2fcec0d84d6ff447ff59b7bad7ebf3529889e8458bfd984efc15ffdf41490"),
    "mini-table2": (66, "27e4f97d5cb0d8620a9621b2a42cc4b0b650d8bcb33f6cbc05007dad87199032"),
}
HERE = Where("cpu", "fp32", 1)


@contextmanager
def silent(total: int, first: int) -> Iterator[OnEvent]:
    yield lambda kind, spec, counts: None


@pytest.fixture(params=PLANNED)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> GridFolder:
    """A copy of a shipped grid."""
    return GridFolder(Path(shutil.copytree(RESULTS / request.param, tmp_path / request.param)))


def test_every_shipped_result_is_known_here() -> None:
    assert sorted(path.name for path in RESULTS.iterdir()) == sorted(PLANNED)


def test_the_ids_are_those_that_were_planned_and_follow_from_the_stored_runs(folder: GridFolder) -> None:
    runs, results = folder.read_plan().runs, read_results(folder.root)
    assert (len(runs), hashlib.sha256("".join(runs).encode()).hexdigest()) == PLANNED[folder.root.name]
    # `read_run` refuses a record whose id, computed anew from what it stores, is not the one that it is stored by.
    assert {record.spec.id for record in results.runs} == {one for one in runs if folder.has_run(one)}


def test_the_stored_macro_f1_is_the_mean_over_all_classes_to_the_last_bit(folder: GridFolder) -> None:
    for record in read_results(folder.root).runs:
        for found in record.result.languages.values():
            assert Measures(0, 0.0, 0.0, found.confusion).macro_f1_of_all == found.macro_f1


def test_the_ledger_has_the_digest_of_every_record_and_nothing_finished_is_left_to_do(folder: GridFolder) -> None:
    runs = folder.read_plan().runs
    finished = {one: folder.run_digest(one) for one in runs if folder.has_run(one)}
    with Ledger.open(folder.ledger) as ledger:
        before = ledger.rows()
        assert {row.id: row.record for row in before if row.status == "done"} == finished
        assert ledger.unfinished(runs, folder) == [one for one in runs if one not in finished]
        assert ledger.rows() == before


def test_the_report_is_that_of_the_records(folder: GridFolder, tmp_path: Path) -> None:
    write_report(read_results(folder.root), tmp_path / "report")
    assert (tmp_path / "report" / "report.csv").read_bytes() == (folder.report / "report.csv").read_bytes()


@pytest.mark.real
def test_a_grid_planned_anew_asks_for_the_same_runs_and_makes_none_again(
    folder: GridFolder, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PromptClassifier, "fit", lambda *_, **__: pytest.fail("made again"))
    monkeypatch.setattr("ltprompt.experiments.grid.tickets.find_scores", lambda *_, **__: pytest.fail("made again"))
    plan = plan_grid(str(folder.config), folder.root, HERE, base=shared / "data", stage_one=lambda: None, say=print)
    jobs = plan.planner.jobs(plan.wishes)
    before = folder.read_plan()
    assert tuple(job.spec.id for job in jobs) == before.runs
    left = [one for one in before.runs if not folder.has_run(one)]
    with Ledger.open(folder.ledger) as ledger:
        assert [job.spec.id for job in unfinished(jobs, ledger, folder)] == left
    if not left:
        packed = folder.packed.read_bytes()
        assert run_grid(plan, HERE, on_event=silent).summary.counts.done == len(jobs)
        assert folder.packed.read_bytes() == packed
        assert not folder.plan.exists()
        assert not folder.runs.exists()
        assert not folder.tickets.exists()
