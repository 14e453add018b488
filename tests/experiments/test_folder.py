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
        for name in ("config", "ledger", "plan", "packed", "runs", "scores", "tickets", "report")
    }
    assert found == {
        "config": "grid.yaml", "ledger": "ledger.sqlite", "plan": "plan.json", "packed": "records.jsonl",
        "runs": "runs", "scores": "scores", "tickets": "tickets", "report": "report",
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


@pytest.fixture
def whole(folder: GridFolder) -> GridFolder:
    """A grid of three runs, two of them finished, and a ticket, each in a file of its own."""
    folder.write_plan("small", ["table1"], [toy_spec(seed).id for seed in range(3)])
    for seed in range(2):
        folder.write_run(toy_record(seed))
    folder.write_ticket_record("en-20", toy_ticket_record())
    return folder


def test_a_packed_grid_gives_the_same_results_and_the_digests_of_the_files_it_had(whole: GridFolder) -> None:
    results = read_results(whole.root)
    digests = {seed: whole.run_digest(toy_spec(seed).id) for seed in range(3)}
    whole.ticket("en-20").write_bytes(b"the ticket itself")
    whole.pack()
    assert sorted(path.name for path in whole.root.rglob("*") if path.is_file()) == [
        "en-20.safetensors", "records.jsonl",
    ]  # fmt: skip
    assert not whole.runs.exists()
    assert read_results(whole.root) == results
    assert {seed: whole.run_digest(toy_spec(seed).id) for seed in range(3)} == digests
    assert digests[2] is None
    assert [whole.has_run(toy_spec(seed).id) for seed in range(3)] == [True, True, False]
    assert whole.has_ticket_record("en-20")
    lines = [json.loads(line) for line in whole.packed.read_text().splitlines()]
    assert [sorted(line) for line in lines] == [["plan"], ["id", "run"], ["id", "run"], ["id", "ticket"]]
    # A line gives back its file: written as any JSON file is, it has the bytes that the ledger knows.
    again = json.dumps(lines[1]["run"], indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    seed = lines[1]["run"]["spec"]["seed"]
    assert hashlib.sha256(again.encode()).hexdigest() == digests[seed]


def test_a_packed_grid_grows_and_is_packed_again_to_the_bytes_of_one_packed_at_once(
    whole: GridFolder, tmp_path: Path
) -> None:
    whole.pack()
    before = whole.packed.read_bytes()
    whole.write_plan("small", ["table1"], [toy_spec(seed).id for seed in range(3)])
    assert not whole.plan.exists(), "what is packed is not written again"
    whole.pack()
    assert whole.packed.read_bytes() == before
    whole.write_run(toy_record(2))
    assert len(read_results(whole.root).runs) == 3
    whole.pack()
    other = GridFolder(tmp_path / "other")
    other.write_ticket_record("en-20", toy_ticket_record())
    for seed in (2, 1, 0):
        other.write_run(toy_record(seed))
    other.write_plan("small", ["table1"], [toy_spec(seed).id for seed in range(3)])
    other.pack()
    assert whole.packed.read_bytes() == other.packed.read_bytes()


def test_a_file_of_its_own_wins_over_a_line(whole: GridFolder) -> None:
    whole.pack()
    record = RunRecord(spec=toy_spec(0), result=toy_result(0, shift=0.75))
    digest = whole.write_run(record)
    whole.write_plan("larger", ["table1"], [toy_spec(seed).id for seed in range(4)])
    assert whole.read_run(toy_spec(0).id) == record
    assert whole.run_digest(toy_spec(0).id) == digest
    assert (whole.read_plan().name, read_results(whole.root).planned) == ("larger", 4)
    whole.pack()
    assert whole.read_run(toy_spec(0).id) == record
    assert whole.read_plan().name == "larger"


def test_a_packed_record_is_removed_alone(whole: GridFolder) -> None:
    whole.pack()
    whole.remove_run(toy_spec(0).id)
    assert [run.spec.seed for run in read_results(whole.root).runs] == [1]
    assert whole.run_digest(toy_spec(0).id) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + " ",
        lambda text: text.replace("0.25", "0.250"),
        lambda text: text.replace("0.25", "NaN", 1),
        lambda text: text[:-20],
        lambda text: text.replace('"seed": 1', '"seed": 5'),
    ],
)
def test_what_a_line_could_not_give_back_is_not_packed_and_nothing_is_lost(
    whole: GridFolder, spoil: Callable[[str], str]
) -> None:
    path = whole.run(toy_spec(1).id)
    path.write_text(spoil(path.read_text()))
    before = {path: path.read_bytes() for path in whole.root.rglob("*.json*")}
    with pytest.raises(FileFormatError, match=f"{path.name}.*(run the grid again|make it anew)"):
        whole.pack()
    assert {path: path.read_bytes() for path in whole.root.rglob("*.json*")} == before


def test_a_folder_without_a_grid_is_not_packed(folder: GridFolder) -> None:
    with pytest.raises(InputError, match="holds no grid"):
        folder.pack()
    assert not folder.root.exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: [lines[0], lines[1][:-5]], "line 2: not valid JSON"),
        (lambda lines: [*lines, lines[1]], "line 5: the run .* stands twice"),
        (lambda lines: [*lines, '{"id":"x"}'], "line 5: expected an id and one of plan, run, ticket"),
        (lambda lines: [*lines, '{"id":3,"run":{}}'], "line 5: expected an id and one of plan, run, ticket"),
        (lambda lines: [*lines, '{"id":"x","run":{},"ticket":{}}'], "line 5: expected an id and one of"),
        (lambda lines: [*lines, '{"id":"x","run":{"a":NaN}}'], "line 5: .*JSON compliant"),
        (lambda lines: ["", *lines], "line 1: an empty line"),
    ],
)
def test_a_damaged_pack_names_its_line_and_the_mend(
    whole: GridFolder, edit: Callable[[list[str]], list[str]], message: str
) -> None:
    whole.pack()
    whole.packed.write_text("\n".join(edit(whole.packed.read_text().splitlines())) + "\n")
    with pytest.raises(FileFormatError, match=rf"records\.jsonl, {message}.*copy the file again, or delete the line"):
        read_results(whole.root)


def test_a_changed_line_is_as_bad_as_a_changed_file(whole: GridFolder) -> None:
    digest = whole.run_digest(toy_spec(1).id)
    whole.pack()
    whole.packed.write_text(whole.packed.read_text().replace('"kept_epoch":1', '"kept_epoch":2'))
    assert whole.run_digest(toy_spec(1).id) not in (None, digest)
    whole.packed.write_text(whole.packed.read_text().replace('"kept_epoch"', '"kept_epochs"'))
    with pytest.raises(
        FileFormatError, match=r"records.jsonl \(run [0-9a-f]{64}\) is damaged: result.kept_epoch is missing"
    ):
        read_results(whole.root)
