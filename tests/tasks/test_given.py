"""Rows as a user of Python, pandas or datasets holds them; every kind gives the rows that the dicts spell out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from ltprompt.errors import InputError
from ltprompt.tasks import Rows, Task, load_task, rows_from

PAIRS = load_task("xnli")
NUMBERED = PAIRS.model_copy(update={"label_names": ("neutral", "contradiction", "entailment")})
MOOD = Task(
    name="mood",
    labels=("up", "down"),
    columns=("text",),
    label_column="mood",
    templates={"soft": ("{text}", "{prompt}", "{mask}")},
    words={"en": {"up": "good", "down": "bad"}},
)
COLUMNS = {
    "label": ["entailment", "contradiction", "neutral"],
    "id": [7, 8, 9],
    "hypothesis": ["h1", "h2", "h3"],
    "premise": ["p1", "p2", "p3"],
}
TEXTS = (("p1", "h1"), ("p2", "h2"), ("p3", "h3"))
EXPECTED = Rows(TEXTS, (0, 2, 1), "rows")
MOODS = Rows((("hello",), ("bye",)), (0, 1), "rows")
STRINGS = datasets.Value("string")


def data_set(labels: list[Any], feature: Any) -> Any:
    features = {"label": feature, "id": datasets.Value("int64"), "hypothesis": STRINGS, "premise": STRINGS}
    return datasets.Dataset.from_dict({**COLUMNS, "label": labels}, features=datasets.Features(features))


def class_labels(names: list[str], numbers: list[int]) -> Any:
    return data_set(numbers, datasets.ClassLabel(names=names))


def tuples() -> Iterator[tuple[str, str, str]]:
    return zip(COLUMNS["premise"], COLUMNS["hypothesis"], COLUMNS["label"], strict=True)


KINDS: dict[str, Callable[[], Any]] = {
    "dicts": lambda: [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)],
    "tuples": lambda: list(tuples()),
    "lists": lambda: [list(row) for row in tuples()],
    "generator": tuples,
    "array": lambda: np.array(list(tuples())),
    "array of objects": lambda: np.array(list(tuples()), object),
    "columns": lambda: COLUMNS,
    "frame": lambda: pd.DataFrame(COLUMNS, index=[5, 3, 5]),
    "frame of categories": lambda: pd.DataFrame(COLUMNS).astype({"label": "category", "premise": object}),
    "data set": lambda: data_set(COLUMNS["label"], STRINGS),
    "slice of a data set": lambda: data_set(COLUMNS["label"], STRINGS)[:3],
    "stream": lambda: data_set(COLUMNS["label"], STRINGS).to_iterable_dataset(),
    "class labels": lambda: class_labels(["contradiction", "entailment", "neutral"], [1, 0, 2]),
    "stream of class labels": lambda: class_labels(list(PAIRS.labels), [0, 2, 1]).to_iterable_dataset(),
    "tensors": lambda: class_labels(list(PAIRS.labels), [0, 2, 1]).with_format("torch"),
    "frames of a data set": lambda: class_labels(list(PAIRS.labels), [0, 2, 1]).with_format("pandas"),
    "chosen rows of a data set": lambda: (
        class_labels(list(PAIRS.labels), [0, 2, 1]).select([2, 1, 0]).select([2, 1, 0])
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_rows(kind: str) -> None:
    assert rows_from(KINDS[kind](), PAIRS) == EXPECTED
    assert rows_from(KINDS[kind](), PAIRS, labelled=False) == Rows(TEXTS, None, "rows")
    assert rows_from(KINDS[kind](), PAIRS, labels=["neutral"] * 3) == Rows(TEXTS, (1, 1, 1), "rows")
    assert all(type(text) is str for fields in rows_from(KINDS[kind](), PAIRS).texts for text in fields)


@pytest.mark.parametrize(
    "labels",
    [
        [2, 1, 0],
        np.array([2, 1, 0], np.int8),
        [np.int64(2), np.uint8(1), np.float32(0)],
        pd.Series([2, 1, 0], dtype="Int64"),
        pd.Series([2.0, 1.0, 0.0]),
        torch.tensor([2, 1, 0]),
        ["2", " 1", "neutral"],
    ],
)
def test_numbers_mean_what_the_task_says_in_label_names(labels: Any) -> None:
    assert rows_from(pd.DataFrame({**COLUMNS, "label": labels}), NUMBERED) == EXPECTED
    assert rows_from(pd.DataFrame(COLUMNS).drop(columns="label"), NUMBERED, labels=labels) == EXPECTED
    rows = [(premise, hypothesis, label) for (premise, hypothesis), label in zip(TEXTS, labels, strict=True)]
    assert rows_from(rows, NUMBERED) == EXPECTED


def test_other_codes_mean_what_the_task_says_in_label_map() -> None:
    task = MOOD.model_copy(update={"label_map": {"1": "up", "-1": "down", "true": "up", "neg": "down"}})
    rows = [("a", 1), ("b", -1), ("c", True), ("d", "neg"), ("e", np.int64(-1)), ("f", np.True_), ("g", "up")]
    assert rows_from(rows, task).labels == (0, 1, 0, 1, 1, 0, 0)


def test_a_data_set_s_own_names_go_before_the_task_s_unless_they_say_nothing() -> None:
    own = class_labels(["contradiction", "entailment", "neutral"], [1, 0, 2])
    assert rows_from(own, NUMBERED) == EXPECTED
    nameless = class_labels(["LABEL_0", "LABEL_1", "LABEL_2"], [2, 1, 0])
    assert rows_from(nameless, NUMBERED) == EXPECTED
    assert rows_from(class_labels(["0", "1", "2"], [2, 1, 0]), NUMBERED) == EXPECTED
    assert rows_from(nameless, NUMBERED, labels=nameless["label"]) == EXPECTED
    with pytest.raises(InputError, match=r"rows\[0\]: unknown label 'LABEL_2'; .* label_map: {'LABEL_2': entailment}$"):
        rows_from(nameless, PAIRS)


def test_a_class_that_does_not_occur_may_be_unknown_to_the_task() -> None:
    more = class_labels(["other", "neutral", "entailment", "contradiction"], [2, 3, 1])
    assert rows_from(more, PAIRS) == EXPECTED
    with pytest.raises(InputError, match=r"rows\[1\]: unknown label 'other'"):
        rows_from(class_labels(["other", "neutral", "entailment", "contradiction"], [2, 0, 1]), PAIRS)


@pytest.mark.parametrize(
    "texts",
    [
        ["hello", "bye"],
        ("hello", "bye"),
        np.array(["hello", "bye"]),
        [np.str_("hello"), np.str_("bye")],
        np.array([["hello"], ["bye"]]),
        pd.Series(["hello", "bye"], index=[4, 4]),
        pd.DataFrame({"text": ["hello", "bye"]}),
        [("hello",), ("bye",)],
        {"text": ["hello", "bye"]},
        datasets.Dataset.from_dict({"text": ["hello", "bye"]})["text"],
        Rows((("hello",), ("bye",)), None, "rows"),
        Rows((("hello",), ("bye",)), (1, 1), "rows"),
    ],
)
def test_texts_alone_with_labels_apart(texts: Any) -> None:
    assert rows_from(texts, MOOD, labels=["up", "down"]) == MOODS
    assert rows_from(texts, MOOD, labelled=False).texts == MOODS.texts


@pytest.mark.parametrize("labels", [("up", "down"), np.array(["up", "down"]), pd.Series(["up", "down"], index=[9, 9])])
def test_labels_apart_may_be_of_any_kind(labels: Any) -> None:
    assert rows_from(["hello", "bye"], MOOD, labels=labels) == MOODS
    assert rows_from(["hello", "bye"], MOOD, labels=pd.Series(labels, dtype="category")) == MOODS


def test_a_column_of_class_labels_given_apart_has_its_names() -> None:
    table = class_labels(["contradiction", "entailment", "neutral"], [1, 0, 2])
    assert rows_from(table.remove_columns("label"), PAIRS, labels=table["label"]) == EXPECTED
    assert rows_from(table, PAIRS, labels=table.with_format("torch")["label"]) == EXPECTED


def test_a_tuple_may_hold_its_label_where_none_is_needed_but_no_other_field() -> None:
    assert rows_from([("hello", "up"), ("bye",)], MOOD, labelled=False).texts == MOODS.texts
    with pytest.raises(
        InputError, match=r"rows\[0\]: expected a dict of columns or a text \(text\), found \('a', 'b'\)"
    ):
        rows_from([("a", "b")], MOOD, labelled=False)


ONE = {"premise": "p", "hypothesis": "h", "label": "neutral"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            pd.DataFrame({**COLUMNS, "label": [0, 1, 2]}),
            r"^rows\[0\]: the label 0 is a number; .*label_names: \[entail.*",
        ),
        (pd.DataFrame({**COLUMNS, "label": [0, 1, 2]}), r"or as in label_map: {0: entailment}$"),
        (
            pd.DataFrame({**COLUMNS, "label": [None, *COLUMNS["label"][1:]]}),
            r"^rows\[0\]: unknown label .*a missing val",
        ),
        (
            pd.DataFrame({**COLUMNS, "premise": ["a", None, "c"]}),
            r"^rows\[1\]: premise must be text, found .*, a missing",
        ),
        (pd.DataFrame({**COLUMNS, "premise": ["a", pd.NA, "c"]}), r"^rows\[1\]: premise must be text, .*, a missing v"),
        (pd.DataFrame({**COLUMNS, "premise": [1, 2, 3]}), r"^rows\[0\]: premise must be text, found 1$"),
        (pd.DataFrame(COLUMNS).drop(columns="premise"), "^rows: no column 'premise'; found label, id, hypothesis; ren"),
        (pd.concat([pd.DataFrame(COLUMNS)] * 2, axis=1), "^rows: more than one column 'premise'; rename one$"),
        (pd.DataFrame(COLUMNS)[:0], "^rows has no rows"),
        (
            class_labels(list(PAIRS.labels), [0, -1, 2]),
            r"^rows\[1\]: the label -1 is a number that .* remove the row, or",
        ),
        (
            data_set([3, 1, 2], datasets.Value("int64")),
            r"^rows\[0\]: the label 3 is a number; write label names: entail",
        ),
        (
            datasets.DatasetDict(train=class_labels(["a"], [0, 0, 0])),
            r"with the splits train; choose one, .*\['train'\]$",
        ),
        (ONE, "^rows is one row, {'premise': 'p', .*; give a list of rows"),
        (
            {**COLUMNS, "label": ["neutral"]},
            r"^rows: the columns differ in length \(premise 3, hypothesis 3, label 1\)",
        ),
        ("train.tsv", "^rows must be a list of dicts, .*a file is read with read_rows.*, found 'train.tsv'$"),
        (None, "^rows must be a list of dicts, .*, found None$"),
        (
            [ONE, "a text"],
            r"^rows\[1\]: expected a dict of columns or a tuple \(premise, hypothesis, label\), or labels ",
        ),
        ([ONE, None], r"^rows\[1\]: expected .*, found None, a missing value$"),
        ([ONE, 3], r"^rows\[1\]: expected .*, found 3$"),
        ([("a", "b", "c", "neutral")], r"^rows\[0\]: expected .*, found \('a', 'b', 'c', 'neutral'\)$"),
        (
            [("a", "b", "worse")],
            r"^rows\[0\]: unknown label 'worse'; choose from entailment, neutral, contradiction, or",
        ),
        (
            [("a", "b", "neutrl")],
            r"^rows\[0\]: unknown label 'neutrl'; did you mean 'neutral'\? choose from .*diction$",
        ),
        (
            [("a", "b", float("nan"))],
            r"^rows\[0\]: unknown label nan, a missing value; give it a label or remove the row",
        ),
        ([("a", "b", [0])], r"^rows\[0\]: unknown label \[0\]"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(rows: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        rows_from(rows, PAIRS)
    assert "\n" not in str(caught.value)


def test_a_number_without_a_name_says_which_have_one() -> None:
    with pytest.raises(
        InputError, match=r"rows\[0\]: the label 3 has no name; the task names 0, 1, 2; add it to label_n"
    ):
        rows_from([("a", "b", np.int64(3))], NUMBERED)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["up"], r"^rows number 2 and labels 1; give one label a row$"),
        (["up", 1], r"^labels\[1\]: the label 1 is a number; write label names: up, down; or name the numbers"),
        (["up", None], r"^labels\[1\]: unknown label None, a missing value"),
        (["up", ["down"]], r"^labels\[1\]: unknown label \['down'\]"),
        ("up", r"^labels must be a list, a Series or an array of label names or codes, found 'up'$"),
        (3, r"^labels must be a list, .*, found 3$"),
        (pd.DataFrame({"mood": ["up", "down"]}), "^labels must be one column, found DataFrame; choose its column"),
        ({"mood": ["up", "down"]}, "^labels must be one column, found dict"),
    ],
)
def test_labels_apart_that_cannot_be_used(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rows_from(["hello", "bye"], MOOD, labels=labels)


def test_a_list_of_texts_has_no_labels() -> None:
    with pytest.raises(
        InputError, match=r"rows\[0\]: expected .* a tuple \(text, mood\), or labels given apart, found 'a'$"
    ):
        rows_from(["a"], MOOD)


def test_neither_pandas_nor_datasets_is_imported_for_rows() -> None:
    program = (
        "import sys; from ltprompt.tasks import load_task, rows_from; "
        "rows_from([('a', 'b', 'neutral')], load_task('xnli'), labels=['neutral']); "
        "print(sorted({'pandas', 'datasets', 'torch', 'numpy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
