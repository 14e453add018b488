"""Tables, comparisons and figures as LaTeX (booktabs, graphicx)."""

from __future__ import annotations

from collections.abc import Sequence

from ltprompt.experiments.report.comparisons import HEADER, Comparison, explanation
from ltprompt.experiments.report.figures import Chart
from ltprompt.experiments.report.tables import DECIMALS, Cell, Line, Table

_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "''",
        "±": r"$\pm$",
        "−": "$-$",
    }
)
_PREAMBLE = r"""% Needs, before \begin{document}:
%   \usepackage[utf8]{inputenc}
%   \usepackage[T1]{fontenc}
%   \usepackage{booktabs}
%   \usepackage{graphicx}
% A whole document: \documentclass{article}, these four lines, \begin{document}, \input{THIS FILE}, \end{document}.
% Figures are looked for beside the document; \graphicspath{{FOLDER/}} names another folder.
"""
_MARKS = ("{}", r"\textbf{{{}}}", r"\underline{{{}}}")


def latex_page(name: str, sections: Sequence[tuple[Table, Sequence[Comparison]]], charts: Sequence[Chart] = ()) -> str:
    """Return the tables of a report, each with its comparisons, and its figures as LaTeX to be input into a document.

    A figure is the PDF file that has its layout's name.
    """
    # On one line, so that nothing of the name leaves the comment.
    parts = [f"% {' '.join(name.split())}\n{_PREAMBLE}"]
    for table, comparisons in sections:
        parts.append(_table(table))
        if comparisons:
            parts.append(_comparisons(table, comparisons))
    parts.extend(map(_figure, charts))
    return "\n".join(parts)


def escape(text: str) -> str:
    """Return text as LaTeX shows it, on one line."""
    return " ".join(text.split()).translate(_SPECIAL)


def _table(table: Table) -> str:
    names = "".join("r" if name in ("Shots", "Size") else "l" for name in table.head)
    body = [_cells([*map(escape, (*table.head, *table.headings())), "Seeds"])]
    for block in table.blocks:
        body.append(r"\midrule")
        body.extend(text for line in block for text in _line(table, line))
    caption = [_titled(table.title) + ".", *table.caption, "Bold: best; underlined: second; italics: published."]
    notes = [f"({number}) {note}." for number, note in enumerate(table.notes, start=1)]
    columns = names + "r" * len(table.columns) + "l"
    return _float(columns, body, " ".join([*caption, *notes]), table.layout)


def _line(table: Table, line: Line) -> list[str]:
    """Return a line and, where the paper has numbers, a second one with them; of a quoted line these alone."""
    head = [escape(text) for text in table.head_of(line)]
    method = table.head.index("Method")
    head[method] += _notes(line.notes)
    seeds = escape(table.seeds_of(line))
    paper = ["" if cell.published is None else rf"\textit{{{_digits(cell.published)}}}" for cell in line.cells]
    if line.quoted:
        return [_cells([*head, *paper, seeds])]
    rows = [_cells([*head, *(_cell(table, line, cell) for cell in line.cells), seeds])]
    if any(paper):
        names = [r"\quad\textit{published}" if at == method else "" for at in range(len(head))]
        rows.append(_cells([*names, *paper, ""]))
    return rows


def _cell(table: Table, line: Line, cell: Cell) -> str:
    if cell.mean is None:
        return "--"
    spread = "" if cell.deviation is None else rf" {{\scriptsize $\pm$ {_digits(cell.deviation)}}}"
    partial = table.partial(cell, line)
    told = rf" {{\scriptsize ({escape(partial)})}}" if partial else ""
    return _MARKS[cell.rank].format(_digits(cell.mean)) + spread + _notes(cell.notes) + told


def _comparisons(table: Table, found: Sequence[Comparison]) -> str:
    body = [_cells(map(escape, HEADER)), r"\midrule", *(_cells(map(escape, each.cells())) for each in found)]
    items = "\n".join(rf"\item {escape(each.sentence())}" for each in found)
    text = _float(
        "lllrrrrrl", body, f"Comparisons: {_titled(table.title)}. {explanation(found)}", f"{table.layout}-comparisons"
    )
    return f"{text}\n\\begin{{itemize}}\n{items}\n\\end{{itemize}}\n"


def _figure(chart: Chart) -> str:
    lines = [
        r"\begin{figure}",
        r"\centering",
        rf"\includegraphics[width=\linewidth]{{{chart.layout}.pdf}}",
        rf"\caption{{{escape(f'{_titled(chart.title)}. {chart.caption}')}}}",
        rf"\label{{fig:{chart.layout}}}",
        r"\end{figure}",
        "",
    ]
    return "\n".join(lines)


def _titled(title: str) -> str:
    """Return a title without the paper's number in front, as LaTeX numbers by itself, but with it named."""
    number, _, what = title.partition(": ")
    return f"{what[:1].upper()}{what[1:]}, as in the paper's {number}" if what else title


def _float(columns: str, body: Sequence[str], caption: str, label: str) -> str:
    lines = [
        r"\begin{table*}",
        r"\centering",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{tab:{label}}}",
        r"\end{table*}",
        "",
    ]
    return "\n".join(lines)


def _cells(texts: Sequence[str] | map[str]) -> str:
    return " & ".join(texts) + r" \\"


def _notes(notes: Sequence[int]) -> str:
    return f"$^{{({','.join(map(str, notes))})}}$" if notes else ""


def _digits(value: float) -> str:
    return f"{value:.{DECIMALS}f}"
