"""What an evaluation shows: its tables as text and as HTML, its confusions whole or the worst of them, one line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ltprompt.stage2.measures import Evaluation, measure


def evaluation(labels: Sequence[str], **pairs: tuple[list[int], list[int]]) -> Evaluation:
    """An evaluation of languages, each with the numbers of its gold and its predicted classes."""
    measures = {name: measure(np.array(gold), np.array(found), len(labels)) for name, (gold, found) in pairs.items()}
    return Evaluation(tuple(labels), measures, {}, {}, "fp32")


def many(count: int) -> Evaluation:
    """An evaluation whose class i >= 1 is taken i times for class 0 and once for itself; class 0 is always right."""
    gold = [0, *(i for i in range(1, count) for _ in range(i + 1))]
    predicted = [0, *(n for i in range(1, count) for n in [*[0] * i, i])]
    return evaluation([f"label {i}" for i in range(count)], en=(gold, predicted))


def test_many_labels_are_shown_as_the_ten_worst_confusions() -> None:
    _, confusions = many(60).sheets()
    assert list(confusions.header) == ["en: gold", "predicted", "count", "of gold"]
    assert [list(row) for row in confusions.rows] == [
        [f"label {i}", "label 0", str(i), f"{i / (i + 1):.1%}"] for i in range(59, 49, -1)
    ]
    assert confusions.note.startswith("10 most frequent of 59 confusions; ")


@pytest.mark.parametrize(
    ("count", "width", "whole"), [(8, None, True), (9, None, False), (8, 200, True), (8, 60, False)]
)
def test_a_matrix_is_whole_up_to_eight_labels_that_fit(count: int, width: int | None, whole: bool) -> None:
    found = many(count)
    _, confusions = found.sheets(width)
    assert (len(confusions.header) == count + 1) == whole
    if whole:
        assert [[int(cell) for cell in row[1:]] for row in confusions.rows] == [
            *map(list, found.by_language["en"].confusion)
        ]


def test_of_many_labels_without_a_mistake_there_is_no_confusion_to_show() -> None:
    right = list(range(12))
    _, confusions = evaluation([f"label {i}" for i in right], en=(right, right)).sheets()
    assert list(confusions.rows) == []
    assert confusions.note == "no confusion"


def test_classes_that_do_not_occur_are_told_and_only_then() -> None:
    whole, partly = ([0, 1, 2], [0, 2, 2]), ([0, 1, 1], [0, 1, 0])
    first, *_ = evaluation("abc", en=whole).sheets()
    assert "classes" not in first.header
    first, *_ = evaluation("abc", en=whole, sw=partly).sheets()
    assert [list(row)[-1] for row in first.rows] == ["3 of 3", "2 of 3", ""]
    assert first.header[-1] == "classes"
    assert "classes that occur" in first.note


def test_a_notebook_gets_the_same_cells_with_every_name_escaped() -> None:
    found = evaluation(["<b>yes</b>", "no & no"], en=([0, 1], [0, 0]))
    page = found._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;yes&lt;/b&gt;" in page
    assert "no &amp; no" in page
    cells = sum(len(sheet.header) * (len(sheet.rows) + 1) for sheet in found.sheets())
    assert page.count("<td>") + page.count("<th>") == cells


def test_an_evaluation_is_one_line() -> None:
    assert repr(evaluation("ab", en=([0, 1], [0, 1]))) == "Evaluation(en, accuracy 100.0%, macro_f1 100.0%, fp32)"
    assert repr(evaluation("ab", **{f"l{i}": ([0, 1], [0, 0]) for i in range(6)})).startswith(
        "Evaluation(6 languages, "
    )
    assert repr(evaluation("ab")) == "Evaluation(no language, fp32)"
