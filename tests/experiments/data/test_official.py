from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltprompt.errors import InputError
from ltprompt.experiments.data.official import read_official
from ltprompt.experiments.data.usable import ONLY
from ltprompt.tasks import Task, load_task

XNLI = load_task("xnli")
# The header of XNLI 1.0; MultiNLI's is the same from the second column to the annotators' labels.
XNLI_HEADER = (
    "language\tgold_label\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\tsentence1"
    "\tsentence2\tpromptID\tpairID\tgenre\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tsentence1_tokenized"
    "\tsentence2_tokenized\tmatch"
)
MNLI_HEADER = XNLI_HEADER.removeprefix("language\t").split("\tsentence1_tokenized")[0]


def xnli_line(language: str, label: str, premise: str, hypothesis: str) -> str:
    labels = "neutral\t" * 5
    return f"{language}\t{label}\t\t\t\t\t{premise}\t{hypothesis}\t3\t4\tletters\t{labels}t1\tt2\tTrue"


def mnli_line(label: str, premise: str, hypothesis: str, labels: str = "neutral") -> str:
    return f"{label}\t( x )\t( y )\t(X)\t(Y)\t{premise}\t{hypothesis}\t3\t4c\ttravel\t{labels}"


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    path.write_bytes((end.join(lines) + end).encode())
    return path


def test_xnli_holds_every_language(tmp_path: Path) -> None:
    path = write(
        tmp_path / "any.name",
        XNLI_HEADER,
        xnli_line("sw", "neutral", "Nilikula.", "Nilikula wali."),
        xnli_line("en", "contradiction", 'I "ate', "I fasted."),
        xnli_line("sw", "entailment", "Alikuja.", "Yupo hapa."),
    )
    found = read_official(path, XNLI)
    assert list(found) == ["sw", "en"]
    assert found["sw"].rows.texts == (("Nilikula.", "Nilikula wali."), ("Alikuja.", "Yupo hapa."))
    assert found["sw"].rows.labels == (1, 0)
    assert found["sw"].rows.name == f"{path} (sw)"
    assert (found["en"].rows.texts, found["en"].rows.labels) == ((('I "ate', "I fasted."),), (2,))
    assert found["en"].remark == ""


def test_xnli_as_json_lines(tmp_path: Path) -> None:
    rows = [
        {"gold_label": "neutral", "language": "ur", "sentence1": "a\u2028b", "sentence2": "c", "label1": "entailment"},
        {"gold_label": "entailment", "language": "zh", "sentence1": "d", "sentence2": "e", "label1": "neutral"},
    ]
    path = write(tmp_path / "xnli.dev.jsonl", *(json.dumps(row, ensure_ascii=False) for row in rows))
    found = read_official(path, XNLI)
    assert {key: (one.rows.texts, one.rows.labels) for key, one in found.items()} == {
        "ur": ((("a\u2028b", "c"),), (1,)),
        "zh": ((("d", "e"),), (0,)),
    }


@pytest.mark.parametrize(("end", "mark"), [("\n", ""), ("\r\n", "\ufeff")])
def test_translated_multinli(tmp_path: Path, end: str, mark: str) -> None:
    path = write(
        tmp_path / "multinli.train.de.tsv",
        f"{mark}premise\thypo\tlabel",
        '"Gut , sagte er .\tEr schwieg .\tcontradictory',
        "Es regnet .\t\tneutral",
        "Es regnet .\tEs ist nass .\tentailment",
        end=end,
    )
    found = read_official(path, XNLI)
    assert list(found) == [ONLY]
    assert found[ONLY].rows.texts == (('"Gut , sagte er .', "Er schwieg ."), ("Es regnet .", "Es ist nass ."))
    assert found[ONLY].rows.labels == (2, 0)
    assert found[ONLY].remark == "1 with an empty text left out"
    assert found[ONLY].rows.name == str(path)


@pytest.mark.parametrize("labels", ["neutral", "neutral\tneutral\tneutral\tneutral\tneutral"])
def test_multinli_with_and_without_all_annotators(tmp_path: Path, labels: str) -> None:
    path = write(
        tmp_path / "multinli_1.0_train.txt",
        MNLI_HEADER,
        mnli_line("-", "no", "agreement", labels),
        mnli_line("entailment", "It 's \"late .", "n/a", labels),
    )
    found = read_official(path, XNLI)[ONLY]
    assert (found.rows.texts, found.rows.labels) == ((("It 's \"late .", "n/a"),), (0,))
    assert found.remark == "1 without an agreed label left out"


