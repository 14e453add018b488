from __future__ import annotations

from helpers.synthetic_runs import AMERICAS, grid, run, share, ticket

from ltprompt.experiments.records import RunRecord
from ltprompt.experiments.report.comparisons import compare_rows
from ltprompt.experiments.report.figures import Chart, Curve, Point
from ltprompt.experiments.report.tables import build_table, table_rows
from ltprompt.experiments.report.writers.text import show_chart, show_comparisons, show_table


def text(runs: list[RunRecord], layout: str = "table1") -> str:
    return show_table(build_table(table_rows(runs, layout), layout))


def row(shown: str, *starts: str) -> list[str]:
    (found,) = [line.split() for line in shown.splitlines() if line.split()[: len(starts)] == list(starts)]
    return found[len(starts) :]


def test_wide_table_has_deviation_and_published_number_in_its_average() -> None:
    shown = text(grid(examples=100, shots=(16,), seeds=2))
    cells = row(shown, "16", "SP")
    assert len(cells) == 15 + 4 + 1
    assert cells[16] == "±"
    assert cells[18:] == ["(38.79)", "2"]
    assert "deviations by language: see the files" in shown
    assert row(shown, "16", "LTP", "75", "%")[15].endswith("*")


def test_narrow_table_has_them_everywhere() -> None:
    runs = [
        run({code: share(8 + seed)}, seed=seed, language=code, setting="in-language")
        for code in ("hi", "tr")
        for seed in (1, 2)
    ]
    shown = text(runs, "table3")
    assert row(shown, "16", "SP") == ["47.50", "±", "3.54", "(35.83)", "47.50", "±", "3.54", "(40.22)", "2"]
    assert "see the files" not in shown


def test_a_quoted_line_shows_all_of_its_numbers() -> None:
    runs = [run({code: share(8) for code in AMERICAS}, task="americasnli")]
    quoted = row(text(runs, "table2"), "FT", "MultiNLI", "390000")
    assert quoted[:2] == ["(36.13)", "(39.65)"]
    assert quoted[-2:] == ["(38.48)", "published"]
    assert len(quoted) == len(AMERICAS) + 2


def test_marks_missing_cells_seeds_and_notes() -> None:
    runs = [
        run({"en": share(8), "sw": share(6)}, "ft", 1),
        run({"en": share(9)}, "dp", 1, note="a remark"),
        run({"en": share(7), "sw": share(7)}, "sp", 1),
        run({"en": share(7), "sw": share(7)}, "sp", 2),
    ]
    shown = text(runs)
    assert row(shown, "16", "FT")[0] == "40.00+"
    assert row(shown, "16", "DP[1]")[:3] == ["45.00*", "1/2", "(38.24)"]
    assert row(shown, "16", "DP[1]")[3:] == ["-", "(33.84)", "-", "0", "of", "2", "seeds"]
    assert row(shown, "16", "SP")[:3] == ["35.00", "±", "0.00"]
    assert shown.endswith("[1] a remark")


def test_columns_line_up() -> None:
    lines = text(grid(examples=10, shots=(1, 32), seeds=1)).splitlines()
    header = next(line for line in lines if line.startswith("Shots"))
    for line in lines[lines.index(header) + 1 :]:
        assert line.index(line.split()[1]) == header.index("Method")


def test_comparisons_have_a_row_and_a_sentence_each() -> None:
    rows = table_rows([run({"en": share(8)}), run({"en": share(9)}, "ltp", ticket=ticket(0.2))], "table1")
    found = compare_rows(rows, ("en",))
    shown = show_comparisons(found)
    assert row(shown, "16", "shots", "LTP", "20", "%", "SP", "(best", "baseline)")[:2] == ["1", "+5.00"]
    assert f"- {found[0].sentence()}" in shown.splitlines()


def test_a_chart_is_a_table_of_its_points() -> None:
    curves = (
        Curve("one", (Point(1, 40, 1.234, 3), Point(4, 41, None, 1))),
        Curve("two", (Point(4, 42.5, 0.5, 3),)),
    )
    shown = show_chart(Chart("figure2a", "Title", "Caption.", "shots", "%", curves))
    assert row(shown, "shots") == ["1", "4"]
    assert row(shown, "one") == ["40.00", "±", "1.23", "41.00"]
    assert row(shown, "two") == ["42.50", "±", "0.50"]
    bars = show_chart(
        Chart("figure3", "Title", "", "layer", "", (Curve("one", (Point(0, 1234567, None, 0),)),), bars=True)
    )
    assert row(bars, "one") == ["1,234,567"]
