"""The report of a grid: text for a terminal, and HTML, LaTeX, CSV and figures as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ltprompt.errors import InputError, choices
from ltprompt.experiments.records import FIGURES, TABLES, Results
from ltprompt.experiments.report.comparisons import Comparison, compare_rows
from ltprompt.experiments.report.figures import Chart, build_chart
from ltprompt.experiments.report.tables import Table, build_table, table_languages, table_rows
from ltprompt.experiments.report.writers.chart import draw_chart
from ltprompt.experiments.report.writers.csv import comparisons_csv, tidy_csv
from ltprompt.experiments.report.writers.html import chart_section, html_page, table_section, text_section
from ltprompt.experiments.report.writers.latex import latex_page
from ltprompt.experiments.report.writers.text import show_chart, show_comparisons, show_table
from ltprompt.files.artifacts import REPORT_COMPARISONS, REPORT_CSV, REPORT_HTML, REPORT_LATEX, atomic_path, write_text
from ltprompt.tickets.chart import FORMS

LAYOUTS = {**TABLES, **FIGURES}
_NOTHING = "No finished run or ticket of the grid belongs here yet."


@dataclass(frozen=True)
class _Content:
    """What a report shows. missing: the layouts asked for that nothing can be made of yet."""

    tables: tuple[tuple[Table, tuple[Comparison, ...]], ...]
    charts: tuple[Chart, ...]
    missing: tuple[str, ...]


def write_report(
    results: Results,
    out: str | Path,
    *,
    html: str | Path | None = None,
    latex: str | Path | None = None,
    csv: str | Path | None = None,
    width: int | None = None,
    show: Callable[[str], object] | None = None,
) -> str:
    """Write a report's files and return its text for a terminal. Equal results give equal bytes.

    out: folder of the figures (PNG and PDF each), of ``comparisons.csv`` and, where no other place is given, of
    ``report.html``, ``report.tex`` and ``report.csv``. The layouts of `results` say what is made; where it names none,
    all that its runs and tickets allow. width: columns of the terminal that the text is for, if any (see
    `terminal.table`); the files are whole. show: called with the text before anything is written, and with the list of
    files afterwards.

    Raises `InputError` for an unknown layout, `OutputError` where a file cannot be written.
    """
    out, content = Path(out), _content(results)
    pictures = {(chart.layout, form): draw_chart(chart, form) for chart in content.charts for form in FORMS}
    tables = [table for table, _ in content.tables]
    places = {
        "html": Path(html or out / REPORT_HTML),
        "latex": Path(latex or out / REPORT_LATEX),
        "csv": Path(csv or out / REPORT_CSV),
        "comparisons": out / REPORT_COMPARISONS,
    }
    texts = {
        "html": _page(results, content, {layout: data for (layout, form), data in pictures.items() if form == "png"}),
        "latex": latex_page(results.name, content.tables, content.charts),
        "csv": tidy_csv(tables, content.charts),
        "comparisons": comparisons_csv(content.tables),
    }
    text = _text(results, content, width)
    if show:
        show(text)
    for (layout, form), data in pictures.items():
        with atomic_path(out / f"{layout}.{form}") as temporary:
            temporary.write_bytes(data)
    for kind, path in places.items():
        write_text(path, texts[kind])
    figures = [out / f"{layout}.{form}" for layout, form in pictures]
    written = "\n".join(f"written: {path}" for path in [*places.values(), *figures])
    if show:
        show(f"\n{written}")
    return f"{text}\n\n{written}"


def _content(results: Results) -> _Content:
    wanted = _wanted(results.layouts)
    tables = [_table(results, layout) for layout in wanted if layout in TABLES]
    charts = [build_chart(results, layout) for layout in wanted if layout in FIGURES]
    found = tuple(table for table in tables if table)
    drawn = tuple(chart for chart in charts if chart and (results.layouts or chart.compares))
    shown = {*(table.layout for table, _ in found), *(chart.layout for chart in drawn)}
    missing = [layout for layout in wanted if results.layouts and layout not in shown]
    return _Content(found, drawn, tuple(missing))


def _wanted(layouts: Sequence[str]) -> tuple[str, ...]:
    """Return the layouts to make in the paper's order; all where none is named."""
    for layout in layouts:
        if layout not in LAYOUTS:
            raise InputError(f"unknown layout {layout!r}: {choices(layout, LAYOUTS)}")
    return tuple(layout for layout in LAYOUTS if not layouts or layout in layouts)


def _table(results: Results, layout: str) -> tuple[Table, tuple[Comparison, ...]] | None:
    rows = table_rows(results.runs, layout)
    if not rows:
        return None
    return build_table(rows, layout), compare_rows(rows, table_languages(rows, layout))


def _summary(results: Results) -> str:
    return f"{len(results.runs)} of {results.planned} runs finished."


def _text(results: Results, content: _Content, width: int | None) -> str:
    blocks = [f"{results.name}: {_summary(results)}"]
    for table, comparisons in content.tables:
        blocks.append(show_table(table, width))
        if comparisons:
            blocks.append(show_comparisons(comparisons, width))
    blocks.extend(show_chart(chart, width) for chart in content.charts)
    blocks.extend(f"{LAYOUTS[layout]}\n{_NOTHING}" for layout in content.missing)
    return "\n\n".join(blocks)


def _page(results: Results, content: _Content, pictures: dict[str, bytes]) -> str:
    sections = [
        *(table_section(table, comparisons) for table, comparisons in content.tables),
        *(chart_section(chart, pictures[chart.layout]) for chart in content.charts),
        *(text_section(LAYOUTS[layout], _NOTHING) for layout in content.missing),
    ]
    return html_page(results.name, _summary(results), sections)
