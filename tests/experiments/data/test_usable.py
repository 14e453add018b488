from __future__ import annotations

from pathlib import Path

import pytest

from ltprompt.errors import InputError
from ltprompt.experiments.data.usable import Collector, Usable, filled_lines, shown, value
from ltprompt.tasks import Rows, load_task

XNLI = load_task("xnli")


def test_rows_are_gathered_and_the_others_counted() -> None:
    collector = Collector(XNLI, "name")
    for texts, label in [
        (("a", " b "), "neutral"), (("c", "d"), "-"), (("e", None), "neutral"), (("f", "  "), "entailment"),
        (("g", "h"), None), (("i", "j"), "hidden"), (("k", "l"), "entailment"),
    ]:  # fmt: skip
        collector.add("here", texts, label)
    rows = Rows((("a", " b "), ("k", "l")), (1, 0), "name")
    assert collector.usable() == Usable(rows, "3 without an agreed label left out, 2 with an empty text left out")


def test_empty_texts_can_be_kept() -> None:
    collector = Collector(XNLI, "name", keep_empty=True)
    collector.add("here", ("a", None), "contradiction")
    assert collector.usable() == Usable(Rows((("a", ""),), (2,), "name"), "1 with an empty text kept")


def test_nothing_odd_is_not_remarked_on() -> None:
    collector = Collector(XNLI, "name")
    collector.add("here", ("a", "b"), "neutral")
    assert collector.usable().remark == ""


def test_a_label_of_the_task_is_one_whatever_it_is_called() -> None:
    task = XNLI.model_copy(update={"labels": ("-", "hidden")})
    collector = Collector(task, "name")
    collector.add("here", ("a", "b"), "hidden")
    assert collector.usable().rows.labels == (1,)


def test_kept_back_labels_are_the_reason() -> None:
    collector = Collector(XNLI, "name")
    for label in ("-", None, "hidden"):
        collector.add("here", ("a", "b"), label)
    with pytest.raises(InputError, match=r"name has no labels in any of its 3 rows: they are kept back, .*; choose a"):
        collector.usable()
    with pytest.raises(InputError, match="name has no rows with text"):
        Collector(XNLI, "name").usable()


@pytest.mark.parametrize(
    ("texts", "label", "message"),
    [
        (("a", "b"), "neutrl", r"here: unknown label 'neutrl'; did you mean 'neutral'\? choose from entailment"),
        (("a", 3), "neutral", "here: hypothesis must be text, found 3"),
        (("\ud83d", "b"), "neutral", "here: premise holds half a surrogate pair"),
    ],
)
def test_rows_that_make_no_sense(texts: tuple[object, ...], label: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Collector(XNLI, "name").add("here", texts, label)


def test_empty_lines_of_a_published_file_are_left_out_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\r\none\r\n\n\ntwo\n\n")
    assert list(filled_lines(path, "a table")) == [(f"{path}, line 2", "one"), (f"{path}, line 5", "two")]


def test_a_missing_column_shows_those_that_are_there() -> None:
    assert value({"a": 1}, "a", "here") == 1
    with pytest.raises(InputError, match=r"here: no column 'b'; found a, x"):
        value({"a": 1, "x": 2}, "b", "here")
    assert len(shown(["word"] * 1000)) <= 200
