"""Which runs make one row of a table: those that differ in nothing but the seed and, in-language, the language."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ltprompt.experiments.labels import method_label, place
from ltprompt.experiments.records import LanguageResult, RunRecord, RunSpec
from ltprompt.files.artifacts import canonical_json

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
Facts = dict[str, str]

# Settings that differ from run to run of one row.
_PER_RUN = frozenset({"seed", "language"})


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed and, in-language, the language.

    name: method and ticket. variant: in what the row differs from others of that name, such as ``lr 0.0002``. tuned:
    whether a setting of training is part of that. spec: of one of the runs, for what they share. results: (seed,
    language) -> result. tests: language -> digest of its rows.
    """

    name: str
    variant: str
    tuned: bool
    spec: RunSpec
    results: Mapping[tuple[int, str], LanguageResult]
    tests: Mapping[str, str]

    @property
    def label(self) -> str:
        """The row as tables call it."""
        return f"{self.name}, {self.variant}" if self.variant else self.name

    @property
    def languages(self) -> frozenset[str]:
        """The languages with a result."""
        return frozenset(language for _, language in self.results)

    def seeds(self, languages: Iterable[str]) -> tuple[int, ...]:
        """Return the seeds that have a result in each of some languages, ascending."""
        wanted = tuple(languages)
        seeds = sorted({seed for seed, _ in self.results})
        return tuple(seed for seed in seeds if all((seed, language) in self.results for language in wanted))

    def accuracies(self, languages: Sequence[str]) -> list[float]:
        """Return the mean accuracy over some languages, in %, of each seed that has all of them."""
        return [
            100 * float(np.mean([self.results[seed, language].accuracy for language in languages]))
            for seed in self.seeds(languages)
        ]

    def hits(self, language: str, seeds: Sequence[int]) -> np.ndarray:
        """Return hits [seeds, examples], 0 or 1."""
        found = [np.frombuffer(self.results[seed, language].hits.encode(), dtype=np.uint8) for seed in seeds]
        return np.stack(found) - ord("0")


def evaluated(run: RunRecord) -> dict[str, LanguageResult]:
    """Return a run's results by language; of an in-language run only that of its own language."""
    if run.spec.setting == "zero-shot":
        return dict(run.result.languages)
    return {code: result for code, result in run.result.languages.items() if code == run.spec.language}


def group_rows(runs: Sequence[RunRecord], *, by_source: bool = False) -> tuple[Row, ...]:
    """Return the rows that some runs make, by shots and then in the order of the methods.

    Runs that would share a row but differ in a setting, the backbone or the data make separate rows, each with what
    differs in its label. by_source: the table shows the source of the training data, so that labels need not.
    """
    # A ready ticket keeps its row under another name: all of its runs go by one.
    tickets = [run.spec.ticket for run in runs if run.spec.ticket is not None]
    names = dict(sorted(((ticket.sha256, ticket.name) for ticket in tickets), reverse=True))
    families = _by(runs, lambda run: (*_family(run.spec, names), run.spec.source if by_source else ""))
    rows = [row for family in families.values() for row in _family_rows(family)]
    return tuple(sorted(rows, key=lambda row: (row.spec.shots, place(row.spec), row.label, row.spec.source)))


def _family(spec: RunSpec, names: Mapping[str, str]) -> tuple[Hashable, ...]:
    ticket = spec.ticket
    if ticket is None:
        return spec.setting, spec.method
    cut = (ticket.criterion, ticket.strategy, ticket.ratio, ticket.scope, ticket.layers)
    return spec.setting, spec.method, cut, names[ticket.sha256]


def _family_rows(runs: Sequence[RunRecord]) -> Iterator[Row]:
    """Yield the rows of one method and ticket, of any shots, called alike at all shots."""
    backbones = _called((run.spec.fingerprint, run.spec.backbone) for run in runs)
    tasks = _called((run.spec.task_sha256, run.spec.task) for run in runs)
    blocks = [_block_facts(block, backbones, tasks) for block in _by(runs, lambda run: run.spec.shots).values()]
    varying = sorted({name for block in blocks for name in _varying([facts for _, facts in block])})
    for block in blocks:
        for group in _by(block, lambda pair: canonical_json(pair[1])).values():
            yield _row([run for run, _ in group], group[0][1], varying)


