from __future__ import annotations

import csv
import io

import pytest
from helpers.synthetic_runs import AMERICAS, XNLI, grid, results, run, share, ticket, ticket_record

from ltprompt.experiments.report.comparisons import compare_rows
from ltprompt.experiments.report.figures import build_chart
from ltprompt.experiments.report.tables import build_table, table_languages, table_rows
from ltprompt.experiments.report.writers.csv import COMPARISONS_HEADER, comparisons_csv, tidy_csv


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_line_for_every_cell_and_point() -> None:
    runs = grid(examples=40, shots=(4, 16))
    table = build_table(table_rows(runs, "table1"), "table1")
    chart = build_chart(results(runs), "figure2b")
    assert chart is not None
    text = tidy_csv([table], [chart])
    assert text.splitlines()[0] == ("layout,shots,method,source,language,seeds,mean,deviation,published,layer,entries")
    rows = read(text)
    assert {(row["layer"], row["entries"]) for row in rows} == {("", "")}
    cells = {(row["shots"], row["method"], row["language"]): row for row in rows if row["layout"] == "table1"}
    assert len(cells) == 2 * 7 * (len(XNLI) + 1)
    for block in table.blocks:
        for line in block:
            for column, cell in zip(table.columns, line.cells, strict=True):
                row = cells[str(line.shots), line.label, column]
                assert float(row["mean"]) == pytest.approx(cell.mean, abs=5e-5)
                assert float(row["deviation"]) == pytest.approx(cell.deviation, abs=5e-5)
                assert row["published"] == ("" if cell.published is None else f"{cell.published:.4f}")
                assert (row["seeds"], row["source"]) == ("3", "MultiNLI")
    points = [row for row in rows if row["layout"] == "figure2b"]
    assert [(row["shots"], row["method"]) for row in points] == [
        (shots, method) for shots in ("4", "16") for method in ("LTP 20 %", "LTP 75 %")
    ]
    for row in points:
        assert row["mean"] == cells[row["shots"], row["method"], "AVG"]["mean"]


def test_what_is_missing_is_empty_and_text_is_quoted() -> None:
    runs = [run({"en": share(8)}, method='a, "b"'), run({"sw": share(8)})]
    rows = read(tidy_csv([build_table(table_rows(runs, "table1"), "table1")], []))
    (missing,) = [row for row in rows if (row["method"], row["language"]) == ("SP", "en")]
    assert (missing["seeds"], missing["mean"], missing["deviation"], missing["published"]) == ("0", "", "", "39.4500")
    assert {row["method"] for row in rows} == {"SP", 'a, "b"'}


def test_figure_3_has_a_line_for_every_layer_of_every_ticket() -> None:
    records = [
        ticket_record(ticket(0.2, strategy=name), entries)
        for name, entries in (("decoupled", [5, 0, 1234567]), ("tied", [7, 8, 9]))
    ]
    chart = build_chart(results([], tickets=records), "figure3")
    assert chart is not None
    rows = read(tidy_csv([], [chart]))
    assert [(row["method"], row["layer"], row["entries"]) for row in rows] == [
        ("decoupled", "0", "5"),
        ("decoupled", "1", "0"),
        ("decoupled", "2", "1234567"),
        ("tied", "0", "7"),
        ("tied", "1", "8"),
        ("tied", "2", "9"),
    ]
    others = {value for row in rows for name, value in row.items() if name not in ("method", "layer", "entries")}
    assert others == {"figure3", ""}


def test_quoted_rows_are_in_the_csv() -> None:
    runs = [run({code: share(8) for code in AMERICAS}, task="americasnli")]
    rows = read(tidy_csv([build_table(table_rows(runs, "table2"), "table2")], []))
    (average,) = [row for row in rows if (row["shots"], row["language"]) == ("390000", "AVG")]
    assert (average["method"], average["seeds"], average["mean"], average["published"]) == ("FT", "0", "", "38.4800")


def test_a_line_for_every_comparison() -> None:
    runs = [*grid(examples=30, shots=(4, 16), languages=("en", "sw")), run({"en": share(8)}, seed=9, shots=1)]
    runs.append(run({"en": share(8)}, "ltp", seed=8, shots=1, ticket=ticket(0.2)))
    rows = table_rows(runs, "table1")
    found = compare_rows(rows, table_languages(rows, "table1"))
    table = build_table(rows, "table1")
    read_back = read(comparisons_csv([(table, found), (table, ())]))
    assert tuple(read_back[0]) == COMPARISONS_HEADER
    assert len(read_back) == len(found) > 6
    for row, comparison in zip(read_back, found, strict=True):
        assert (row["layout"], row["block"], row["row"], row["against"], row["verdict"]) == (
            "table1",
            comparison.block,
            comparison.row,
            comparison.against,
            comparison.verdict,
        )
        if comparison.found is None:
            assert (row["seeds"], row["languages"]) == ("0", "0")
            assert {row[name] for name in COMPARISONS_HEADER[6:-1]} == {""}
        else:
            given = comparison.found
            numbers = (given.mean, given.low, given.high, given.p_examples, comparison.adjusted)
            expected = (given.seeds, given.languages, *numbers, given.p_seeds, given.smallest_p_seeds)
            assert [float(row[name]) for name in COMPARISONS_HEADER[4:-1]] == pytest.approx(expected, abs=5e-5)
    assert {comparison.found is None for comparison in found} == {True, False}
