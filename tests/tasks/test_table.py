from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ltprompt.errors import InputError
from ltprompt.tasks import Rows, Task, check_balance, load_task, read_rows, rows_from

XNLI = load_task("xnli")
ROWS = [
    {"premise": 'A "cat, sat', "hypothesis": "It sat.", "label": "entailment"},
    {"premise": "Ja — 是\u2028x", "hypothesis": "no", "label": "contradiction"},
    {"premise": "p", "hypothesis": "h", "label": "neutral"},
]
EXPECTED = (('A "cat, sat', "It sat."), ("Ja — 是\u2028x", "no"), ("p", "h"))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def content_of(kind: str, end: str = "\n") -> str:
    if kind == "tsv":
        lines = ["label\tid\thypothesis\tpremise"]
        lines += [f"{row['label']}\t7\t{row['hypothesis']}\t{row['premise']}" for row in ROWS]
    elif kind == "csv":
        lines = ["id,hypothesis,label,premise"]
        lines += ['7,It sat.,entailment,"A ""cat, sat"', "7,no,contradiction,Ja — 是\u2028x", "7,h,neutral,p"]
    else:
        lines = [json.dumps({"id": 7, **row}, ensure_ascii=False) for row in ROWS]
    return end.join(lines) + end


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "json"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_kind_gives_the_same_rows(tmp_path: Path, kind: str, end: str, mark: str) -> None:
    path = write(tmp_path / f"dev.{kind}", mark + content_of(kind, end))
    rows = read_rows(path, XNLI)
    assert rows == Rows(EXPECTED, (0, 2, 1), str(path))
    assert rows == Rows(rows_from(ROWS, XNLI).texts, rows_from(ROWS, XNLI).labels, str(path))


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_unlabelled(tmp_path: Path, kind: str) -> None:
    with_labels = write(tmp_path / f"a.{kind}", content_of(kind).replace("neutral", "anything"))
    assert read_rows(with_labels, XNLI, labelled=False) == Rows(EXPECTED, None, str(with_labels))
    without = write(tmp_path / f"b.{kind}", content_of(kind).replace("label", "other"))
    assert read_rows(without, XNLI, labelled=False).texts == EXPECTED
    with pytest.raises(InputError, match=r"b\.\w+, line 1: no column 'label'; found .*other"):
        read_rows(without, XNLI)


def test_csv_fields_over_lines_and_of_any_size(tmp_path: Path) -> None:
    large = "x" * 200_000
    path = write(tmp_path / "a.csv", f'premise,hypothesis,label\n"one\ntwo",{large},neutral\na,b,worse\n')
    with pytest.raises(InputError, match="line 4: unknown label 'worse'"):
        read_rows(path, XNLI)
    write(path, f'premise,hypothesis,label\n"one\ntwo",{large},neutral\n')
    assert read_rows(path, XNLI).texts == (("one\ntwo", large),)


