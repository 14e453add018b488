"""The paper's Tables 1, 2 and 3 of finished runs: means, deviations, the best of each block, the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ltprompt.experiments.labels import cut_method_label, place
from ltprompt.experiments.records import TABLES, RunRecord
from ltprompt.experiments.report.published import (
    AVERAGE,
    BACKBONE,
    Quoted,
    languages,
    paper_examples,
    paper_task,
    published,
    quoted,
)
from ltprompt.experiments.report.rows import Row, group_rows
from ltprompt.experiments.report.statistics import mean_and_deviation

AMERICAS = "americasnli"
DECIMALS = 2


@dataclass(frozen=True)
class Cell:
    """One number of a table, in %.

    mean: over seeds, None where there is no result. deviation: sample deviation over seeds, None below two. seeds: how
    many. published: the paper's number. rank: 1 the best of its block, 2 the second, else 0. notes: from 1.
    """

    mean: float | None
    deviation: float | None
    seeds: int
    published: float | None
    rank: int = 0
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Line:
    """A row of a table.

    seeds: how many have all languages. notes: those of all its cells, which then have none. quoted: whether the line is
    the paper's alone, without runs here.
    """

    label: str
    shots: int
    source: str
    seeds: int
    cells: tuple[Cell, ...]
    notes: tuple[int, ...] = ()
    quoted: bool = False


@dataclass(frozen=True)
class Table:
    """A table to be shown.

    head: what stands before the languages. columns: languages, and ``AVG`` last where the layout has it. seeds: how
    many seeds the runs of the table have. blocks: lines whose numbers are ranked together, and last, where there are
    any, those that the paper alone has. notes: footnotes.
    """

    layout: str
    title: str
    caption: tuple[str, ...]
    head: tuple[str, ...]
    columns: tuple[str, ...]
    seeds: int
    blocks: tuple[tuple[Line, ...], ...]
    notes: tuple[str, ...]

    def headings(self) -> tuple[str, ...]:
        """Return the headings of `columns`: XNLI's languages in capitals, as in the paper."""
        return self.columns if self.layout == "table2" else tuple(column.upper() for column in self.columns)

    def head_of(self, line: Line) -> tuple[str, ...]:
        """Return what stands before a line's numbers."""
        cells = {"Shots": str(line.shots), "Size": str(line.shots), "Method": line.label, "Source": line.source}
        return tuple(cells[name] for name in self.head)

    def seeds_of(self, line: Line) -> str:
        """Return how many seeds a line's average takes, or that it is published."""
        if line.quoted:
            return "published"
        return str(line.seeds) if line.seeds == self.seeds else f"{line.seeds} of {self.seeds} seeds"

    def partial(self, cell: Cell, line: Line) -> str:
        """Return ``1 of 3 seeds`` for a cell that lacks seeds which its line does not say it lacks, else nothing."""
        told = cell.mean is None or cell.seeds in (self.seeds, line.seeds)
        return "" if told else f"{cell.seeds} of {self.seeds} seeds"


def table_rows(runs: Sequence[RunRecord], layout: str) -> tuple[Row, ...]:
    """Return the rows of a table; none where no run belongs into it.

    Runs of AmericasNLI make Table 2; those of any other task Table 1 where they are zero-shot, else Table 3.
    """
    if layout == "table2":
        rows = group_rows([run for run in runs if run.spec.task == AMERICAS], by_source=True)
        return tuple(sorted(rows, key=_americas_order))
    setting = "zero-shot" if layout == "table1" else "in-language"
    return group_rows([run for run in runs if run.spec.task != AMERICAS and run.spec.setting == setting])


def table_languages(rows: Sequence[Row], layout: str) -> tuple[str, ...]:
    """Return the languages that some rows have, those of the paper first and in its order."""
    found = {language for row in rows for language in row.languages}
    known = [language for language in languages(layout) if language in found]
    return (*known, *sorted(found - set(known)))


def build_table(rows: Sequence[Row], layout: str) -> Table:
    """Return a table of at least one row, as `table_rows` gives them."""
    codes = table_languages(rows, layout)
    notes = tuple(sorted({result.note for row in rows for result in row.results.values() if result.note}))
    by_block: dict[int, list[Line]] = {}
    for row in rows:
        by_block.setdefault(0 if layout == "table2" else row.spec.shots, []).append(_line(row, layout, codes, notes))
    blocks = [_ranked(lines) for lines in by_block.values()]
    columns = codes if layout == "table3" else (*codes, AVERAGE)
    alone = _quoted_lines(rows, layout, columns)
    if alone:
        blocks.append(alone)
    return Table(
        layout=layout,
        title=TABLES[layout],
        caption=_caption(rows, layout, blocks),
        head=("Method", "Source", "Size") if layout == "table2" else ("Shots", "Method"),
        columns=columns,
        seeds=len({seed for row in rows for seed, _ in row.results}),
        blocks=tuple(blocks),
        notes=notes,
    )


def _americas_order(row: Row) -> tuple[object, ...]:
    return row.spec.setting != "zero-shot", row.spec.source, place(row.spec), row.spec.shots, row.label


