"""What is where in a grid's output folder, and how records are written and read there.

Everything a report needs stands in plain JSON: no ledger, no order of running and no time has a part in it. Plan and
records have a file each, or, once a grid is packed, a line each in one file. What has both is what its own file says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from ltprompt.errors import FileFormatError, InputError, explain
from ltprompt.experiments.packed import Key, Kind, read_packed, write_packed
from ltprompt.experiments.records import RECORD_FORMAT, Results, RunRecord, TicketRecord
from ltprompt.files.artifacts import (
    GRID_FILE,
    GRID_LEDGER,
    GRID_PACKED,
    GRID_PLAN,
    GRID_REPORT,
    GRID_RUNS,
    GRID_SCORES,
    GRID_TICKETS,
    json_text,
    read_json,
    sha256,
    write_json,
)
from ltprompt.settings import Frozen

PLAN_FORMAT = 1
AGAIN = "delete it and run the grid again, which makes only what is missing"

RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Model = TypeVar("Model", bound=BaseModel)


class Plan(Frozen):
    """What a grid is to run: its name, the tables and figures it is for, and the ids of its runs in order."""

    format: int = PLAN_FORMAT
    name: str
    layouts: tuple[str, ...]
    runs: tuple[RunId, ...]


@dataclass(frozen=True)
class GridFolder:
    """A grid's output folder.

    root: the folder; it is made when the first file is written. Equal contents are written as equal bytes.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The grid's own copy of its configuration."""
        return self.root / GRID_FILE

    @property
    def ledger(self) -> Path:
        """The driver's SQLite file."""
        return self.root / GRID_LEDGER

    @property
    def plan(self) -> Path:
        """The file of the grid's name, layouts and runs."""
        return self.root / GRID_PLAN

    @property
    def packed(self) -> Path:
        """The file of a packed grid's plan and records."""
        return self.root / GRID_PACKED

    @property
    def runs(self) -> Path:
        """The folder of the records of runs that are not packed."""
        return self.root / GRID_RUNS

    @property
    def scores(self) -> Path:
        """The folder of stage 1's scores."""
        return self.root / GRID_SCORES

    @property
    def tickets(self) -> Path:
        """The folder of tickets and their records."""
        return self.root / GRID_TICKETS

    @property
    def report(self) -> Path:
        """The folder of tables and figures."""
        return self.root / GRID_REPORT

    def run(self, run_id: str) -> Path:
        """Return where a run's record stands once the run is finished."""
        return self.runs / f"{run_id}.json"

    def ticket(self, name: str) -> Path:
        """Return where the ticket called `name` stands."""
        return self.tickets / f"{name}.safetensors"

    def ticket_record(self, name: str) -> Path:
        """Return where the record of the ticket called `name` stands, beside the ticket."""
        return self.tickets / f"{name}.json"

    def write_plan(self, name: str, layouts: Sequence[str], runs: Sequence[str]) -> None:
        """Write the grid's name, the layouts it is for and the ids of its runs, unless that is what is packed."""
        data = Plan(name=name, layouts=tuple(layouts), runs=tuple(runs)).model_dump(mode="json")
        if self.plan.is_file() or read_packed(self.packed).get(("plan", "")) != data:
            write_json(self.plan, data)

    def read_plan(self) -> Plan:
        """Read what `write_plan` wrote.

        Raises `InputError` where no grid is in the folder, `FileFormatError` where its plan is damaged or newer.
        """
        if not self._has(self.plan, "plan"):
            raise InputError(
                f"{self.root} holds no grid ({GRID_PLAN} is not there); name one that `ltprompt grid` filled"
            )
        where, data = self._read(self.plan, "plan", "", "the plan of a grid")
        _check_format(where, data.get("format"), PLAN_FORMAT)
        return _parsed(where, data, Plan)

    def write_run(self, record: RunRecord) -> str:
        """Write a finished run's record and return its digest. Raises `ValueError` for NaN in it."""
        write_json(self.run(record.spec.id), record.model_dump(mode="json"))
        digest = self.run_digest(record.spec.id)
        assert digest is not None
        return digest

    def read_run(self, run_id: str) -> RunRecord:
        """Read a finished run's record.

        Raises `InputError` where it is missing, `FileFormatError` where it is damaged, newer or another run's.
        """
        where, data = self._read(self.run(run_id), "run", run_id, "the record of a run")
        spec = data.get("spec")
        _check_format(where, spec.get("format") if isinstance(spec, dict) else RECORD_FORMAT, RECORD_FORMAT)
        record = _parsed(where, data, RunRecord)
        if record.spec.id != run_id:
            raise FileFormatError(f"{where} holds another run's record ({record.spec.id[:12]}); {AGAIN}")
        return record

    def run_digest(self, run_id: str) -> str | None:
        """Return the SHA-256 of a run's record as it stands in a file of its own, None where there is none.

        A packed record has the digest of the file that it was packed from, or would have been.
        """
        path = self.run(run_id)
        if path.is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()
        packed = read_packed(self.packed).get(("run", run_id))
        return None if packed is None else sha256(json_text(packed))

    def has_run(self, run_id: str) -> bool:
        """Return whether a run's record is there."""
        return self._has(self.run(run_id), "run", run_id)

    def remove_run(self, run_id: str) -> None:
        """Delete a run's record, which is not what was recorded."""
        packed = read_packed(self.packed)
        if ("run", run_id) in packed:
            write_packed(self.packed, {key: data for key, data in packed.items() if key != ("run", run_id)})
        self.run(run_id).unlink(missing_ok=True)

    def write_ticket_record(self, name: str, record: TicketRecord) -> None:
        """Write the record of the ticket called `name`."""
        write_json(self.ticket_record(name), record.model_dump(mode="json"))

    def read_ticket_record(self, name: str) -> TicketRecord:
        """Read a ticket's record. Raises `InputError` where it is missing, `FileFormatError` where it is damaged."""
        return _parsed(*self._read(self.ticket_record(name), "ticket", name, "the record of a ticket"), TicketRecord)

    def has_ticket_record(self, name: str) -> bool:
        """Return whether the record of the ticket called `name` is there."""
        return self._has(self.ticket_record(name), "ticket", name)

    def ticket_names(self) -> list[str]:
        """Return the names of all tickets with a record, sorted."""
        packed = {name for kind, name in read_packed(self.packed) if kind == "ticket"}
        return sorted(packed.union(path.stem for path in self.tickets.glob("*.json")))

    def pack(self) -> None:
        """Put plan and records into the one file of JSON lines and delete theirs; for the one who may write here.

        A packed grid is read, resumed and packed again like another. Raises `InputError` where there is no grid, and
        `FileFormatError` for a file that is damaged, or that a line could not give back byte for byte.
        """
        self.read_plan()
        own: dict[Key, Path] = {("plan", ""): self.plan} if self.plan.is_file() else {}
        own |= {("run", path.stem): path for path in self.runs.glob("*.json")}
        own |= {("ticket", path.stem): path for path in self.tickets.glob("*.json")}
        write_packed(
            self.packed, {**read_packed(self.packed), **{key: self._checked(*key, path) for key, path in own.items()}}
        )
        for path in own.values():
            path.unlink()
        for folder in (self.runs, self.tickets):
            with suppress(OSError):  # it is not empty, or not there
                folder.rmdir()

    def sweep(self) -> None:
        """Delete the half-written files of killed drivers; for the one driver that may write here."""
        for folder in (self.root, self.runs, self.tickets):
            for left in folder.glob(".*.part"):
                if left.is_file():
                    left.unlink(missing_ok=True)

    def _checked(self, kind: Kind, name: str, path: Path) -> dict[str, Any]:
        """Return what a file of its own holds. Raises `FileFormatError` where a line could not give its bytes back."""
        if kind == "run":
            self.read_run(name)
        elif kind == "ticket":
            self.read_ticket_record(name)
        data = read_json(path, f"the record of a {kind}")
        try:
            same = json_text(data).encode() == path.read_bytes()
        except ValueError:  # a number that is none
            same = False
        if not same:
            raise FileFormatError(f"{path} is not as it was written, so a line cannot hold it; {AGAIN}")
        return data

    def _has(self, path: Path, kind: Kind, name: str = "") -> bool:
        return path.is_file() or (kind, name) in read_packed(self.packed)

    def _read(self, path: Path, kind: Kind, name: str, what: str) -> tuple[str, Mapping[str, Any]]:
        """Return where a plan or record stands, for messages, and what it holds."""
        packed = read_packed(self.packed).get((kind, name))
        if packed is None or path.is_file():
            return str(path), read_json(path, what)
        return f"{self.packed} ({kind} {name})" if name else str(self.packed), packed


def read_results(root: str | Path) -> Results:
    """Read all that a report is made of: the planned runs that are finished, by id, and the tickets, by name.

    Records of runs that the grid no longer plans are left out. Raises `InputError` where `root` holds no grid and
    `FileFormatError` where a file in it is damaged.
    """
    folder = GridFolder(Path(root))
    plan = folder.read_plan()
    return Results(
        name=plan.name,
        layouts=plan.layouts,
        runs=tuple(folder.read_run(run_id) for run_id in sorted(set(plan.runs)) if folder.has_run(run_id)),
        tickets=tuple(folder.read_ticket_record(name) for name in folder.ticket_names()),
        planned=len(set(plan.runs)),
    )


def _check_format(where: str, found: object, known: int) -> None:
    if isinstance(found, int) and found > known:
        raise FileFormatError(f"{where} has format {found}, this version reads {known}; update ltprompt")


def _parsed(where: str, data: Mapping[str, Any], model: type[Model]) -> Model:
    """Return checked data. Raises `FileFormatError` naming its place, the first field that is wrong and the mend."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        what = explain(error.errors()[0], missing="")
        raise FileFormatError(f"{where} is damaged: {what}; {AGAIN}") from error
