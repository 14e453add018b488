"""The ledger of a grid: which runs are planned, running, done or failed, in one SQLite file that only the driver opens.

A run is done when its record stands in its file; the ledger's row, with the file's SHA-256, comes second (a packed
record has the digest of that file still). So a driver that is killed anywhere loses at most the runs in flight, and a
lost ledger is made anew from the records.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from ltprompt.errors import FileFormatError, InputError, LtpError, OutputError
from ltprompt.experiments.folder import GridFolder
from ltprompt.experiments.records import RunSpec
from ltprompt.files.artifacts import canonical_json

LEDGER_FORMAT = 1
APPLICATION = 0x4C545031  # "LTP1" in the file's header, so that no other program's database is written into
Status = Literal["planned", "running", "done", "failed"]

_TABLES = (
    """CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        spec TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('planned', 'running', 'done', 'failed')),
        attempts INTEGER NOT NULL,
        error TEXT NOT NULL,
        record TEXT NOT NULL
    )""",
    """CREATE TABLE times (
        run TEXT NOT NULL REFERENCES runs (id),
        attempt INTEGER NOT NULL,
        started REAL NOT NULL,
        finished REAL NOT NULL,
        training REAL,
        evaluation REAL,
        outside REAL,
        worker TEXT NOT NULL,
        PRIMARY KEY (run, attempt)
    )""",
    "CREATE TABLE holder (host TEXT NOT NULL, process INTEGER NOT NULL)",
)


@dataclass(frozen=True)
class Times:
    """When an attempt at a run was made, and where its seconds went.

    started, finished: seconds since 1970, by the worker's clock. training, evaluation, outside: seconds in each, and
    outside both; None where the attempt failed. worker: its host and process.
    """

    started: float
    finished: float
    training: float | None
    evaluation: float | None
    outside: float | None
    worker: str


@dataclass(frozen=True)
class Row:
    """A run in the ledger.

    attempts: those that came to an end, failed or done; an attempt cut off with its driver or worker is none. error: of
    the last attempt, empty where it did not fail. record: SHA-256 of the record's file, empty unless done.
    """

    id: str
    spec: str
    status: Status
    attempts: int
    error: str
    record: str


@dataclass(frozen=True)
class Counts:
    """How many runs of a grid stand where."""

    planned: int
    running: int
    done: int
    failed: int


class Ledger:
    """An open ledger; while it is open no other process can open it, and the lock dies with the process."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: str | Path) -> Ledger:
        """Open a ledger, made where there is none.

        Raises `InputError` where another driver holds it, `FileFormatError` where it is damaged, newer or not a
        ledger, `OutputError` where the file system refuses.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error}") from error
        connection = None
        try:
            connection = sqlite3.connect(path, timeout=0, isolation_level=None)
            _take(path, connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                raise _explained(path, error) from error
            raise
        return cls(path, connection)

    def close(self) -> None:
        """Give the ledger back; the next driver may open it."""
        try:
            with self._transaction():
                self._connection.execute("DELETE FROM holder")
        finally:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def register(self, specs: Iterable[RunSpec]) -> None:
        """Add the runs that are new; those that are there keep their rows.

        Runs that are not yet done take the names of the new spec, which are no part of their identity.
        """
        rows = {spec.id: canonical_json(spec.model_dump(mode="json")) for spec in specs}
        with self._transaction():
            self._connection.executemany(
                "INSERT INTO runs VALUES (?, ?, 'planned', 0, '', '') "
                "ON CONFLICT (id) DO UPDATE SET spec = excluded.spec WHERE status != 'done'",
                rows.items(),
            )
            self._connection.executemany("INSERT OR IGNORE INTO registered VALUES (?)", [(run_id,) for run_id in rows])

    def unfinished(self, ids: Sequence[str], folder: GridFolder) -> list[str]:
        """Return those of the registered runs that are to be run, in their order, and mend their rows.

        A run is finished where its record's file is the one in the ledger. A sound record that the ledger does not know
        is adopted: its driver was killed before the row was written, or the ledger is new. A done run without its
        record, or with a damaged one, which is deleted, is planned again; so is a failed run, and one that a killed
        driver left running.
        """
        ids = list(dict.fromkeys(ids))
        rows = {row.id: row for row in self.rows()}
        with self._transaction():
            return [run_id for run_id in ids if not self._settle(rows[run_id], folder)]

    def started(self, run_id: str) -> None:
        """Write that a run has begun."""
        with self._transaction():
            self._connection.execute("UPDATE runs SET status = 'running' WHERE id = ?", (run_id,))

    def finished(self, run_id: str, record: str, times: Times) -> None:
        """Write that a running run is done. record: SHA-256 of its record's file, which stands already."""
        self._end(run_id, "done", "", record, times)

    def failed(self, run_id: str, error: str, times: Times, *, again: bool) -> None:
        """Write that an attempt at a running run failed, with its error. again: whether it is tried once more."""
        self._end(run_id, "planned" if again else "failed", error, "", times)

    def forget(self, run_id: str | None = None) -> None:
        """Plan a run in flight again, as if it had never begun; all that are in flight where none is named."""
        with self._transaction():
            self._connection.execute(
                "UPDATE runs SET status = 'planned' WHERE status = 'running' AND id = coalesce(?, id)", (run_id,)
            )

    def counts(self) -> Counts:
        """Return how many of the runs registered since the ledger was opened stand where."""
        found = dict(
            self._connection.execute("SELECT status, COUNT(*) FROM registered JOIN runs USING (id) GROUP BY status")
        )
        return Counts(**{field.name: found.get(field.name, 0) for field in fields(Counts)})

    def rows(self) -> tuple[Row, ...]:
        """Return all runs, ascending by id, with those of earlier grids in this folder."""
        found = self._connection.execute("SELECT id, spec, status, attempts, error, record FROM runs ORDER BY id")
        return tuple(Row(*row) for row in found)

    def times(self) -> dict[tuple[str, int], Times]:
        """Return when each attempt was made, by run and number of the attempt from 1; adopted records have none."""
        found = self._connection.execute(
            "SELECT run, attempt, started, finished, training, evaluation, outside, worker FROM times ORDER BY 1, 2"
        )
        return {(run_id, attempt): Times(*rest) for run_id, attempt, *rest in found}

    def _settle(self, row: Row, folder: GridFolder) -> bool:
        """Bring one row into line with its record's file and return whether the run is finished."""
        digest = folder.run_digest(row.id)
        if row.status == "done" and digest == row.record:
            return True
        if row.status == "done":
            # The file goes first: a driver killed here must not find it and take it for a record to adopt.
            folder.remove_run(row.id)
            self._connection.execute(
                "UPDATE runs SET status = 'planned', attempts = 0, record = '' WHERE id = ?", (row.id,)
            )
        elif digest is not None and _is_sound(row.id, folder):
            self._connection.execute(
                "UPDATE runs SET status = 'done', attempts = attempts + 1, error = '', record = ? WHERE id = ?",
                (digest, row.id),
            )
            return True
        else:
            self._connection.execute("UPDATE runs SET status = 'planned' WHERE id = ?", (row.id,))
        return False

    def _end(self, run_id: str, status: Status, error: str, record: str, times: Times) -> None:
        """Write how an attempt ended, once: a run that is not running has been written already."""
        with self._transaction():
            changed = self._connection.execute(
                "UPDATE runs SET status = ?, attempts = attempts + 1, error = ?, record = ? "
                "WHERE id = ? AND status = 'running'",
                (status, error, record, run_id),
            )
            if changed.rowcount:
                self._connection.execute(
                    "INSERT OR REPLACE INTO times SELECT id, attempts, ?, ?, ?, ?, ?, ? FROM runs WHERE id = ?",
                    (*astuple(times), run_id),
                )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all of a block or nothing of it, flushed to the disk."""
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.Error as error:
            raise _explained(self.path, error) from error


def _take(path: Path, connection: sqlite3.Connection) -> None:
    """Lock the file for as long as the connection is open, check it, and write down who holds it."""
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    with connection:
        connection.execute("BEGIN EXCLUSIVE")
        # Only now, with the lock in hand: set before, two drivers that start together would refuse each other.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        _check(path, connection)
        connection.execute("DELETE FROM holder")
        connection.execute("INSERT INTO holder VALUES (?, ?)", (socket.gethostname(), os.getpid()))
    connection.execute("CREATE TEMP TABLE registered (id TEXT PRIMARY KEY)")


def _check(path: Path, connection: sqlite3.Connection) -> None:
    """Check the file's health, kind and format; make the tables in an empty one."""
    if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
        raise _damaged(path)
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        for statement in (
            *_TABLES, f"PRAGMA application_id = {APPLICATION}", f"PRAGMA user_version = {LEDGER_FORMAT}",
        ):  # fmt: skip
            connection.execute(statement)
    elif application != APPLICATION:
        raise FileFormatError(f"{path} is a database, but not a grid's ledger; choose another `out`")
    elif version > LEDGER_FORMAT:
        raise FileFormatError(f"{path} has format {version}, this version reads {LEDGER_FORMAT}; update ltprompt")


def _is_sound(run_id: str, folder: GridFolder) -> bool:
    try:
        folder.read_run(run_id)
    except (FileFormatError, OSError):
        return False
    return True


def _explained(path: Path, error: sqlite3.Error) -> LtpError:
    """Return what an error of SQLite means to a user."""
    primary = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return InputError(
            f"the grid in {path.parent} is being run by {_holder(path)}; wait for it, stop it, or choose another `out`"
        )
    if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return _damaged(path)
    return OutputError(f"cannot write {path}: {error}; free some space, or choose an `out` that can be written")


def _damaged(path: Path) -> FileFormatError:
    return FileFormatError(
        f"{path} is damaged; delete it and start the grid again: finished runs are kept beside it and not run again"
    )


def _holder(path: Path) -> str:
    """Return who has locked a ledger, read past the lock; it may be unknown for the moment in which it is opened."""
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)
        try:
            found = connection.execute("SELECT host, process FROM holder").fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        found = None
    return "another process" if found is None else f"process {found[1]} on {found[0]}"