def _line(row: Row, layout: str, codes: tuple[str, ...], notes: tuple[str, ...]) -> Line:
    paper = _paper_numbers(row, layout)
    cells = [_cell(row.accuracies([code]), paper.get(code), _notes(row, code, notes)) for code in codes]
    common = {cell.notes for cell in cells if cell.mean is not None}
    shared = common.pop() if len(common) == 1 else ()
    if shared:
        cells = [replace(cell, notes=()) for cell in cells]
    if layout != "table3":
        # The paper's average is of all its languages.
        average = paper.get(AVERAGE) if set(codes) == set(languages(layout)) else None
        cells.append(_cell(row.accuracies(codes), average, ()))
    return Line(row.label, row.spec.shots, row.spec.source, len(row.seeds(codes)), tuple(cells), shared)


def _paper_numbers(row: Row, layout: str) -> dict[str, float]:
    """Return the paper's numbers of a row; none for another task or for settings that were varied."""
    if row.tuned or row.spec.task != paper_task(layout):
        return {}
    source = row.spec.source if layout == "table2" else None
    return published(layout, method=cut_method_label(row.spec), shots=row.spec.shots, source=source)


def _quoted_lines(rows: Sequence[Row], layout: str, columns: Sequence[str]) -> tuple[Line, ...]:
    """Return the rows that the paper quotes and that no run is of, where the table has the paper's languages."""
    if {*columns, AVERAGE} != {*languages(layout), AVERAGE}:
        return ()
    own = {(cut_method_label(row.spec), row.spec.shots, row.spec.source) for row in rows}
    return tuple(
        _quoted_line(each, columns) for each in quoted(layout) if (each.method, each.shots, each.source) not in own
    )


def _quoted_line(found: Quoted, columns: Sequence[str]) -> Line:
    cells = tuple(Cell(None, None, 0, found.accuracy[column]) for column in columns)
    return Line(found.method, found.shots, found.source, 0, cells, quoted=True)


def _cell(values: Sequence[float], paper: float | None, notes: tuple[int, ...]) -> Cell:
    if not values:
        return Cell(None, None, 0, paper)
    mean, deviation = mean_and_deviation(values)
    return Cell(mean, deviation, len(values), paper, notes=notes)


def _notes(row: Row, code: str, notes: tuple[str, ...]) -> tuple[int, ...]:
    found = {result.note for (_, language), result in row.results.items() if language == code and result.note}
    return tuple(sorted(notes.index(note) + 1 for note in found))


def _ranked(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Mark the best and the second of each column, as shown: equal numbers share a rank; a lone line has none."""
    columns = [_ranks([cell.mean for cell in column]) for column in zip(*(line.cells for line in lines), strict=True)]
    return tuple(
        replace(line, cells=tuple(replace(cell, rank=columns[at][index]) for at, cell in enumerate(line.cells)))
        for index, line in enumerate(lines)
    )


def _ranks(means: Sequence[float | None]) -> list[int]:
    shown = [None if mean is None else round(mean, DECIMALS) for mean in means]
    if len(shown) - shown.count(None) < 2:
        return [0] * len(shown)
    best = sorted({mean for mean in shown if mean is not None}, reverse=True)[:2]
    return [best.index(mean) + 1 if mean in best else 0 for mean in shown]


def _caption(rows: Sequence[Row], layout: str, blocks: Sequence[Sequence[Line]]) -> tuple[str, ...]:
    block = "the table" if layout == "table2" else "the same shots"
    average = "; AVG takes the seeds that have all languages, which Seeds counts" if layout != "table3" else ""
    lines = [line for lines in blocks for line in lines]
    shown = any(cell.published is not None for line in lines for cell in line.cells)
    return (
        f"Accuracy in %: mean over seeds ± sample standard deviation over seeds (none for one seed){average}.",
        f"Marked: the best of {block} and the second best; equal numbers share a mark.",
        *([_paper_caption(rows, layout)] if shown else []),
        *(["Lines marked published are the paper's alone, without runs here."] if lines[-1].quoted else []),
    )


def _paper_caption(rows: Sequence[Row], layout: str) -> str:
    backbones = sorted({row.spec.backbone for row in rows})
    others = []
    if any(name.rpartition("/")[2].lower() != BACKBONE for name in backbones):
        others.append(", ".join(backbones))
    if _other_tests(rows, layout):
        others.append("test rows other than the paper's")
    text = "Published numbers are the paper's, for XLM-R-base"
    return f"{text}; these runs have {' and '.join(others)}, so the two cannot be compared." if others else f"{text}."


def _other_tests(rows: Sequence[Row], layout: str) -> bool:
    """Whether runs of the paper's task were tested on other rows: fewer, more, or such as a note tells of."""
    own = [row for row in rows if row.spec.task == paper_task(layout)]
    results = [(language, result) for row in own for (_, language), result in row.results.items()]
    return any(
        result.note or len(result.hits) != paper_examples(layout, language)
        for language, result in results
        if language in languages(layout)
    )
