from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.toy_grid import toy_record, toy_result, toy_spec, toy_ticket_record

from ltprompt.errors import FileFormatError, InputError
from ltprompt.experiments.folder import GridFolder, read_results
from ltprompt.experiments.records import RunRecord


@pytest.fixture
def folder(tmp_path: Path) -> GridFolder:
    return GridFolder(tmp_path / "grid")


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_everything_has_its_place(folder: GridFolder) -> None:
    found = {
        name: getattr(folder, name).relative_to(folder.root).as_posix()
        for name in ("config", "ledger", "plan", "scores", "tickets", "report")
    }
    assert found == {
        "config": "grid.yaml", "ledger": "ledger.sqlite", "plan": "plan.json", "scores": "scores",
        "tickets": "tickets", "report": "report",
    }  # fmt: skip
    assert folder.run("ab") == folder.root / "runs" / "ab.json"
    assert folder.ticket("en-20") == folder.root / "tickets" / "en-20.safetensors"
    assert folder.ticket_record("en-20.5") == folder.root / "tickets" / "en-20.5.json"


def test_a_record_comes_back_as_it_was_and_equal_records_are_equal_bytes(folder: GridFolder, tmp_path: Path) -> None:
    record = toy_record(3)
    digest = folder.write_run(record)
    text = folder.run(record.spec.id).read_bytes()
    assert digest == hashlib.sha256(text).hexdigest() == folder.run_digest(record.spec.id)
    assert "Nαί" in text.decode()
    again = folder.read_run(record.spec.id)
    assert again == record
    shuffled = toy_result(3).model_copy(update={"languages": dict(reversed(toy_result(3).languages.items()))})
    other = GridFolder(tmp_path / "other")
    assert other.write_run(RunRecord(spec=again.spec, result=shuffled)) == digest


def test_a_record_that_is_no_number_is_refused_and_leaves_nothing(folder: GridFolder) -> None:
    result = toy_result(1).model_copy(update={"losses": (float("nan"),)})
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_run(RunRecord(spec=toy_spec(1), result=result))
    assert not folder.run(toy_spec(1).id).exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data["spec"].update(seed=4), "holds another run's record"),
        (lambda data: data["result"].pop("kept_epoch"), "is damaged: result.kept_epoch is missing; delete"),
        (lambda data: data["result"].update(surplus=1), "is damaged: result.surplus: unknown key; delete"),
        (
            lambda data: data.update(spec="none"),
            "is damaged: spec: expected keys with values, such as {a: b}, found 'none'; delete",
        ),
        (lambda data: data["spec"].update(format=2, surplus=1), "has format 2, this version reads 1; update ltprompt"),
    ],
)
def test_a_changed_record_is_refused_with_the_mend(
    folder: GridFolder, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    run_id = toy_spec(3).id
    folder.write_run(toy_record(3))
    change(folder.run(run_id), edit)
    with pytest.raises(FileFormatError, match=message) as caught:
        folder.read_run(run_id)
    assert str(folder.run(run_id)) in str(caught.value)
    assert "update ltprompt" in str(caught.value) or "delete it and run the grid again" in str(caught.value)


def test_a_truncated_record_and_a_missing_one(folder: GridFolder) -> None:
    run_id = toy_spec(3).id
    assert folder.run_digest(run_id) is None
    with pytest.raises(InputError, match="does not exist; expected the record of a run"):
        folder.read_run(run_id)
    folder.write_run(toy_record(3))
    folder.run(run_id).write_bytes(folder.run(run_id).read_bytes()[:-20])
    with pytest.raises(FileFormatError, match="not valid JSON"):
        folder.read_run(run_id)


def test_results_are_the_same_in_whatever_order_they_were_written(tmp_path: Path) -> None:
    found = []
    for number in range(3):
        folder = GridFolder(tmp_path / str(number))
        seeds, names = list(range(5)), ["en-75", "en-20", "de-20"]
        folder.write_plan("few-shot", ["main", "ratio"], [toy_spec(seed).id for seed in range(7)])
        random.Random(number).shuffle(seeds)
        random.Random(number).shuffle(names)
        for seed in seeds:
            folder.write_run(toy_record(seed))
        for position, name in enumerate(sorted(names)):
            record = toy_ticket_record()
            folder.write_ticket_record(name, record.model_copy(update={"distribution": {"entries": position}}))
        found.append(read_results(folder.root))
    results = found[0]
    assert found[1:] == [results, results]
    assert (results.name, results.layouts, results.planned) == ("few-shot", ("main", "ratio"), 7)
    assert [run.spec.id for run in results.runs] == sorted(toy_spec(seed).id for seed in range(5))
    assert [ticket.distribution["entries"] for ticket in results.tickets] == [0, 1, 2]


def test_results_need_no_ledger_and_leave_out_what_is_no_longer_planned(folder: GridFolder) -> None:
    folder.write_plan("small", [], [toy_spec(0).id])
    folder.write_run(toy_record(0))
    folder.write_run(toy_record(1))
    (folder.root / "runs" / ".left.json.x.part").write_text("half")
    results = read_results(folder.root)
    assert [run.spec.seed for run in results.runs] == [0]
    assert results.tickets == ()
    assert not folder.ledger.exists()


def test_a_folder_without_a_grid(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no grid \(plan.json is not there\)"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data.update(runs=["../../x"]), "is damaged: runs.0"),
        (lambda data: data.pop("name"), "is damaged: name is missing; delete"),
        (lambda data: data.update(format=2, surplus=1), "has format 2, this version reads 1; update ltprompt"),
    ],
)
def test_a_plan_is_checked(folder: GridFolder, edit: Callable[[dict[str, Any]], object], message: str) -> None:
    folder.write_plan("small", ["main"], [toy_spec(0).id])
    change(folder.plan, edit)
    with pytest.raises(FileFormatError, match=message):
        folder.read_plan()


def test_a_damaged_ticket_record_is_refused(folder: GridFolder) -> None:
    folder.write_plan("small", [], [])
    folder.write_ticket_record("en-20", toy_ticket_record())
    change(folder.ticket_record("en-20"), lambda data: data.pop("fingerprint"))
    with pytest.raises(FileFormatError, match=r"en-20.json is damaged: fingerprint"):
        read_results(folder.root)


def test_sweeping_takes_half_written_files_alone(folder: GridFolder) -> None:
    folder.sweep()  # of a folder that is not there yet
    folder.write_run(toy_record(0))
    folder.write_ticket_record("en-20", toy_ticket_record())
    for place in (folder.root, folder.root / "runs", folder.tickets):
        (place / ".file.json.abc.part").write_text("half")
    folder.sweep()
    left = sorted(path.name for path in folder.root.rglob("*") if path.is_file())
    assert left == sorted([f"{toy_spec(0).id}.json", "en-20.json"])
