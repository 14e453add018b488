"""Runs cases: every implementation in fresh processes, one after another in turn, checked before it is timed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from safetensors.torch import load_file

from benchmarks.cases import Case, Implementation
from benchmarks.check import Verdict, compare, tolerance_of
from benchmarks.lengths import lengths
from benchmarks.memory import anonymous, installed, rows_that_fit
from benchmarks.shapes import Shape, find_shape
from benchmarks.worker import REPORT, TENSORS, Order
from ltprompt.errors import LtpError
from ltprompt.files.artifacts import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
EVERY = 0.02  # seconds between two looks at a process's memory
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16")
KEY = ("shape", "dtype", "case")
GIB = 2**30

Say = Callable[[str], None]


class WorkerError(LtpError):
    """A process that failed: by a mistake, or because the machine has too little memory for it."""


@dataclass(frozen=True)
class Settings:
    """How a run measures. runs: processes of each implementation. folder: what `prepare` made of the shape."""

    shape: str
    dtype: str
    threads: int
    runs: int
    folder: Path

    def order(self, kind: str, **given: Any) -> Order:
        """Return an order to a process, its `out` still to be named."""
        return Order(kind, self.shape, str(self.folder), "", self.threads, self.dtype, **given)


def run(cases: Sequence[Case], settings: Settings, out: Path, say: Say) -> None:
    """Measure cases and write each one's result into the JSON file `out` as soon as it is there.

    Results of other shapes, precisions, cases and implementations in that file stay, unless another machine's. Raises
    `WorkerError` where the folder cannot be made.
    """
    say(f"preparing {settings.shape}")
    spawn(settings.order("prepare"))
    _touch(settings, say)
    found = _known(out, say)
    measured, _ = spawn(settings.order("floors"))
    floors = found["floors"]
    floors[str(settings.threads)] = best(floors.get(str(settings.threads)), measured)
    for case in cases:
        record = measure(case, settings, say)
        found["results"] = added(found["results"], record)
        write_json(out, found)


def _touch(settings: Settings, say: Say) -> None:
    """Have free memory touched; measuring goes on where that fails, as it only evens out what comes first."""
    try:
        spawn(settings.order("touch"))
    except WorkerError as error:
        say(f"memory was not touched before: {error}")


def _known(out: Path, say: Say) -> dict[str, Any]:
    """Return what a file of results holds of this machine: what another one measured cannot be compared."""
    here = machine()
    found: dict[str, Any] = read_json(out, "a file of results") if out.exists() else {"machine": here}
    if found.get("machine") != here:
        say(f"{out} was measured on another machine or with another torch: it begins anew")
        found = {"machine": here}
    return {"results": [], "floors": {}} | found


def added(records: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return records with one more, which takes in what an older one knows of implementations not measured now.

    Their checks are dropped: what they agreed with has been measured anew, perhaps with other code.
    """
    others, known = [], record
    for each in records:
        if any(each[key] != record[key] for key in KEY):
            others.append(each)
        elif each["threads"] == record["threads"]:
            known = {key: {**each[key], **value} if isinstance(value, dict) else value for key, value in record.items()}
            for name in record["implementations"]:
                known["failures"].pop(name, None)
            for name in record["failures"]:
                known["implementations"].pop(name, None)
            known["checks"] = record["checks"]
    return sorted([*others, known], key=lambda each: [each[key] for key in KEY])


