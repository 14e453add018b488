from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.toy_grid import rows, toy_record, toy_spec

from ltprompt.errors import FileFormatError, InputError, OutputError
from ltprompt.experiments.folder import GridFolder
from ltprompt.experiments.records import DataRef
from ltprompt.experiments.run.ledger import Counts, Ledger, Times
from ltprompt.files.artifacts import canonical_json

SPECS = [toy_spec(seed) for seed in range(4)]
IDS = [spec.id for spec in SPECS]
TIMES = Times(100.0, 107.5, 4.0, 3.0, 0.5, "here:1")
HOLD = """
import sys, time
from ltprompt.experiments.run.ledger import Ledger
ledger = Ledger.open(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> GridFolder:
    return GridFolder(tmp_path / "grid")


def finish(ledger: Ledger, folder: GridFolder, seed: int) -> None:
    ledger.started(IDS[seed])
    ledger.finished(IDS[seed], folder.write_run(toy_record(seed)), TIMES)


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


# --- rows


def test_a_run_goes_from_planned_to_done(folder: GridFolder) -> None:
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        assert ledger.counts() == Counts(planned=4, running=0, done=0, failed=0)
        ledger.started(IDS[1])
        assert ledger.counts() == Counts(planned=3, running=1, done=0, failed=0)
        ledger.finished(IDS[1], "d" * 64, TIMES)
        assert ledger.counts() == Counts(planned=3, running=0, done=1, failed=0)
        assert ledger.times() == {(IDS[1], 1): TIMES}
    found = {row.id: row for row in rows(folder)}
    assert list(found) == sorted(IDS)
    row = found[IDS[1]]
    assert (row.spec, row.status, row.attempts, row.error, row.record) == (
        canonical_json(SPECS[1].model_dump(mode="json")), "done", 1, "", "d" * 64,
    )  # fmt: skip


def test_failures_are_counted_and_timed_one_by_one(folder: GridFolder) -> None:
    failing = Times(1.0, 2.0, None, None, None, "here:1")
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        for again, status in ((True, "planned"), (False, "failed")):
            ledger.started(IDS[0])
            ledger.failed(IDS[0], "ValueError: no", failing, again=again)
            row = next(row for row in ledger.rows() if row.id == IDS[0])
            assert (row.status, row.error) == (status, "ValueError: no")
        assert ledger.counts().failed == 1
        ledger.started(IDS[0])
        ledger.finished(IDS[0], "d" * 64, TIMES)
        row = next(row for row in ledger.rows() if row.id == IDS[0])
        assert (row.status, row.attempts, row.error) == ("done", 3, "")
        assert ledger.times() == {(IDS[0], 1): failing, (IDS[0], 2): failing, (IDS[0], 3): TIMES}


def test_what_is_not_running_cannot_end_again(folder: GridFolder) -> None:
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        ledger.started(IDS[0])
        ledger.finished(IDS[0], "d" * 64, TIMES)
        ledger.finished(IDS[0], "e" * 64, TIMES)
        ledger.failed(IDS[0], "late", TIMES, again=False)
        row = next(row for row in ledger.rows() if row.id == IDS[0])
        assert (row.status, row.attempts, row.record, row.error) == ("done", 1, "d" * 64, "")
        assert len(ledger.times()) == 1


def test_runs_in_flight_are_forgotten_one_or_all(folder: GridFolder) -> None:
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        for run_id in IDS[:3]:
            ledger.started(run_id)
        ledger.finished(IDS[0], "d" * 64, TIMES)
        ledger.forget(IDS[1])
        assert ledger.counts() == Counts(planned=2, running=1, done=1, failed=0)
        ledger.forget()
        assert ledger.counts() == Counts(planned=3, running=0, done=1, failed=0)
        assert {row.attempts for row in ledger.rows()} == {0, 1}


def test_registering_again_adds_what_is_new_and_keeps_the_rest(folder: GridFolder) -> None:
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS[:2])
        finish(ledger, folder, 0)
    table = DataRef(name="moved.tsv", sha256="a" * 64, examples=48)
    moved = [toy_spec(seed, backbone="elsewhere", train=table) for seed in range(3)]
    assert [spec.id for spec in moved] == IDS[:3]
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(moved[1:])
        assert ledger.counts() == Counts(planned=2, running=0, done=0, failed=0)  # of the runs of this grid alone
        ledger.register(moved)
        assert ledger.counts() == Counts(planned=2, running=0, done=1, failed=0)
        found = {row.id: row for row in ledger.rows()}
    assert (found[IDS[0]].status, found[IDS[0]].attempts) == ("done", 1)
    assert "elsewhere" not in found[IDS[0]].spec
    assert "elsewhere" in found[IDS[1]].spec
    assert found[IDS[2]].status == "planned"


# --- what is left to run


def test_unfinished_runs_keep_their_order_and_done_ones_are_left_out(folder: GridFolder) -> None:
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        finish(ledger, folder, 2)
        order = [IDS[3], IDS[2], IDS[0], IDS[3]]
        assert ledger.unfinished(order, folder) == [IDS[3], IDS[0]]


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_a_done_run_without_its_record_is_run_again(folder: GridFolder, damage: str) -> None:
    path = folder.run(IDS[0])
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        finish(ledger, folder, 0)
        finish(ledger, folder, 1)
        before = ledger.rows()
        text = path.read_text()
        if damage == "missing":
            path.unlink()
        else:
            path.write_text(text[:-9] if damage == "truncated" else text.replace('"kept_epoch": 1', '"kept_epoch": 2'))
        # Twice: a driver killed right after the first look must not adopt the altered record at the second.
        for _ in range(2):
            assert ledger.unfinished(IDS[:2], folder) == [IDS[0]]
        assert not path.exists()
        finish(ledger, folder, 0)
        assert ledger.rows() == before
        assert path.read_text() == text


def test_runs_of_a_killed_driver_and_failed_ones_are_run_again(folder: GridFolder) -> None:
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        ledger.started(IDS[0])
        ledger.started(IDS[1])
        ledger.failed(IDS[1], "ValueError: no", TIMES, again=False)
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        assert ledger.unfinished(IDS[:2], folder) == IDS[:2]
        assert ledger.counts() == Counts(planned=4, running=0, done=0, failed=0)
        assert next(row for row in ledger.rows() if row.id == IDS[1]).attempts == 1


@pytest.mark.parametrize("started", [False, True])
def test_a_sound_record_is_adopted(folder: GridFolder, started: bool) -> None:
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        if started:
            ledger.started(IDS[0])
        digest = folder.write_run(toy_record(0))
        folder.run(IDS[1]).write_text("{}")
        assert ledger.unfinished(IDS[:2], folder) == [IDS[1]]
        row = next(row for row in ledger.rows() if row.id == IDS[0])
        assert (row.status, row.attempts, row.record) == ("done", 1, digest)


def test_a_new_ledger_takes_all_records_over(folder: GridFolder) -> None:
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        for seed in range(3):
            finish(ledger, folder, seed)
        before = ledger.rows()
    folder.ledger.unlink()
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(reversed(SPECS))
        assert ledger.unfinished(IDS, folder) == [IDS[3]]
        assert ledger.rows() == before


# --- the lock


def test_a_second_driver_is_refused_at_once_with_the_first_ones_name(folder: GridFolder) -> None:
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        with pytest.raises(InputError) as caught:
            Ledger.open(folder.ledger)
        assert str(caught.value) == (
            f"the grid in {folder.root} is being run by process {os.getpid()} on {socket.gethostname()}; "
            "wait for it, stop it, or choose another `out`"
        )
        ledger.started(IDS[0])  # the refused one has done no harm
    with Ledger.open(folder.ledger) as ledger:
        assert sum(row.status == "running" for row in ledger.rows()) == 1


def test_the_lock_keeps_other_processes_out_and_dies_with_its_own(folder: GridFolder) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder.ledger)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "open\n"
            with pytest.raises(InputError, match=f"run by process {child.pid} on "):
                Ledger.open(folder.ledger)
        finally:
            child.send_signal(signal.SIGKILL)
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)


def test_a_ledger_that_was_closed_after_an_error_can_be_opened(folder: GridFolder) -> None:
    def fail() -> None:
        with Ledger.open(folder.ledger) as ledger:
            ledger.register(SPECS)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert len(rows(folder)) == 4


# --- what is no ledger


def test_every_change_reaches_the_disk(folder: GridFolder, tmp_path: Path) -> None:
    """A copy of the file as it stands while the ledger is open is what a killed driver leaves."""
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        ledger.started(IDS[0])
        ledger.finished(IDS[0], "d" * 64, TIMES)
        shutil.copy(folder.ledger, tmp_path / "copy.sqlite")
        with Ledger.open(tmp_path / "copy.sqlite") as copy:
            assert copy.rows() == ledger.rows()
        assert not list(folder.root.glob("*-wal"))


@pytest.mark.parametrize("sound_bytes", [0, 4096, -4096])
def test_a_damaged_ledger_says_that_nothing_is_lost(folder: GridFolder, sound_bytes: int) -> None:
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(toy_spec(seed) for seed in range(50))
    data = folder.ledger.read_bytes()
    sound = data[:sound_bytes]
    folder.ledger.write_bytes(sound + b"\xff" * (len(data) - len(sound)))
    with pytest.raises(FileFormatError, match="is damaged; delete it and start the grid again") as caught:
        Ledger.open(folder.ledger)
    assert str(folder.ledger) in str(caught.value)


def test_a_newer_ledger_is_refused_and_left_alone(folder: GridFolder) -> None:
    rows(folder)
    change(folder.ledger, "PRAGMA user_version = 2")
    before = folder.ledger.read_bytes()
    with pytest.raises(FileFormatError, match="has format 2, this version reads 1; update ltprompt"):
        Ledger.open(folder.ledger)
    assert folder.ledger.read_bytes() == before


def test_another_programs_database_is_refused_and_left_alone(folder: GridFolder) -> None:
    folder.root.mkdir()
    change(folder.ledger, "PRAGMA journal_mode = WAL", "CREATE TABLE notes (text)")
    before = folder.ledger.read_bytes()
    with pytest.raises(FileFormatError, match="is a database, but not a grid's ledger"):
        Ledger.open(folder.ledger)
    assert folder.ledger.read_bytes() == before


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OutputError, match="cannot write"):
        Ledger.open(tmp_path / "file" / "ledger.sqlite")
    (tmp_path / "ledger.sqlite").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        Ledger.open(tmp_path / "ledger.sqlite")


def test_a_full_disk_is_one_clear_line(folder: GridFolder) -> None:
    with Ledger.open(folder.ledger) as ledger:
        ledger._connection.execute("PRAGMA max_page_count = 1")  # the least it has now
        with pytest.raises(OutputError, match=r"cannot write .*full; free some space"):
            ledger.register([toy_spec(seed) for seed in range(200)])
        ledger._connection.execute("PRAGMA max_page_count = 100000")
        assert ledger.rows() == ()
        ledger.register(SPECS)
        assert ledger.counts().planned == 4


# --- packed records


def test_packed_records_are_finished_and_one_that_was_changed_is_run_again(folder: GridFolder) -> None:
    folder.write_plan("small", [], IDS)
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        for seed in range(3):
            finish(ledger, folder, seed)
        before = ledger.rows()
        folder.pack()
        assert ledger.unfinished(IDS, folder) == [IDS[3]]
        assert ledger.rows() == before
        folder.packed.write_text(folder.packed.read_text().replace('"changed_entries":2', '"changed_entries":7'))
        assert ledger.unfinished(IDS, folder) == [IDS[2], IDS[3]]
        assert not folder.has_run(IDS[2])
        assert [folder.has_run(one) for one in IDS[:2]] == [True, True]
        finish(ledger, folder, 2)
        assert ledger.unfinished(IDS, folder) == [IDS[3]]
        folder.pack()
        assert ledger.unfinished(IDS, folder) == [IDS[3]]


def test_a_new_ledger_takes_packed_records_over(folder: GridFolder) -> None:
    folder.write_plan("small", [], IDS)
    digests = [folder.write_run(toy_record(seed)) for seed in range(2)]
    folder.pack()
    with Ledger.open(folder.ledger) as ledger:
        ledger.register(SPECS)
        assert ledger.unfinished(IDS, folder) == IDS[2:]
        assert sorted(row.record for row in ledger.rows() if row.status == "done") == sorted(digests)