def _row(runs: Sequence[RunRecord], facts: Facts, varying: Sequence[str]) -> Row:
    spec = min((run.spec for run in runs), key=lambda spec: spec.id)
    pairs = [(run, language, result) for run in runs for language, result in evaluated(run).items()]
    return Row(
        name=method_label(spec),
        variant=_variant(facts, varying),
        tuned=not _flat(spec.settings).keys().isdisjoint(varying),
        spec=spec,
        results={(run.spec.seed, language): result for run, language, result in pairs},
        tests={language: run.spec.tests[language].sha256 for run, language, _ in pairs},
    )


def _block_facts(
    runs: Sequence[RunRecord], backbones: Mapping[str, str], tasks: Mapping[str, str]
) -> list[tuple[RunRecord, Facts]]:
    """Return each run with all that must be equal within a row, as text by name."""
    ranks = {
        "training data": _ranks(runs, _training_data),
        "ticket": _ranks(runs, _ticket_data),
        "tests": _ranks(runs, _test_data),
    }
    pairs = []
    for index, run in enumerate(runs):
        known = {"backbone": backbones[run.spec.fingerprint], "task": tasks[run.spec.task_sha256]}
        numbered = {name: str(rank[index] + 1) for name, rank in ranks.items()}
        pairs.append((run, {**known, **_spec_facts(run.spec), **numbered}))
    return [pair for group in _by(pairs, lambda pair: canonical_json(pair[1])).values() for pair in _told_apart(group)]


def _spec_facts(spec: RunSpec) -> Facts:
    facts = {"source": spec.source, "dtype": spec.dtype, **_flat(spec.settings)}
    return {**facts, "trained on": spec.language} if spec.setting == "zero-shot" else facts


def _told_apart(pairs: Sequence[tuple[RunRecord, Facts]]) -> list[tuple[RunRecord, Facts]]:
    """Return the runs of a row; where two have one seed and language, with the draw and the tests that part them."""
    places = [(run.spec.seed, language) for run, _ in pairs for language in evaluated(run)]
    if len(set(places)) == len(places):
        return list(pairs)
    return [
        (
            run,
            {
                **facts,
                "ticket seed": str(run.spec.ticket.seed if run.spec.ticket else None),
                "test languages": "+".join(sorted(run.spec.tests)),
            },
        )
        for run, facts in pairs
    ]


def _training_data(spec: RunSpec) -> dict[str, str]:
    return {"train": spec.train.sha256, "dev": spec.dev.sha256 if spec.dev else ""}


def _ticket_data(spec: RunSpec) -> dict[str, str]:
    # Random tickets are drawn anew, as seeds are.
    return {"ticket": spec.ticket.sha256} if spec.ticket and spec.ticket.criterion != "random" else {}


def _test_data(spec: RunSpec) -> dict[str, str]:
    return {language: table.sha256 for language, table in spec.tests.items()}


def _ranks(runs: Sequence[RunRecord], digests: Callable[[RunSpec], Mapping[str, str]]) -> list[int]:
    """Number the runs of each training language by their data, from 0; data that only some runs have do not count."""
    ranks = [0] * len(runs)
    for group in _by(range(len(runs)), lambda index: runs[index].spec.language).values():
        found = {index: digests(runs[index].spec) for index in group}
        seen: dict[str, set[str]] = {}
        for given in found.values():
            for name, digest in given.items():
                seen.setdefault(name, set()).add(digest)
        signatures = {
            index: tuple(sorted((name, digest) for name, digest in given.items() if len(seen[name]) > 1))
            for index, given in found.items()
        }
        order = sorted(set(signatures.values()))
        for index in group:
            ranks[index] = order.index(signatures[index])
    return ranks


def _varying(facts: Sequence[Facts]) -> set[str]:
    names = {name for each in facts for name in each}
    return {name for name in names if len({each.get(name) for each in facts}) > 1}


def _variant(facts: Facts, varying: Sequence[str]) -> str:
    """Return what tells a row apart, by the last part of a setting's name where that is enough."""
    short = [name.rpartition(".")[2] for name in varying]
    shown = [last if short.count(last) == 1 else name for name, last in zip(varying, short, strict=True)]
    return ", ".join(f"{text} {facts[name]}" for name, text in zip(varying, shown, strict=True) if name in facts)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Facts:
    flat: Facts = {}
    for name, value in settings.items():
        if name in _PER_RUN:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else canonical_json(value)
    return flat


def _called(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return identity -> name, with the start of the identity where a name stands for several."""
    names = dict(sorted(pairs, reverse=True))
    shared = list(names.values())
    return {
        identity: name if shared.count(name) == 1 else f"{name} ({identity[:8]})" for identity, name in names.items()
    }


def _by(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
