"""A report as one self-contained HTML page: nothing is fetched, and nothing in it can run but its own script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib import resources

from ltprompt.experiments.report.comparisons import HEADER, Comparison, explanation
from ltprompt.experiments.report.figures import Chart
from ltprompt.experiments.report.tables import DECIMALS, Cell, Line, Table
from ltprompt.experiments.report.writers.text import chart_grid

_MARKS = (("", ""), ("<b>", "</b>"), ("<u>", "</u>"))
_WRAPPED = frozenset({"Method", "Source", "Row", "Against"})


def html_page(name: str, summary: str, sections: Sequence[str]) -> str:
    """Return a page of sections, which are HTML already. name, summary: plain text."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(name)}</title>",
        f"<style>{style}</style>",
        "</head>",
        "<body>",
        f"<h1>{escape(name)}</h1>",
        f"<p>{escape(summary)}</p>",
        *sections,
        f"<script>{script}</script>",
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(lines)


def table_section(table: Table, comparisons: Sequence[Comparison]) -> str:
    """Return a table with its footnotes and comparisons as HTML."""
    caption = [*table.caption, "Bold: best; underlined: second best; small: deviation, and the published number below."]
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    parts = [
        f"<section><h2>{escape(table.title)}</h2>",
        f'<p class="dim">{escape(" ".join(caption))}</p>',
        _frame(table.title, _table(table)),
        f'<ol class="dim">{notes}</ol>' if notes else "",
        *([_comparisons(table, comparisons)] if comparisons else []),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def chart_section(chart: Chart, png: bytes) -> str:
    """Return a figure, its picture within, and its numbers as HTML."""
    header, rows = chart_grid(chart)
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return "\n".join(
        [
            f"<section><h2>{escape(chart.title)}</h2>",
            f'<figure><img src="{source}" alt="{escape(chart.title)}; its numbers are in the table below">',
            f"<figcaption>{escape(chart.caption)}</figcaption></figure>",
            f"<h3>Numbers by {escape(chart.x_label)}</h3>",
            _frame(chart.title, _grid(("", *header[1:]), rows, texts=1)),
            "</section>",
        ]
    )


def text_section(title: str, text: str) -> str:
    """Return a heading and a paragraph as HTML."""
    return f"<section><h2>{escape(title)}</h2>\n<p>{escape(text)}</p></section>"


def _table(table: Table) -> str:
    names = [*table.head, *table.headings(), "Seeds"]
    rows = []
    for block in table.blocks:
        for index, line in enumerate(block):
            rows.append(
                f'<tr class="first">{_row(table, line)}</tr>' if index == 0 else f"<tr>{_row(table, line)}</tr>"
            )
    classes = _head_classes(table)
    return _markup(names, [*classes, *[""] * len(table.columns), "text"], rows)


def _row(table: Table, line: Line) -> str:
    cells = [
        f'<td class="{kind}">{_text(text)}{_notes(line.notes) if name == "Method" else ""}</td>'
        for name, kind, text in zip(table.head, _head_classes(table), table.head_of(line), strict=True)
    ]
    numbers = [_cell(table, line, cell) for cell in line.cells]
    return "".join([*cells, *numbers, f'<td class="text">{escape(table.seeds_of(line))}</td>'])


def _head_classes(table: Table) -> list[str]:
    """Return the classes of the columns before the languages: shots and method stay in sight when scrolled."""
    if table.head[0] == "Shots":
        return ["stick narrow", "stick text wrap"]
    return ["stick text wrap", *("text wrap" if name in _WRAPPED else "" for name in table.head[1:])]


def _cell(table: Table, line: Line, cell: Cell) -> str:
    paper = "" if cell.published is None else f' <small class="paper">{cell.published:.{DECIMALS}f}</small>'
    if cell.mean is None:
        return f'<td data-value="">{"" if line.quoted else "–"}{paper}</td>'
    start, end = _MARKS[cell.rank]
    spread = "" if cell.deviation is None else f" <small>± {cell.deviation:.{DECIMALS}f}</small>"
    partial = table.partial(cell, line)
    told = f" <small>({escape(partial)})</small>" if partial else ""
    shown = f"{start}{cell.mean:.{DECIMALS}f}{end}{spread}{_notes(cell.notes)}{told}{paper}"
    return f'<td data-value="{cell.mean:.{DECIMALS}f}">{shown}</td>'


def _comparisons(table: Table, found: Sequence[Comparison]) -> str:
    grid = _grid(HEADER, [each.cells() for each in found], texts=3)
    sentences = "".join(f"<li>{escape(each.sentence())}</li>" for each in found)
    return "\n".join(
        [
            "<h3>Comparisons</h3>",
            f'<p class="dim">{escape(explanation(found))}</p>',
            _frame(f"Comparisons of {table.title}", grid),
            f"<details open><summary>In words</summary><ul>{sentences}</ul></details>",
        ]
    )


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int) -> str:
    """Return a table of plain texts, the first `texts` columns to the left."""
    classes = ["text wrap" if index < texts else "" for index in range(len(header))]
    classes[0] = "stick text wrap"
    body = []
    for row in rows:
        cells = [f'<td class="{kind}">{_text(text)}</td>' for kind, text in zip(classes, row, strict=True)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return _markup(header, classes, body)


def _markup(names: Sequence[str], classes: Sequence[str], rows: Sequence[str]) -> str:
    headings = "".join(
        f'<th scope="col" class="{kind}" aria-sort="none"><button type="button">{escape(name)}</button></th>'
        for name, kind in zip(names, classes, strict=True)
    )
    return "\n".join(["<table>", f"<thead><tr>{headings}</tr></thead>", "<tbody>", *rows, "</tbody>", "</table>"])


def _frame(label: str, table: str) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">\n{table}\n</div>'


def _text(text: str) -> str:
    """Return a cell's text, a percentage on one line."""
    return escape(text).replace(" %", "&nbsp;%")


def _notes(notes: Sequence[int]) -> str:
    return f"<sup>{','.join(map(str, notes))}</sup>" if notes else ""


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return the hash by which a content security policy allows an inline text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