HEAD = "premise\thypothesis\tlabel\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", HEAD + "a\tb\tentailment\na\tb\tentailmnt\n", "line 3: unknown label 'entailmnt'; did you mean"),
        ("a.tsv", HEAD + "a\tb\tworse\n", "choose from entailment, neutral, contradiction"),
        ("a.tsv", HEAD + "a\tb\t0\n", "line 2: the label 0 is a number; write label names: entailment, neutral"),
        ("a.tsv", HEAD + "a\t \tneutral\n", "line 2: hypothesis is empty"),
        ("a.tsv", HEAD + "a\tb\n", "line 2: 2 fields under 3 columns; a tab"),
        ("a.tsv", HEAD + "a\tb\tneutral\n\na\tb\tneutral\n", "line 3: an empty line; remove it$"),
        ("a.csv", "premise,hypothesis,label\na,b,neutral\n\na,b,neutral\n", "line 3: an empty line; remove it$"),
        ("a.jsonl", '\n{"premise": "a", "hypothesis": "b", "label": "neutral"}\n', "line 1: an empty line; remove it$"),
        (
            "a.csv",
            "premise;hypothesis;label\na;b;neutral\n",
            "line 1: .* by semicolons, .* a .csv file by commas; save",
        ),
        ("a.csv", HEAD + "a\tb\tneutral\n", "by tabs, and those of a .csv file by commas; name the file .tsv$"),
        ("a.tsv", "premise,hypothesis,label\n", "by commas, and those of a .tsv file by tabs; name the file .csv$"),
        ("a.tsv", "premise;hypothesis\n", "by semicolons, and those of a .tsv file by tabs; save the table with tabs$"),
        ("a.csv", "premise\n", "line 1: no column 'hypothesis'; found premise"),
        ("a.csv", "a;b,premise\n", "line 1: no column 'hypothesis'; found a;b, premise"),
        ("a.tsv", HEAD + "a\tb\tneutral\tc\n", "line 2: 4 fields under 3 columns"),
        ("a.tsv", HEAD, "has no rows"),
        ("a.tsv", "", "a.tsv is empty; it needs a header with premise, hypothesis, label"),
        ("a.tsv", "premise\tlabel\na\tneutral\n", "line 1: no column 'hypothesis'; found premise, label"),
        ("a.tsv", "premise\thypotesis\tlabel\n", "label; did you mean 'hypotesis'\\? rename it in the table or in"),
        ("a.jsonl", '{"premise": "a", "hypothesis": "b", "labl": "neutral"}', "line 1: no column 'label'; .* 'labl'"),
        ("a.tsv", "premise\tpremise\thypothesis\tlabel\n", "more than one column 'premise'"),
        ("a.tsv", HEAD.encode() + b"a\tb\tneutral\na\t\xe9\tneutral\n", "line 3: byte 0xe9 is not UTF-8"),
        ("a.csv", 'premise,hypothesis,label\na,b,neutral\n"a,b,neutral\n', "line 3: not valid CSV"),
        ("a.csv", "premise,hypothesis,label\na,b,c,neutral\n", "line 2: 4 fields under 3 columns; quote"),
        ("a.csv", "\n\n", "a.csv is empty"),
        ("a.jsonl", "", "has no rows"),
        ("a.jsonl", '{"premise": "a"\n', "line 1: not valid JSON"),
        ("a.jsonl", "[" * 200_000, "line 1: not valid JSON"),
        ("a.json", '[{"premise": "a"}]', "line 1: expected one JSON object a line"),
        ("a.jsonl", '{"premise": 3, "hypothesis": "b", "label": "neutral"}', "line 1: premise must be text, found 3"),
        ("a.jsonl", '{"premise": "a", "hypothesis": null, "label": "neutral"}', "hypothesis must be text, found None"),
        ("a.jsonl", '{"premise": "a", "hypothesis": "b", "label": 0}', "the label 0 is a number"),
        ("a.jsonl", '{"premise": "a", "hypothesis": "b", "label": null}', "unknown label None"),
        ("a.jsonl", '{"premise": "\\ud83d", "hypothesis": "b", "label": "neutral"}', "line 1: premise holds half"),
        ("a.tvs", HEAD, "unknown kind of table '.tvs'; did you mean '.tsv'"),
    ],
)
def test_bad_tables(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        read_rows(path, XNLI)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    write(tmp_path / "train.16.jsonl", "")
    with pytest.raises(InputError, match=r"does not exist; did you mean .*train\.16\.jsonl\?"):
        read_rows(tmp_path / "train.61.jsonl", XNLI)
    with pytest.raises(InputError, match="nor does the folder"):
        read_rows(tmp_path / "nowhere" / "a.tsv", XNLI)
    with pytest.raises(InputError, match="is a folder"):
        read_rows(tmp_path, XNLI)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"premise": "a", "hypothesis": "b"}, r"rows\[1\]: no column 'label'; found premise, hypothesis"),
        ({"premise": "a", "hypothesis": "b", "label": 2}, r"rows\[1\]: the label 2 is a number"),
        ({"premise": "a", "hypothesis": "", "label": "neutral"}, r"rows\[1\]: hypothesis is empty"),
        (
            ["a", "b"],
            r"rows\[1\]: expected a dict of columns or a tuple \(premise, hypothesis, label\), or labels given",
        ),
    ],
)
def test_bad_python_rows(row: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rows_from([ROWS[0], row], XNLI)


def test_rows_come_back_unchanged() -> None:
    rows = rows_from(ROWS, XNLI)
    assert rows_from(rows, XNLI) is rows
    unlabelled = rows_from(ROWS, XNLI, labelled=False)
    assert rows_from(unlabelled, XNLI, labelled=False) is unlabelled
    with pytest.raises(InputError, match="rows has no labels"):
        rows_from(unlabelled, XNLI)
    with pytest.raises(InputError, match="has no rows"):
        rows_from([], XNLI)


def test_select_and_length() -> None:
    rows = rows_from(ROWS, XNLI)
    chosen = rows.select([2, 0])
    assert len(rows) == 3
    assert chosen.texts == (EXPECTED[2], EXPECTED[0])
    assert chosen.labels == (1, 0)
    assert rows_from(ROWS, XNLI, labelled=False).select([1]).labels is None


def test_balance() -> None:
    rows = rows_from(ROWS, XNLI)
    assert check_balance(rows, XNLI) is None
    warning = check_balance(rows.select([0, 0, 1, 2]), XNLI)
    assert warning == "rows is not balanced: entailment 2, neutral 1, contradiction 1"
    with pytest.raises(InputError, match=r"no example of neutral \(entailment 1, neutral 0, contradiction 1\)"):
        check_balance(rows.select([0, 1]), XNLI)
    with pytest.raises(InputError, match="no labels"):
        check_balance(rows_from(ROWS, XNLI, labelled=False), XNLI)


def test_single_text_task(tmp_path: Path) -> None:
    task = Task(
        name="mood",
        labels=("up", "down"),
        columns=("text",),
        label_column="mood",
        templates={"soft": ("{text}", "{prompt}", "{mask}")},
        words={"en": {"up": "good", "down": "bad"}},
        languages=("en",),
    )
    path = write(tmp_path / "a.tsv", 'mood\ttext\nup\t"hello\ndown\tbye\n')
    assert read_rows(path, task) == Rows((('"hello',), ("bye",)), (0, 1), str(path))
    plain = write(tmp_path / "b.tsv", "text\nx\n\n")
    assert read_rows(plain, task, labelled=False).texts == (("x",),)


def test_a_number_that_the_task_holds_as_text_wants_quotes(tmp_path: Path) -> None:
    task = Task(
        name="stars",
        labels=("1", "2.5"),
        columns=("text",),
        templates={"soft": ("{text}", "{prompt}", "{mask}")},
        words={"en": {"1": "bad", "2.5": "good"}},
    )
    for label in ("1", "2.5"):
        path = write(tmp_path / "a.jsonl", f'{{"text": "a", "label": {label}}}')
        with pytest.raises(
            InputError, match=rf'line 1: the label {label} is a number .*; write it in quotes: "{label}", or'
        ):
            read_rows(path, task)
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": "1"}\n{"text": "a", "label": "2.5"}\n')
    assert read_rows(path, task).labels == (0, 1)
    said = task.model_copy(update={"label_map": {"1": "1", "2.5": "2.5"}})
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": 1}\n{"text": "a", "label": 2.5}\n')
    assert read_rows(path, said).labels == (0, 1)


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_tables_hold_codes_that_the_task_explains(tmp_path: Path, kind: str) -> None:
    content = content_of(kind).replace("entailment", "0").replace("contradiction", "2").replace("neutral", "x")
    path = write(tmp_path / f"a.{kind}", content)
    with pytest.raises(
        InputError, match=r"the label 0 is a number; write label names: .*; or name the numbers in the "
    ):
        read_rows(path, XNLI)
    numbered = XNLI.model_copy(update={"label_names": XNLI.labels})
    with pytest.raises(
        InputError, match=r"unknown label 'x'; choose from .*, or say in the task .* label_map: \{'x': "
    ):
        read_rows(path, numbered)
    task = numbered.model_copy(update={"label_map": {"x": "neutral"}})
    assert read_rows(path, task).labels == (0, 2, 1)


def test_real_tables(shared: Path) -> None:
    data = shared / "data"
    assert len(read_rows(data / "xnli/dev/en.tsv", XNLI)) == 2490
    shots = read_rows(data / "xnli/fewshot/zh/train.16.jsonl", XNLI)
    assert len(shots) == 48
    assert check_balance(shots, XNLI) is None
    assert len(read_rows(data / "americasnli/dev/oto.tsv", load_task("americasnli"))) == 222
