from __future__ import annotations

import numpy as np
import pytest

from ltprompt.experiments.report.published import AVERAGE, languages, paper_examples, paper_task, published, quoted
from ltprompt.tasks import load_task

METHODS = ("FT", "DP", "SP", "MP", "LTP 20 %", "LTP 75 %")
# As printed in the paper, though not the means of their rows.
OFF = {(32, "LTP 20 %"), (64, "LTP 75 %")}


def test_languages_are_those_of_the_tasks() -> None:
    assert set(languages("table1")) == set(load_task("xnli").languages)
    assert set(languages("table2")) == set(load_task("americasnli").languages)
    assert languages("table3") == ("hi", "sw", "tr", "ur", "zh")


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16, 32])
def test_table_1_is_whole_and_its_averages_are_means(shots: int) -> None:
    for method in METHODS:
        row = published("table1", method=method, shots=shots)
        average = row.pop(AVERAGE)
        assert tuple(row) == languages("table1")
        if (shots, method) not in OFF:
            assert average == pytest.approx(np.mean(list(row.values())), abs=0.0051)


def test_numbers_of_the_text() -> None:
    """Those that the paper repeats outside of its tables."""
    assert published("table1", method="SP", shots=2)["sw"] == 34.35
    assert published("table1", method="LTP 20 %", shots=2)["sw"] == 36.49
    assert published("table1", method="LTP 20 %", shots=2)["ur"] == 36.99
    assert published("table1", method="LTP 75 %", shots=16)[AVERAGE] == 40.65
    assert published("table1", method="LTP 75 %", shots=32)[AVERAGE] == 43.42


def test_table_2_is_found_by_source_and_size() -> None:
    averages = {
        ("FT", "MultiNLI", 390_000): 38.48,
        ("SP", "MultiNLI", 32): 35.55,
        ("SP", "MultiNLI", 64): 36.88,
        ("LTP 75 %", "MultiNLI", 32): 37.04,
        ("LTP 75 %", "MultiNLI", 64): 40.40,
        ("SP", "AmericasNLI-dev", 32): 38.36,
        ("LTP 20 %", "AmericasNLI-dev", 32): 38.09,
        ("LTP 75 %", "AmericasNLI-dev", 32): 40.16,
    }
    for (method, source, shots), average in averages.items():
        row = published("table2", method=method, shots=shots, source=source)
        assert row[AVERAGE] == average
        assert len(row) == 11
    assert published("table2", method="LTP 20 %", shots=32, source="MultiNLI") == {}


def test_table_3_has_no_average() -> None:
    for shots in (1, 2, 4, 8, 16, 32):
        for method in ("SP", "LTP 20 %"):
            assert tuple(published("table3", method=method, shots=shots)) == languages("table3")
    assert published("table3", method="LTP 20 %", shots=32)["tr"] == 43.95


def test_what_the_numbers_are_of() -> None:
    assert [paper_task(f"table{number}") for number in (1, 2, 3)] == ["xnli", "americasnli", "xnli"]
    assert {paper_examples(layout, code) for layout in ("table1", "table3") for code in languages(layout)} == {5010}
    # Ebrahimi et al. (2022): 7,486 in all.
    assert sum(paper_examples("table2", code) for code in languages("table2")) == 7486
    assert paper_examples("table2", "nah") == 738


def test_the_quoted_row_is_the_one_of_table_2() -> None:
    (row,) = quoted("table2")
    assert (row.method, row.shots, row.source) == ("FT", 390_000, "MultiNLI")
    assert row.accuracy == published("table2", method="FT", shots=390_000, source="MultiNLI")
    assert quoted("table1") == quoted("table3") == ()


def test_what_the_paper_does_not_have() -> None:
    assert published("table1", method="LTP 20 %", shots=3) == {}
    assert published("table1", method="LTP 20 % (middle)", shots=1) == {}
