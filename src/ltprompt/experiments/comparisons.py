"""Which rows of a table are compared with which, and what the statistics say of them in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ltprompt.experiments.grouping import Row
from ltprompt.experiments.labels import is_control, is_lottery
from ltprompt.experiments.statistics import DRAWS, LEVEL, Difference, compare, holm

HEADER = ("Block", "Row", "Against", "Seeds", "Difference", "95 % interval", "p examples", "p seeds", "Verdict")


@dataclass(frozen=True)
class Comparison:
    """A row against another of its block.

    block: such as ``16 shots``. against: the other's label and its part in brackets. found: None where the two share no
    seed. adjusted: p over examples after Holm's correction for all comparisons of the table.
    """

    block: str
    row: str
    against: str
    found: Difference | None
    adjusted: float = 1.0

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0 and the adjusted p over examples is below 0.05."""
        return self.found is not None and self.found.excludes_zero and self.adjusted < LEVEL

    @property
    def verdict(self) -> str:
        """The result in a word or two."""
        if self.found is None:
            return "no common seed"
        return "significant" if self.significant else "not significant"

    def cells(self) -> tuple[str, ...]:
        """Return the texts under `HEADER`."""
        head = (self.block, self.row, self.against)
        if self.found is None:
            return (*head, "0", "", "", "", "", self.verdict)
        found = self.found
        return (
            *head,
            str(found.seeds),
            f"{found.mean:+.2f}",
            f"{found.low:+.2f} to {found.high:+.2f}",
            f"{self.adjusted:.4f}",
            f"{found.p_seeds:.4f} (at least {found.smallest_p_seeds:.4f})",
            self.verdict,
        )

    def sentence(self) -> str:
        """Return the result as one plain sentence, with a second one where there is a single seed."""
        head = f"{self.block}: {self.row}"
        if self.found is None:
            return f"{head} and {self.against} share no seed with all their languages, so they are not compared."
        found = self.found
        side = "above" if found.mean >= 0 else "below"
        text = (
            f"{head} is {abs(found.mean):.2f} points {side} {self.against}, {self.verdict} "
            f"(95 % interval {found.low:+.2f} to {found.high:+.2f}, adjusted p {self.adjusted:.4f}, "
            f"{_count(found.seeds, 'seed')}, {_count(found.languages, 'language')})."
        )
        if found.seeds > 1:
            return text
        return f"{text} With one seed the interval covers the choice of examples only, not training."


def compare_rows(rows: Sequence[Row], languages: Sequence[str]) -> tuple[Comparison, ...]:
    """Compare every LTP row with SP, the random tickets of its size and the best baseline of its block.

    A block is one setting, source, number of shots and backbone. rows: of one table. languages: of that table, over
    which the best baseline's average goes.
    """
    several = len({_setting(row) for row in rows}) > 1
    found = [
        Comparison(_block(row, several), row.label, f"{rows[index].label}{part}", _difference(row, rows[index]))
        for row in rows
        for index, part in _opponents(row, rows, languages).items()
    ]
    return _adjusted(found)


def explanation(comparisons: Sequence[Comparison]) -> str:
    """Return what the numbers of a table of comparisons mean."""
    tests = sum(comparison.found is not None for comparison in comparisons)
    return (
        "Differences in points of accuracy over the seeds and languages that both rows have, paired by seed and "
        f"example. Interval: bootstrap over seeds and examples ({DRAWS:,} draws, or all where they are few), not "
        "adjusted. p examples: permutation over examples, adjusted by Holm's method for the "
        f"{_count(tests, 'comparison')} of this table. p seeds: permutation over seeds, not adjusted; in brackets the "
        "smallest that so many seeds can give. Significant: the interval excludes 0 and the adjusted p is below 0.05."
    )


def _adjusted(found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    p_values = iter(holm([each.found.p_examples for each in found if each.found is not None]))
    return tuple(each if each.found is None else replace(each, adjusted=next(p_values)) for each in found)


def _opponents(row: Row, rows: Sequence[Row], languages: Sequence[str]) -> dict[int, str]:
    """Return the indices of the rows that a row is compared with, and the part each plays."""
    if not is_lottery(row.spec):
        return {}
    block = {index: other for index, other in enumerate(rows) if _place(other) == _place(row)}
    parts = {index: "" for index, other in block.items() if other.spec.method == "sp" or _like(row, other)}
    means = {index: other.accuracies(languages) for index, other in block.items() if other.spec.method != "ltp"}
    baselines = {index: float(np.mean(values)) for index, values in means.items() if values}
    if baselines:
        parts[max(baselines, key=baselines.__getitem__)] = " (best baseline)"
    return parts


def _like(row: Row, other: Row) -> bool:
    """Whether another row has a random ticket of as many entries from the same parameters."""
    mine, theirs = row.spec.ticket, other.spec.ticket
    if mine is None or theirs is None or not is_control(other.spec) or theirs.select != "random":
        return False
    frozen = [ticket.strategy == "frozen-embeddings" for ticket in (mine, theirs)]
    return (mine.ratio, mine.layers) == (theirs.ratio, theirs.layers) and frozen[0] == frozen[1]


def _difference(row: Row, other: Row) -> Difference | None:
    shared = row.languages & other.languages
    languages = sorted(code for code in shared if row.tests[code] == other.tests[code])
    seeds = sorted(set(row.seeds(languages)) & set(other.seeds(languages)))
    if not languages or not seeds:
        return None
    return compare([row.hits(code, seeds) for code in languages], [other.hits(code, seeds) for code in languages])


def _setting(row: Row) -> tuple[str, str]:
    return row.spec.setting, row.spec.source


def _place(row: Row) -> tuple[str, str, int, str]:
    return (*_setting(row), row.spec.shots, row.spec.fingerprint)


def _block(row: Row, several: bool) -> str:
    shots = _count(row.spec.shots, "shot")
    return f"{row.spec.source}, {row.spec.setting}, {shots}" if several else shots


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
