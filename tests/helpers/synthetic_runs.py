"""Runs that never ran: records with chosen accuracies, for tests of reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltprompt.experiments.records import (
    DataRef,
    LanguageResult,
    Results,
    RunRecord,
    RunResult,
    RunSpec,
    TicketRecord,
    TicketSpec,
)
from ltprompt.files.artifacts import sha256

XNLI = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
AMERICAS = ("aym", "bzd", "cni", "gn", "hch", "nah", "oto", "quy", "shp", "tar")
SETTINGS: dict[str, Any] = {"epochs": 70, "lr": 2e-5, "recipe": {"clip": 1.0}}


def data(name: str, examples: int = 96) -> DataRef:
    return DataRef(name=name, sha256=sha256(name), examples=examples)


def ticket(ratio: float = 0.2, criterion: str = "delta", **changes: Any) -> TicketSpec:
    given = {"strategy": "decoupled", "scope": "global", "layers": "all", "seed": None, **changes}
    given.setdefault("sha256", sha256(repr((criterion, ratio, sorted(given.items(), key=str)))))
    return TicketSpec(criterion=criterion, ratio=ratio, **given)


def result(hits: str, note: str = "") -> LanguageResult:
    accuracy = hits.count("1") / len(hits)
    right = hits.count("1")
    return LanguageResult(
        accuracy=accuracy, macro_f1=accuracy, confusion=((right, len(hits) - right),), hits=hits, note=note
    )


def run(hits: Mapping[str, str], method: str = "sp", seed: int = 1, shots: int = 16, **changes: Any) -> RunRecord:
    """A finished run with the given hits by language; `changes` are fields of its `RunSpec`, note that of its results.

    A test table is known by its language and length.
    """
    note = changes.pop("note", "")
    given = {
        "backbone": "some/backbone",
        "fingerprint": "f" * 64,
        "task": "xnli",
        "source": "MultiNLI",
        "setting": "zero-shot",
        "language": "en",
        "ticket": None,
        "settings": SETTINGS,
        "dtype": "float32",
        **changes,
    }
    given.setdefault("task_sha256", sha256(given["task"]))
    given.setdefault("train", data(f"train {given['source']} {given['language']} {shots}"))
    given.setdefault("dev", data(f"dev {given['source']} {given['language']} {shots}"))
    given.setdefault("tests", {code: data(f"test {code} {len(text)}", len(text)) for code, text in hits.items()})
    languages = {code: result(text, note) for code, text in hits.items()}
    left = RunResult(
        kept_epoch=1, dev_accuracy=0.4, losses=(1.0,), dev_accuracies=(0.4,), changed_entries=7, languages=languages
    )
    return RunRecord(spec=RunSpec(method=method, seed=seed, shots=shots, **given), result=left)


def share(right: int, of: int = 20) -> str:
    """Hits of which the first `right` are 1."""
    return "1" * right + "0" * (of - right)


def random_hits(generator: np.random.Generator, probability: float, examples: int) -> str:
    return "".join("1" if hit else "0" for hit in generator.random(examples) < probability)


def results(
    runs: Sequence[RunRecord], layouts: Sequence[str] = (), tickets: Sequence[TicketRecord] = (), name: str = "a grid"
) -> Results:
    ordered = tuple(sorted(runs, key=lambda each: each.spec.id))
    return Results(name=name, layouts=tuple(layouts), runs=ordered, tickets=tuple(tickets), planned=len(runs) + 1)


def ticket_record(spec: TicketSpec, entries: Sequence[int]) -> TicketRecord:
    layers = {str(layer): {"entries": count} for layer, count in enumerate(entries)}
    return TicketRecord(spec=spec, fingerprint="f" * 64, distribution={"by_layer": layers})


def grid(
    examples: int = 60, shots: Sequence[int] = (1, 4, 16, 32), seeds: int = 3, languages: Sequence[str] = XNLI
) -> list[RunRecord]:
    """Zero-shot runs of six methods, LTP and its random ticket better than the others."""
    generator = np.random.default_rng(7)
    methods: list[tuple[str, TicketSpec | None, float]] = [
        ("ft", None, 0.33),
        ("dp", None, 0.36),
        ("sp", None, 0.38),
        ("mp", None, 0.35),
        ("ltp", ticket(0.2), 0.44),
        ("ltp", ticket(0.75), 0.46),
        ("ltp", ticket(0.2, "random", seed=0), 0.41),
    ]
    return [
        run(
            {code: random_hits(generator, probability, examples) for code in languages},
            method,
            seed,
            number,
            ticket=cut,
        )
        for method, cut, probability in methods
        for number in shots
        for seed in range(1, seeds + 1)
    ]
