"""Everything a report shows as tidy CSV: one line a number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from ltprompt.experiments.figures import Chart
from ltprompt.experiments.published import AVERAGE
from ltprompt.experiments.tables import Table

HEADER = ("layout", "shots", "method", "source", "language", "seeds", "mean", "deviation", "published")


def tidy_csv(tables: Sequence[Table], charts: Sequence[Chart]) -> str:
    """Return CSV text: every cell of the tables and every point of the curves, accuracies in %.

    language: ``AVG`` for a mean over languages. seeds: how many the mean takes. mean, deviation, published: empty where
    there is none.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for table in tables:
        writer.writerows(_cells(table))
    for chart in charts:
        writer.writerows(_points(chart))
    return out.getvalue()


def _cells(table: Table) -> Iterator[tuple[object, ...]]:
    for block in table.blocks:
        for line in block:
            for column, cell in zip(table.columns, line.cells, strict=True):
                numbers = (_number(cell.mean), _number(cell.deviation), _number(cell.published))
                yield table.layout, line.shots, line.label, line.source, column, cell.seeds, *numbers


def _points(chart: Chart) -> Iterator[tuple[object, ...]]:
    for curve in chart.curves:
        for row, point in zip(curve.rows, curve.points, strict=False):
            place = (chart.layout, row.spec.shots, row.label, row.spec.source, AVERAGE)
            yield *place, point.seeds, _number(point.y), _number(point.deviation), ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
