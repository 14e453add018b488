"""Which rows of a table are compared with which, and what the statistics say of them in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ltprompt.experiments.labels import is_control, is_lottery, trains_ticket
from ltprompt.experiments.report.rows import Row
from ltprompt.experiments.report.statistics import DRAWS, LEVEL, Difference, compare, holm

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
        """Whether there are several seeds, the interval excludes 0 and the adjusted p over examples is below 0.05."""
        if self.found is None or self.found.seeds == 1:
            return False
        return self.found.excludes_zero and self.adjusted < LEVEL

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        if self.found is None:
            return "no common seed"
        if self.found.seeds == 1:
            return "one seed: not tested over training"
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
            _signed(found.mean),
            f"{_signed(found.low)} to {_signed(found.high)}",
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
        text = (
            f"{head} {_relation(found.mean)} {self.against}, {self.verdict} "
            f"(95 % interval {_signed(found.low)} to {_signed(found.high)}, adjusted p {self.adjusted:.4f}, "
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
        f"example. Interval: bootstrap over seeds and examples ({DRAWS:,} draws, or all where they are few), widened "
        "by Student's correction for few seeds, not adjusted; of one seed over examples only. p examples: permutation "
        f"over examples, adjusted by Holm's method for the {_count(tests, 'comparison')} of this table. p seeds: "
        "permutation over seeds, not adjusted; in brackets the smallest that so many seeds can give. Significant: more "
        "than one seed, the interval excludes 0 and the adjusted p is below 0.05. All seeds train on one fixed draw of "
        "shots, whose choice is not covered either."
    )


def _adjusted(found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    p_values = iter(holm([each.found.p_examples for each in found if each.found is not None]))
    return tuple(each if each.found is None else replace(each, adjusted=next(p_values)) for each in found)


def _opponents(row: Row, rows: Sequence[Row], languages: Sequence[str]) -> dict[int, str]:
    """Return the indices of the rows that a row is compared with, and the part each plays."""
    if not is_lottery(row.spec):
        return {}
    block = {index: other for index, other in enumerate(rows) if _place(other) == _place(row)}
    controls = _controls(row, block)
    parts = {index: "" for index, other in block.items() if other.spec.method == "sp" or index in controls}
    means = {index: other.accuracies(languages) for index, other in block.items() if not trains_ticket(other.spec)}
    baselines = {index: float(np.mean(values)) for index, values in means.items() if values}
    if baselines:
        parts[max(baselines, key=baselines.__getitem__)] = " (best baseline)"
    return parts


def _controls(row: Row, block: Mapping[int, Row]) -> list[int]:
    """Return the indices of the random tickets like a row's; those of its strategy alone where there are such."""
    alike = [index for index, other in block.items() if _like(row, other)]
    return [index for index in alike if _strategy(block[index]) == _strategy(row)] or alike


def _strategy(row: Row) -> str | None:
    return row.spec.ticket.strategy if row.spec.ticket else None


def _like(row: Row, other: Row) -> bool:
    """Whether another row has, in the same template, a random ticket of as many entries of the same parameters."""
    mine, theirs = row.spec.ticket, other.spec.ticket
    if mine is None or theirs is None or not is_control(other.spec) or theirs.criterion != "random":
        return False
    if other.spec.method != row.spec.method:
        return False
    frozen = [ticket.strategy == "frozen-embeddings" for ticket in (mine, theirs)]
    cuts = [(ticket.ratio, ticket.layers, ticket.scope) for ticket in (mine, theirs)]
    return cuts[0] == cuts[1] and frozen[0] == frozen[1]


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


def _relation(points: float) -> str:
    """Return how a row stands to another, such as ``is 1.20 points above``; differences that show as 0.00 are none."""
    shown = f"{abs(points):.2f}"
    if float(shown) == 0:
        return "equals"
    return f"is {shown} points {'above' if points > 0 else 'below'}"


def _signed(points: float) -> str:
    return f"{points:+z.2f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
