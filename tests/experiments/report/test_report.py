from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
from helpers.synthetic_runs import grid, results, run, share, ticket, ticket_record

from ltprompt.errors import InputError, OutputError
from ltprompt.experiments.records import Results, RunRecord
from ltprompt.experiments.report import report
from ltprompt.experiments.report.report import LAYOUTS, write_report

TICKETS = [ticket_record(ticket(0.2, strategy=strategy), [5, 3, 2]) for strategy in ("decoupled", "tied")]


def runs() -> list[RunRecord]:
    """A few of everything."""
    made = grid(examples=12, shots=(4, 16), seeds=2, languages=("en", "sw"))
    made += [run({"en": share(4), "sw": share(5)}, "ltp", 1, 4, ticket=ticket(0.2, strategy="tied"))]
    made += [run({"aym": share(4)}, task="americasnli", note="a remark")]
    made += [run({"hi": share(4)}, method, setting="in-language", language="hi") for method in ("ft", "sp")]
    return made


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


FILES = {"report.html", "report.tex", "report.csv", "comparisons.csv"}
FIGURES = {f"{figure}.{form}" for figure in ("figure2a", "figure2b", "figure3") for form in ("png", "pdf")}


def test_without_layouts_all_that_the_data_allow_is_made(tmp_path: Path) -> None:
    text = write_report(results(runs(), tickets=TICKETS), tmp_path)
    assert names(tmp_path) == FILES | FIGURES
    places = [text.index(title) for title in LAYOUTS.values()]
    assert places == sorted(places)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for title in LAYOUTS.values():
        assert f"<h2>{title}</h2>" in page
    assert page.count("data:image/png") == 3
    latex = (tmp_path / "report.tex").read_text(encoding="utf-8")
    assert [f"\\label{{tab:table{number}}}" in latex for number in (1, 2, 3)] == [True] * 3
    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as lines:
        assert {row["layout"] for row in csv.DictReader(lines)} == set(LAYOUTS)
    with (tmp_path / "comparisons.csv").open(encoding="utf-8", newline="") as lines:
        against = [row["against"] for row in csv.DictReader(lines) if row["row"] == "LTP 75 %"]
    assert len(against) >= 2
    for name in FILES | FIGURES:
        assert f"written: {tmp_path / name}" in text


def test_only_the_layouts_asked_for_are_made(tmp_path: Path) -> None:
    text = write_report(results(runs(), ["figure2b", "table3", "table3"], TICKETS), tmp_path)
    assert names(tmp_path) == FILES | {"figure2b.png", "figure2b.pdf"}
    assert [title in text for title in LAYOUTS.values()] == [False, False, True, False, True, False]
    assert text.count(LAYOUTS["table3"]) == 1


def test_without_layouts_nothing_is_made_of_nothing(tmp_path: Path) -> None:
    few = [run({"en": share(4)}), run({"en": share(5)}, "ltp", ticket=ticket(0.2))]
    write_report(results(few), tmp_path)
    assert names(tmp_path) == FILES


def test_a_layout_without_runs_is_said(tmp_path: Path) -> None:
    text = write_report(results([], ["table1", "figure3"]), tmp_path)
    assert text.startswith("a grid: 0 of 1 runs finished.")
    assert text.count(report._NOTHING) == 2
    assert names(tmp_path) == FILES
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count(report._NOTHING) == 2


def test_an_empty_grid_has_an_empty_report(tmp_path: Path) -> None:
    assert "Table" not in write_report(results([]), tmp_path)
    assert names(tmp_path) == FILES


def test_an_unknown_layout_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"unknown layout 'tabel1': did you mean 'table1'\? choose from table1, .*figure3"
    ):
        write_report(results(runs(), ["table2", "tabel1"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_equal_results_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    made = runs()
    first = results(made, tickets=TICKETS)
    random.Random(3).shuffle(made)
    second = Results(first.name, first.layouts, tuple(made), tuple(reversed(first.tickets)), first.planned)
    texts = [write_report(each, tmp_path / name) for each, name in ((first, "a"), (second, "b"), (first, "c"))]
    assert len({text.replace(str(tmp_path / name), "") for text, name in zip(texts, "abc", strict=True)}) == 1
    for name in FILES | FIGURES:
        assert len({(tmp_path / folder / name).read_bytes() for folder in "abc"}) == 1


def test_files_go_where_they_are_wanted(tmp_path: Path) -> None:
    places = {"html": tmp_path / "x" / "page.htm", "latex": tmp_path / "t.tex", "csv": tmp_path / "y" / "data.csv"}
    text = write_report(results(runs(), ["table1", "figure3"], TICKETS), tmp_path / "out", **places)
    assert names(tmp_path / "out") == {"figure3.png", "figure3.pdf", "comparisons.csv"}
    assert places["html"].read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert places["latex"].read_text(encoding="utf-8").startswith("% a grid\n")
    assert places["csv"].read_text(encoding="utf-8").startswith("layout,")
    for path in places.values():
        assert f"written: {path}" in text


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write"):
        write_report(results(runs(), ["table1"]), tmp_path / "file")


def test_an_old_report_is_replaced(tmp_path: Path) -> None:
    write_report(results(runs(), ["table1"]), tmp_path)
    text = write_report(results(runs()[:3], ["table1"], name="another"), tmp_path)
    assert text.startswith("another: 3 of 4 runs finished.")
    assert "<title>another</title>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert names(tmp_path) == FILES
