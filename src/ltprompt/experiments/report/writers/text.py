"""Tables, comparisons and figures as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from ltprompt.experiments.report.comparisons import HEADER, Comparison, explanation
from ltprompt.experiments.report.figures import Chart, Point
from ltprompt.experiments.report.published import AVERAGE
from ltprompt.experiments.report.tables import DECIMALS, Cell, Line, Table
from ltprompt.terminal import table

# A table of more columns shows deviations and the paper's numbers in its average only.
_FEW_COLUMNS = 6
_MARKS = (" ", "*", "+")


def show_table(found: Table, width: int | None = None) -> str:
    """Return a table as text: * marks the best of a block, + the second best. width: as `terminal.table` takes it."""
    header = [*found.head, *found.headings(), "Seeds"]
    rows = [_row(found, line) for block in found.blocks for line in block]
    marks = "* best, + second best; in brackets the published number; n/m: n of the table's m seeds"
    wide = len(found.columns) > _FEW_COLUMNS
    lines = [found.title, *found.caption, *([f"{marks}; deviations by language: see the files"] if wide else [marks])]
    notes = [f"[{number}] {note}" for number, note in enumerate(found.notes, start=1)]
    return "\n".join([*lines, "", _aligned(header, rows, found.head, width), *notes])


def show_comparisons(found: Sequence[Comparison], width: int | None = None) -> str:
    """Return comparisons as a table and a sentence each. width: as `terminal.table` takes it."""
    rows = [comparison.cells() for comparison in found]
    sentences = [f"- {comparison.sentence()}" for comparison in found]
    return "\n".join(["Comparisons", explanation(found), "", _aligned(HEADER, rows, HEADER[:3], width), "", *sentences])


def show_chart(chart: Chart, width: int | None = None) -> str:
    """Return a figure as text: a row for each of its curves. width: as `terminal.table` takes it."""
    return "\n".join([chart.title, chart.caption, "", table(*chart_grid(chart), width)])


def chart_grid(chart: Chart) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return a figure as a table: the header, and a row of texts for each curve."""
    rows = []
    for curve in chart.curves:
        points = {point.x: point for point in curve.points}
        rows.append((curve.label, *(_point(points.get(tick), chart.bars) for tick in chart.ticks)))
    return (chart.x_label, *(f"{tick:.10g}" for tick in chart.ticks)), rows


def _number(mean: float, deviation: float | None, mark: str = "") -> str:
    spread = "" if deviation is None else f" ± {deviation:.{DECIMALS}f}"
    return f"{mean:.{DECIMALS}f}{mark}{spread}"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[str], width: int | None) -> str:
    """Return a table whose columns named in `texts` stand to the left, unless they hold numbers."""
    columns = list(zip(*[header, *rows], strict=True))
    for index, column in enumerate(columns):
        if column[0] in texts and not column[-1].isdigit():
            columns[index] = tuple(text.ljust(max(map(len, column))) for text in column)
    first, *others = zip(*columns, strict=True)
    return table(first, others, width)


def _row(found: Table, line: Line) -> list[str]:
    few = len(found.columns) <= _FEW_COLUMNS
    cells = [
        _cell(cell, found, line, whole=few or line.quoted or column == AVERAGE)
        for column, cell in zip(found.columns, line.cells, strict=True)
    ]
    head = list(found.head_of(line))
    head[found.head.index("Method")] += _notes(line.notes)
    return [*head, *cells, found.seeds_of(line)]


def _cell(cell: Cell, found: Table, line: Line, *, whole: bool) -> str:
    paper = f" ({cell.published:.{DECIMALS}f})" if whole and cell.published is not None else ""
    if cell.mean is None:
        return paper.lstrip() if line.quoted else f"-{paper}"
    partial = f" {cell.seeds}/{found.seeds}" if found.partial(cell, line) else ""
    shown = _number(cell.mean, cell.deviation if whole else None, _MARKS[cell.rank])
    return f"{shown}{_notes(cell.notes)}{partial}{paper}"


def _notes(notes: Sequence[int]) -> str:
    return "".join(f"[{note}]" for note in notes)


def _point(point: Point | None, counted: bool) -> str:
    if point is None:
        return ""
    return f"{point.y:,.0f}" if counted else _number(point.y, point.deviation)