def test_multinli_as_json_lines(tmp_path: Path) -> None:
    rows = [
        {"annotator_labels": ["neutral"], "gold_label": label, "sentence1": f"p{index}", "sentence2": f"h{index}"}
        for index, label in enumerate(["-", "contradiction", "neutral", "-"])
    ]
    found = read_official(write(tmp_path / "m.jsonl", *map(json.dumps, rows)), XNLI)[ONLY]
    assert (found.rows.texts, found.rows.labels) == ((("p1", "h1"), ("p2", "h2")), (2, 1))
    assert found.remark == "2 without an agreed label left out"


def test_americasnli_with_and_without_a_header(tmp_path: Path) -> None:
    task = load_task("americasnli")
    lines = ['gn\tpre "one\thypo one\tneutral', "gn\tpre two\thypo two\tcontradiction"]
    with_header = write(tmp_path / "dev.tsv", "language\tpremise\thypothesis\tlabel", *lines, "tar\ta\tb\tentailment")
    without = write(tmp_path / "gn.tsv", *lines)
    found = read_official(with_header, task)
    assert set(found) == {"gn", "tar"}
    assert found["gn"].rows.texts == (('pre "one', "hypo one"), ("pre two", "hypo two"))
    bare = read_official(without, task)
    assert set(bare) == {"gn"}
    assert (bare["gn"].rows.texts, bare["gn"].rows.labels) == (found["gn"].rows.texts, (1, 2))


def test_a_task_may_name_other_columns(tmp_path: Path) -> None:
    task = Task(
        name="mood",
        labels=("up", "contradictory"),
        columns=("text",),
        label_column="mood",
        templates={"soft": ("{text}", "{prompt}", "{mask}")},
        words={"en": {"up": "good", "contradictory": "bad"}},
        languages=("en",),
    )
    path = write(tmp_path / "a.tsv", "mood\ttext", "contradictory\tno", "up\tyes")
    assert read_official(path, task)[ONLY].rows.labels == (1, 0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["premise\thypo", "a\tb"], r"a\.tsv has no labels: no column gold_label or label; found premise, hypo\. The"),
        (["premise\thypo\tlabel", "a\tb\thidden", "c\td\t-"], r"a\.tsv has no labels in any of its 2 rows: they are"),
        (["premise\thypo\tlabel", "a\tb\tneutrl"], r"a\.tsv, line 2: unknown label 'neutrl'; did you mean 'neutral'"),
        (["premise\thypo\tlabel", "a\tb\t1"], r"a\.tsv, line 2: unknown label '1'; choose from entailment, neutral"),
        (["premise\thypo\tlabel", "a\tb\tc\tneutral"], r"a\.tsv, line 2: 4 fields under 3 columns; a tab inside"),
        (["premise\thypo\tlabel", "a\tb"], r"a\.tsv, line 2: no column 'label'; found premise, hypo"),
        (["premis\thypo\tlabel", "a\tb\tneutral"], r"line 1: no column premise or sentence1; did you mean 'premis'\?"),
        (["premise\tlabel", "a\tneutral"], r"line 1: no column hypothesis or hypo or sentence2; found premise, label"),
        (["premise\thypo\tlabel"], r"a\.tsv has no rows"),
        (["", ""], r"a\.tsv is empty"),
        (['{"premise": "a", "hypothesis": "b", "label": null}'], r"a\.tsv has no labels in any of its 1 rows"),
        (['{"premise": "a", "hypothesis": "b"}'], r"a\.tsv has no labels: no column gold_label or label; found prem"),
        (['{"premise": "a", "hypothesis": 2, "label": "neutral"}'], r"line 1: hypothesis must be text, found 2"),
        (['{"premise": "a"'], r"a\.tsv, line 1: not valid JSON"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, lines: list[str], message: str) -> None:
    path = write(tmp_path / "a.tsv", *lines)
    with pytest.raises(InputError, match=message) as caught:
        read_official(path, XNLI)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
