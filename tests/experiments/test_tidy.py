from __future__ import annotations

import csv
import io

import pytest
from synthetic_runs import XNLI, grid, results, run, share

from ltprompt.experiments.figures import build_chart
from ltprompt.experiments.tables import build_table, table_rows
from ltprompt.experiments.tidy import tidy_csv


def test_a_line_for_every_cell_and_point() -> None:
    runs = grid(examples=40, shots=(4, 16))
    table = build_table(table_rows(runs, "table1"), "table1")
    chart = build_chart(results(runs), "figure2b")
    assert chart is not None
    text = tidy_csv([table], [chart])
    assert text.splitlines()[0] == "layout,shots,method,source,language,seeds,mean,deviation,published"
    rows = list(csv.DictReader(io.StringIO(text)))
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
    rows = list(csv.DictReader(io.StringIO(tidy_csv([build_table(table_rows(runs, "table1"), "table1")], []))))
    (missing,) = [row for row in rows if (row["method"], row["language"]) == ("SP", "en")]
    assert (missing["seeds"], missing["mean"], missing["deviation"], missing["published"]) == ("0", "", "", "39.4500")
    assert {row["method"] for row in rows} == {"SP", 'a, "b"'}
