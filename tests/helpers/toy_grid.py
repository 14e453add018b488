"""Toy grids: runs whose results follow from their seeds, and workers that fail, stop or die where a test says so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltprompt.experiments.folder import GridFolder
from ltprompt.experiments.records import (
    DataRef,
    Job,
    LanguageResult,
    RunRecord,
    RunResult,
    RunSpec,
    TicketRecord,
    TicketSpec,
)
from ltprompt.experiments.run.ledger import Ledger
from ltprompt.experiments.run.local import Outcome

ASSETS = {"table": [0.25, 0.5], "unused": [0.0]}


def toy_spec(seed: int, **changes: Any) -> RunSpec:
    data = DataRef(name="train.tsv", sha256="a" * 64, examples=48)
    fields: dict[str, Any] = {
        "backbone": "toy", "fingerprint": "f" * 64, "task": "xnli", "task_sha256": "b" * 64, "source": "Nαί",
        "setting": "zero-shot", "language": "en", "shots": 16, "seed": seed, "method": "ltp",
        "ticket": toy_ticket(), "settings": {"lr": 2e-5, "epochs": 70}, "dtype": "fp32", "train": data, "dev": None,
        "tests": {"sw": data},
    }  # fmt: skip
    return RunSpec(**fields | changes)


def toy_ticket() -> TicketSpec:
    return TicketSpec(
        criterion="delta", strategy="decoupled", ratio=0.2, scope="global", layers="all", seed=None, sha256="c" * 64
    )


def toy_ticket_record() -> TicketRecord:
    return TicketRecord(spec=toy_ticket(), fingerprint="f" * 64, distribution={"entries": 7, "by_layer": {"0": 7}})


def toy_result(seed: int, shift: float = 0.25) -> RunResult:
    found = LanguageResult(accuracy=seed / 7, macro_f1=shift, confusion=((1, 0), (seed, 2)), hits="10" * seed)
    return RunResult(
        kept_epoch=1, dev_accuracy=None, losses=(0.1 + seed, shift), dev_accuracies=(None, None),
        changed_entries=seed, languages={"sw": found, "ar": found},
    )  # fmt: skip


def toy_jobs(size: int) -> list[Job]:
    return [Job(toy_spec(seed), {"train": "table"}) for seed in range(size)]


def toy_record(seed: int) -> RunRecord:
    return RunRecord(spec=toy_spec(seed), result=toy_result(seed))


@dataclass
class ToyWorker:
    """Makes toy runs. Each trouble strikes the run of its seed, as often as `times` allows across all processes.

    marks: folder where every call leaves a mark, named by seed, number and process.
    """

    marks: Path
    interrupts: int | None = None
    fails: int | None = None
    dies: int | None = None
    times: int = 10**6
    seconds: float = 0.0

    def run(self, spec: RunSpec, assets: Mapping[str, Any]) -> Outcome:
        assert list(assets) == ["train"]
        before = calls(self.marks, spec.seed)
        (self.marks / f"{spec.seed}-{before}-{os.getpid()}").touch()
        time.sleep(self.seconds)
        if before < self.times:
            self._strike(spec.seed)
        return Outcome(toy_result(spec.seed, assets["train"][0]), 0.0, 0.0)

    def _strike(self, seed: int) -> None:
        if seed == self.interrupts:
            raise KeyboardInterrupt
        if seed == self.fails:
            raise ValueError(f"run {seed} cannot go on")
        if seed == self.dies:
            os.kill(os.getpid(), signal.SIGKILL)


def calls(marks: Path, seed: int) -> int:
    """How often the run of a seed was begun, by any process."""
    return len(list(marks.glob(f"{seed}-*")))


def record_bytes(folder: GridFolder) -> dict[str, bytes]:
    """All that stands in runs/, by file name."""
    return {path.name: path.read_bytes() for path in (folder.root / "runs").iterdir()}


def rows(folder: GridFolder) -> tuple[object, ...]:
    with Ledger.open(folder.ledger) as ledger:
        return ledger.rows()
