"""Everything a report shows as tidy CSV: one line a number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from ltprompt.experiments.report.comparisons import Comparison
from ltprompt.experiments.report.figures import Chart
from ltprompt.experiments.report.published import AVERAGE
from ltprompt.experiments.report.tables import Table

HEADER = (
    "layout",
    "shots",
    "method",
    "source",
    "language",
    "seeds",
    "mean",
    "deviation",
    "published",
    "layer",
    "entries",
)
COMPARISONS_HEADER = (
    "layout",
    "block",
    "row",
    "against",
    "seeds",
    "languages",
    "difference",
    "low",
    "high",
    "p_examples",
    "p_examples_adjusted",
    "p_seeds",
    "smallest_p_seeds",
    "verdict",
)
_P_DECIMALS = 6


def tidy_csv(tables: Sequence[Table], charts: Sequence[Chart]) -> str:
    """Return CSV text: every cell of the tables and every point of the curves, accuracies in %.

    language: ``AVG`` for a mean over languages. seeds: how many the mean takes. mean, deviation, published: empty where
    there is none. layer, entries: of a ticket of Figure 3, whose method is the label of its bars, and of nothing else.
    """
    lines = [line for table in tables for line in _cells(table)]
    return _text(HEADER, [*lines, *(line for chart in charts for line in _points(chart))])


def comparisons_csv(sections: Sequence[tuple[Table, Sequence[Comparison]]]) -> str:
    """Return CSV text: every comparison of the tables, one a line, in points of accuracy.

    The numbers are those of `Difference`, empty where the two rows share no seed. p_examples_adjusted: by Holm's method
    within a table.
    """
    return _text(COMPARISONS_HEADER, [_comparison(table.layout, each) for table, found in sections for each in found])


def _text(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return out.getvalue()


def _cells(table: Table) -> Iterator[tuple[object, ...]]:
    for block in table.blocks:
        for line in block:
            for column, cell in zip(table.columns, line.cells, strict=True):
                numbers = (_number(cell.mean), _number(cell.deviation), _number(cell.published))
                yield table.layout, line.shots, line.label, line.source, column, cell.seeds, *numbers, "", ""


def _points(chart: Chart) -> Iterator[tuple[object, ...]]:
    if chart.bars:
        for curve in chart.curves:
            for point in curve.points:
                yield chart.layout, "", curve.label, "", "", "", "", "", "", int(point.x), int(point.y)
        return
    for curve in chart.curves:
        for row, point in zip(curve.rows, curve.points, strict=True):
            place = (chart.layout, row.spec.shots, row.label, row.spec.source, AVERAGE)
            yield *place, point.seeds, _number(point.y), _number(point.deviation), "", "", ""


def _comparison(layout: str, comparison: Comparison) -> tuple[object, ...]:
    place = (layout, comparison.block, comparison.row, comparison.against)
    found = comparison.found
    if found is None:
        return *place, 0, 0, *[""] * 7, comparison.verdict
    points = [_number(value) for value in (found.mean, found.low, found.high)]
    p_values = (found.p_examples, comparison.adjusted, found.p_seeds, found.smallest_p_seeds)
    shown = [f"{value:.{_P_DECIMALS}f}" for value in p_values]
    return *place, found.seeds, found.languages, *points, *shown, comparison.verdict


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
