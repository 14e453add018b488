"""What a fresh process does: one implementation of one case, once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks import floors
from benchmarks.cases import find_case
from benchmarks.job import Job, Outcome
from benchmarks.memory import largest_resident, touch_free
from benchmarks.shapes import Place, find_shape, prepare
from ltprompt.files.artifacts import write_json

REPORT = "worker.json"
TENSORS = "worker.safetensors"


@dataclass(frozen=True)
class Order:
    """What the parent asks of a process.

    kind: ``prepare`` the folder, ``touch`` the memory, measure ``floors``, ``check`` results without dropout, or take
    ``time``.
    folder: of the shape. out: folder for what the process reports. rows, seed: see `Job`.
    """

    kind: str
    shape: str
    folder: str
    out: str
    threads: int
    dtype: str = "fp32"
    case: str = ""
    implementation: str = ""
    rows: int = 1
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the order as plain JSON."""
        return asdict(self)


def work(order: Order) -> None:
    """Do what is asked and write the report."""
    torch.set_num_threads(order.threads)
    place = Place(Path(order.folder), find_shape(order.shape))
    out = Path(order.out)
    if order.kind == "prepare":
        prepare(place)
        write_json(out / REPORT, {})
    elif order.kind == "touch":
        touch_free()
        write_json(out / REPORT, {})
    elif order.kind == "floors":
        rates = {dtype: floors.matmul_rate(dtype) for dtype in ("fp32", "bf16")}
        write_json(out / REPORT, {"matmul": rates, "bandwidth": floors.bandwidth()})
    else:
        write_json(out / REPORT, measured(order, place, out))


def measured(order: Order, place: Place, out: Path) -> dict[str, Any]:
    """Run an implementation and return its report; where results are compared, write the tensors too."""
    case, checking = find_case(order.case), order.kind == "check"
    steps = case.checked if checking else case.warm_up + case.repeats
    job = Job(place, not checking, order.dtype, order.rows, order.seed, steps)
    implementation = case.find(order.implementation)
    outcome = implementation.load()(job)
    resident = largest_resident()
    if checking:
        _save(outcome, out)
        return {"losses": job.clock.losses}
    return {
        "seconds": job.clock.seconds[case.warm_up :],
        "max_rss": resident,
        "notes": dict(outcome.notes),
        "operations": _operations(implementation.floor or case.floor, place, job, outcome)[case.warm_up :],
    }


def _operations(floor: str | None, place: Place, job: Job, outcome: Outcome) -> list[float]:
    """Return the useful operations of each lap; where one part of `part` equal ones was timed, those of that part."""
    if not floor:
        return []
    return [each / outcome.notes.get("part", 1) for each in floors.useful(floor, place, job)]


def _save(outcome: Outcome, out: Path) -> None:
    tensors = {name: tensor.detach().contiguous() for name, tensor in outcome.tensors.items()}
    save_file(tensors, out / TENSORS)