def best(known: Mapping[str, Any] | None, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the higher of each rate: a shared machine is slower at times, and the floor is what it can do."""
    if known is None:
        return dict(measured)
    rates = {dtype: max(rate, known["matmul"][dtype]) for dtype, rate in measured["matmul"].items()}
    return {"matmul": rates, "bandwidth": max(known["bandwidth"], measured["bandwidth"])}


def measure(case: Case, settings: Settings, say: Say) -> dict[str, Any]:
    """Return a case's record: verdicts of the checks and measurements of every implementation that passed."""
    rows = {each.name: rows_of(each, find_shape(settings.shape)) for each in case.implementations}
    checks = check(case, settings, rows, say)
    failures = {name: found for name, found in checks.items() if isinstance(found, str)}
    failures |= {
        name: f"disagrees with {case.find(name).like} in {found.worst or 'the loss'}"
        for name, found in checks.items()
        if isinstance(found, Verdict) and not found.passed
    }
    timed = [each for each in case.implementations if each.name not in failures]
    measurements: dict[str, list[dict[str, Any]]] = {each.name: [] for each in timed}
    for number in range(settings.runs):
        for each in timed:
            if each.name in failures:
                continue
            say(f"{case.name}: {each.name}, run {number + 1} of {settings.runs}")
            order = settings.order("time", case=case.name, implementation=each.name, rows=rows[each.name], seed=number)
            try:
                report, peak = spawn(order)
                measurements[each.name].append({**report, "peak_anonymous": peak})
            except WorkerError as error:
                failures[each.name] = str(error)
    found = {name: summary(some) for name, some in measurements.items() if some and name not in failures}
    return {
        "case": case.name,
        "title": case.title,
        "shape": settings.shape,
        "dtype": settings.dtype,
        "threads": settings.threads,
        "runs": settings.runs,
        "checks": {name: each.to_json() for name, each in checks.items() if isinstance(each, Verdict)},
        "failures": failures,
        "rows": {each.name: rows[each.name] for each in case.implementations if each.rows},
        "implementations": found,
    }


def check(case: Case, settings: Settings, rows: Mapping[str, int], say: Say) -> dict[str, Verdict | str]:
    """Compare every implementation, without dropout, with the one that it must be like.

    Returns, by name, the verdict, or why there is none.
    """
    found: dict[str, Verdict | str] = {}
    names = [each.name for each in case.implementations]
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        for each in case.implementations:
            if each.like is None:
                continue
            pair = [Path(folder) / str(names.index(name)) for name in (each.name, each.like)]
            try:
                for name, place in zip((each.name, each.like), pair, strict=True):
                    if not place.exists():
                        say(f"{case.name}: results of {name}")
                        _keep_results(
                            settings.order("check", case=case.name, implementation=name, rows=rows[name]), place
                        )
                found[each.name] = _compared(pair[0], pair[1], settings.dtype)
            except WorkerError as error:
                found[each.name] = str(error)
            shutil.rmtree(pair[0], ignore_errors=True)  # as large as the model
    return found


def _keep_results(order: Order, place: Path) -> None:
    place.mkdir()
    try:
        spawn(order, place)
    except WorkerError:
        shutil.rmtree(place)
        raise


def _compared(found: Path, expected: Path, dtype: str) -> Verdict:
    losses, expected_losses = (read_json(place / REPORT, "a report")["losses"] for place in (found, expected))
    tensors, expected_tensors = (load_file(place / TENSORS) for place in (found, expected))
    return compare(losses, expected_losses, tensors, expected_tensors, tolerance_of(dtype))


def spawn(order: Order, out: Path | None = None) -> tuple[dict[str, Any], int | None]:
    """Run an order in a fresh process and return its report and its largest anonymous memory in bytes.

    out: folder that keeps what the process wrote. Raises `WorkerError` where it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        order = replace(order, out=str(out or folder))
        with (Path(folder) / "errors").open("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks", "worker", json.dumps(order.to_json())],
                cwd=ROOT, env=_environment(order.threads), stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
            peak = _watch(process)
            if process.returncode:
                errors.seek(0)
                raise WorkerError(_reason(process.returncode, errors.read()))
        return read_json(Path(order.out) / REPORT, "a report"), peak


def summary(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the measurements of an implementation's processes as one: every lap, and medians."""
    seconds = [each for report in reports for each in report["seconds"]]
    peaks = [report["peak_anonymous"] for report in reports if report["peak_anonymous"] is not None]
    return {
        "seconds": seconds,
        "operations": [each for report in reports for each in report["operations"]],
        "median": median(seconds),
        "peak_anonymous": median(peaks) if peaks else None,
        "max_rss": median(report["max_rss"] for report in reports),
        "notes": reports[-1]["notes"],
    }


def machine() -> dict[str, Any]:
    """Return what of the machine decides its speed."""
    import torch
    import transformers

    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "flags": [flag for flag in FLAGS if flag in _cpu_flags()],
        "memory": round(installed() / GIB) * GIB,  # what a kernel keeps for itself varies
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    return " ".join(filter(None, (platform.machine(), _cpu_line("model name"))))


def _cpu_flags() -> set[str]:
    return set(_cpu_line("flags").split())


def _cpu_line(name: str) -> str:
    """Return what Linux says of the first processor; elsewhere nothing."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def rows_of(implementation: Implementation, shape: Shape) -> int:
    """Return how many examples an implementation takes at once; ours decides for itself."""
    needs = implementation.rows
    if needs is None:
        return shape.batch
    known = lengths()
    longest = {
        "lines": max(known.lines),
        "train": max(known.train),
        "test": max(max(found) for found in known.test.values()),
        "padded": shape.max_length,
    }[needs.inputs]
    longest = min(longest, shape.max_length)
    return rows_that_fit(shape, longest=longest, states=needs.states, copies=needs.copies, total=installed())


def _environment(threads: int) -> dict[str, str]:
    fixed = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **fixed}


def _watch(process: subprocess.Popen[Any]) -> int | None:
    """Wait for a process and return the largest anonymous memory that was seen."""
    peak = None
    try:
        while process.poll() is None:
            now = anonymous(process.pid)
            if now is not None:
                peak = max(peak or 0, now)
            time.sleep(EVERY)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return peak


def _reason(status: int, errors: str) -> str:
    if status < 0:
        return f"the process was ended by signal {-status}; the machine may have too little memory"
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    return lines[-1] if lines else f"the process ended with status {status}"
