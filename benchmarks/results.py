"""The measurements in a file of results, and what follows from several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.cases import OURS
from benchmarks.lengths import lengths
from benchmarks.shapes import find_shape
from ltprompt.errors import FileFormatError
from ltprompt.files.artifacts import read_json

EPOCHS = 70  # of a whole run (paper, section 4.2), each ended by an evaluation of the dev set
WHOLE_RUN = "whole-run"
WHOLE_RUN_TITLE = "a whole run: 32 shots, 70 epochs, 15 × 500 test examples"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """Records by (shape, dtype, case); machine and floors as `harness.run` wrote them."""

    records: Mapping[tuple[str, str, str], Record]
    machine: Record
    floors: Record

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `harness.run` wrote, with whole runs added. Raises `InputError` or `FileFormatError`."""
        found = read_json(path, "results of `python -m benchmarks run`")
        try:
            records = {(each["shape"], each["dtype"], each["case"]): each for each in found["results"]}
            results = cls(records, found["machine"], found["floors"])
        except (KeyError, TypeError) as error:
            raise FileFormatError(f"{path} lacks {error}; run the benchmarks anew") from error
        return cls({**records, **_whole_runs(results)}, results.machine, results.floors)

    def seconds(self, key: tuple[str, str, str], name: str = OURS) -> float | None:
        """Return the median seconds of an implementation, scaled to the whole of the work; None without any."""
        found = self._measured(key, name)
        return None if found is None else float(found["median"] * found["notes"].get("scale", 1.0))

    def memory(self, key: tuple[str, str, str], name: str = OURS) -> float | None:
        """Return the peak anonymous memory of an implementation in bytes; None without any."""
        found = self._measured(key, name)
        return None if found is None or found["peak_anonymous"] is None else float(found["peak_anonymous"])

    def resident(self, key: tuple[str, str, str], name: str = OURS) -> float | None:
        """Return the largest resident memory of an implementation in bytes, mapped files included; None without any."""
        found = self._measured(key, name)
        return None if found is None or found["max_rss"] is None else float(found["max_rss"])

    def note(self, key: tuple[str, str, str], name: str) -> float | None:
        """Return a plain number that ours recorded; None without any."""
        found = self._measured(key, OURS)
        number: float | None = None if found is None else found["notes"].get(name)
        return number

    def floor_share(self, key: tuple[str, str, str], name: str = OURS) -> float | None:
        """Return the least time of a case's arithmetic or bytes over the time it took: the median over its laps."""
        found, record = self._measured(key, name), self.records.get(key)
        if found is None or record is None:
            return None
        floors = self.floors[str(record["threads"])]
        if found["operations"]:
            pairs = zip(found["operations"], found["seconds"], strict=True)
            return float(median(done / taken for done, taken in pairs) / floors["matmul"][record["dtype"]])
        moved = found["notes"].get("bytes")
        return None if moved is None else float(moved / floors["bandwidth"] / found["median"])

    def exponent(self, key: tuple[str, str, str]) -> float | None:
        """Return the exponent with which time grows with size; 1 is linear. None without a series."""
        found = self._measured(key, OURS)
        if found is None or "sizes" not in found["notes"]:
            return None
        return _exponent(found["notes"]["sizes"], mean_series(found))

    def _measured(self, key: tuple[str, str, str], name: str) -> Record | None:
        if key not in self.records:
            return None
        found: Record | None = self.records[key]["implementations"].get(name)
        return found


def mean_series(measured: Record) -> list[float]:
    """Return the median seconds at each size of a series that was run several times."""
    count = len(measured["notes"]["sizes"])
    return [median(measured["seconds"][place::count]) for place in range(count)]


def _exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _whole_runs(results: Results) -> dict[tuple[str, str, str], Record]:
    """Return a record of a whole run for each shape and precision whose steps and evaluation were measured.

    32 shots, 70 epochs with an evaluation of the dev set each, and 15 × 500 test examples: steps × step time +
    examples × evaluation time; memory is the larger of the two.
    """
    found: dict[tuple[str, str, str], Record] = {}
    for shape, dtype, case in results.records:
        step, test = (shape, dtype, "stage2-ltp"), (shape, dtype, "evaluation")
        if case == "evaluation" and step in results.records:
            names = results.records[step]["implementations"].keys() & results.records[test]["implementations"].keys()
            record = results.records[step]
            found[shape, dtype, WHOLE_RUN] = {
                **{key: record[key] for key in ("shape", "dtype", "threads", "runs")},
                "case": WHOLE_RUN,
                "title": WHOLE_RUN_TITLE,
                "checks": {},
                "failures": {},
                "implementations": {name: _whole_run(results, step, test, name) for name in sorted(names)},
            }
    return found


def _whole_run(results: Results, step: tuple[str, str, str], test: tuple[str, str, str], name: str) -> Record:
    known = lengths()
    tested = sum(map(len, known.test.values()))
    steps = EPOCHS * (len(known.train) // find_shape(step[0]).batch)
    each, whole = results.seconds(step, name), results.seconds(test, name)
    peaks = [results.memory(key, name) for key in (step, test)]
    assert each is not None
    assert whole is not None
    taken = steps * each + (EPOCHS * len(known.dev) + tested) / tested * whole
    peak = None if None in peaks else max(peak for peak in peaks if peak is not None)
    return {
        "median": taken, "seconds": [taken], "operations": [], "notes": {}, "peak_anonymous": peak, "max_rss": None
    }  # fmt: skip
