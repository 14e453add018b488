"""What is where in a grid's output folder, and how records are written and read there.

Everything a report needs stands in plain JSON files: no ledger, no order of running and no time has a part in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ltprompt.errors import FileFormatError, InputError, explain
from ltprompt.experiments.records import RECORD_FORMAT, Results, RunRecord, TicketRecord
from ltprompt.files.artifacts import (
    GRID_FILE,
    GRID_LEDGER,
    GRID_PLAN,
    GRID_REPORT,
    GRID_RUNS,
    GRID_SCORES,
    GRID_TICKETS,
    read_json,
    write_json,
)

PLAN_FORMAT = 1
AGAIN = "delete it and run the grid again, which makes only what is missing"

RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Model = TypeVar("Model", bound=BaseModel)


class Plan(BaseModel):
    """What a grid is to run: its name, the tables and figures it is for, and the ids of its runs in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        return self.root / GRID_RUNS / f"{run_id}.json"

    def ticket(self, name: str) -> Path:
        """Return where the ticket called `name` stands."""
        return self.tickets / f"{name}.safetensors"

    def ticket_record(self, name: str) -> Path:
        """Return where the record of the ticket called `name` stands, beside the ticket."""
        return self.tickets / f"{name}.json"

    def write_plan(self, name: str, layouts: Sequence[str], runs: Sequence[str]) -> None:
        """Write the grid's name, the layouts it is for and the ids of its runs."""
        write_json(self.plan, Plan(name=name, layouts=tuple(layouts), runs=tuple(runs)).model_dump(mode="json"))

    def read_plan(self) -> Plan:
        """Read what `write_plan` wrote.

        Raises `InputError` where no grid is in the folder, `FileFormatError` where its plan is damaged or newer.
        """
        if not self.plan.is_file():
            raise InputError(f"{self.root} holds no grid ({GRID_PLAN} is not there); name the --out of `ltprompt grid`")
        data = read_json(self.plan, "the plan of a grid")
        _check_format(self.plan, data.get("format"), PLAN_FORMAT)
        return _parsed(self.plan, data, Plan)

    def write_run(self, record: RunRecord) -> str:
        """Write a finished run's record and return the SHA-256 of the file. Raises `ValueError` for NaN in it."""
        write_json(self.run(record.spec.id), record.model_dump(mode="json"))
        digest = self.run_digest(record.spec.id)
        assert digest is not None
        return digest

    def read_run(self, run_id: str) -> RunRecord:
        """Read a finished run's record.

        Raises `InputError` where it is missing, `FileFormatError` where it is damaged, newer or another run's.
        """
        path = self.run(run_id)
        data = read_json(path, "the record of a run")
        spec = data.get("spec")
        _check_format(path, spec.get("format") if isinstance(spec, dict) else RECORD_FORMAT, RECORD_FORMAT)
        record = _parsed(path, data, RunRecord)
        if record.spec.id != run_id:
            raise FileFormatError(f"{path} holds another run's record ({record.spec.id[:12]}); {AGAIN}")
        return record

    def run_digest(self, run_id: str) -> str | None:
        """Return the SHA-256 of a run's record as it stands in its file, None where there is none."""
        path = self.run(run_id)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None

    def remove_run(self, run_id: str) -> None:
        """Delete a run's record, which is not what was recorded."""
        self.run(run_id).unlink(missing_ok=True)

    def write_ticket_record(self, name: str, record: TicketRecord) -> None:
        """Write the record of the ticket called `name`."""
        write_json(self.ticket_record(name), record.model_dump(mode="json"))

    def read_ticket_record(self, name: str) -> TicketRecord:
        """Read a ticket's record. Raises `InputError` where it is missing, `FileFormatError` where it is damaged."""
        path = self.ticket_record(name)
        return _parsed(path, read_json(path, "the record of a ticket"), TicketRecord)

    def sweep(self) -> None:
        """Delete the half-written files of killed drivers; for the one driver that may write here."""
        for folder in (self.root, self.root / GRID_RUNS, self.tickets):
            for left in folder.glob(".*.part"):
                if left.is_file():
                    left.unlink(missing_ok=True)


def read_results(root: str | Path) -> Results:
    """Read all that a report is made of: the planned runs that are finished, by id, and the tickets, by name.

    Records of runs that the grid no longer plans are left out. Raises `InputError` where `root` holds no grid and
    `FileFormatError` where a file in it is damaged.
    """
    folder = GridFolder(Path(root))
    plan = folder.read_plan()
    names = sorted(path.stem for path in folder.tickets.glob("*.json"))
    return Results(
        name=plan.name,
        layouts=plan.layouts,
        runs=tuple(folder.read_run(run_id) for run_id in sorted(set(plan.runs)) if folder.run(run_id).is_file()),
        tickets=tuple(folder.read_ticket_record(name) for name in names),
        planned=len(set(plan.runs)),
    )


def _check_format(path: Path, found: object, known: int) -> None:
    if isinstance(found, int) and found > known:
        raise FileFormatError(f"{path} has format {found}, this version reads {known}; update ltprompt")


def _parsed(path: Path, data: dict[str, Any], model: type[Model]) -> Model:
    """Return checked data. Raises `FileFormatError` naming the file, the first field that is wrong and the mend."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        what = explain(error.errors()[0], missing="")
        raise FileFormatError(f"{path} is damaged: {what}; {AGAIN}") from error
