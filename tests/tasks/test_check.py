from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from helpers.toy_tokenizers import unigram, wordpiece

from ltprompt.backbone.loading import load_tokenizer
from ltprompt.cli.show import show_task_report
from ltprompt.errors import InputError
from ltprompt.tasks import Rows, Task, load_task
from ltprompt.tasks.check import Splitting, TaskReport, advise, english_texts, report_task, splitting
from ltprompt.tasks.template import Template

XNLI = load_task("xnli")
SETTINGS: dict[str, Any] = {"backbone": "toy", "language": "en", "prompt_length": 4, "max_length": 40}
ROWS = Rows(
    (("the cat sat.", "no cat"), ("the cat", "maybe"), ("the cat sat on a mat the cat sat on a mat", "a mat")),
    (0, 1, 1),
    "toy.tsv",
)


@pytest.fixture(scope="module")
def mini() -> Any:
    return load_tokenizer("mini")


def template(style: str, tokenizer: Any) -> Template:
    return Template.build(
        XNLI.template_for(style, "en"),
        XNLI.columns,
        tokenizer,
        prompt_length=4,
        max_length=1000,
        strip_punctuation=True,
    )


@pytest.mark.parametrize("make", [unigram, wordpiece])
def test_lengths_are_those_of_the_filled_template(make: Any) -> None:
    found = report_task(XNLI, make(), [ROWS], **SETTINGS).tables[0]
    assert set(found.lengths) == {"soft", "discrete", "mixed"}
    for style, length in found.lengths.items():
        lengths = sorted(len(example.ids) for example in template(style, make()).encode(ROWS.texts))
        assert [length.minimum, length.median, length.maximum] == lengths
        assert length.percentile_95 == lengths[-1]
        assert length.truncated == sum(n > SETTINGS["max_length"] for n in lengths)


def test_a_row_that_fits_exactly_is_not_truncated() -> None:
    longest = max(len(example.ids) for example in template("soft", unigram()).encode(ROWS.texts))
    for max_length, cut in ((longest, 0), (longest - 1, 1)):
        found = report_task(XNLI, unigram(), [ROWS], **SETTINGS | {"max_length": max_length})
        assert found.tables[0].lengths["soft"].truncated == cut


def test_the_95th_percentile_is_a_length_that_occurs() -> None:
    rows = Rows(tuple(("cat " * n, "no") for n in range(1, 101)), None, "a")
    length = report_task(XNLI, unigram(), [rows], **SETTINGS).tables[0].lengths["soft"]
    fixed = length.minimum - 1
    assert (length.median, length.percentile_95, length.maximum) == (fixed + 50, fixed + 95, fixed + 100)


def test_templates_are_filled_with_the_first_row() -> None:
    found = report_task(XNLI, unigram(), [ROWS], **SETTINGS).templates["mixed"]
    assert found.text == "the cat sat . Question: no cat ? <p1> <p2> <p3> <p4> Answer: <mask> ."
    example = template("mixed", unigram()).encode(ROWS.texts[:1])[0]
    assert list(found.tokens) == template("mixed", unigram()).pieces(example)


def test_without_a_table_each_column_has_a_placeholder() -> None:
    found = report_task(XNLI, unigram(), **SETTINGS)
    assert found.templates["soft"].text.startswith("an example premise . an example hypothesis ? <p1>")
    assert found.tables == ()
    assert "--data TABLE" in show_task_report(found)


def test_label_words_with_their_pieces_and_notes() -> None:
    found = report_task(XNLI, unigram(), **SETTINGS | {"language": "es"})
    assert list(found.words) == list(XNLI.labels)
    assert found.words["contradiction"].word == "no"
    assert found.words["entailment"].pieces == ("sí",)  # its lone mark is dropped, and a note says so
    assert [note.split(" of ")[0] for note in found.notes] == ["the word 'sí'"]


def test_label_counts_or_none() -> None:
    found = report_task(XNLI, unigram(), [ROWS, Rows(ROWS.texts, None, "raw.tsv")], **SETTINGS)
    assert [table.labels for table in found.tables] == [{"entailment": 1, "neutral": 2, "contradiction": 0}, None]
    shown = show_task_report(found)
    assert "toy.tsv: 3 rows; entailment 1, neutral 2, contradiction 0 (no example of contradiction, so" in shown
    assert "raw.tsv: 3 rows, read without labels" in shown


@pytest.mark.parametrize(
    ("labels", "verdict"), [((0, 1, 2), "(balanced)"), ((0, 1, 2, 2), "(not balanced: 1 to 2 a class)")]
)
def test_balance(labels: tuple[int, ...], verdict: str) -> None:
    rows = Rows((("a", "b"),) * len(labels), labels, "a")
    assert verdict in show_task_report(report_task(XNLI, unigram(), [rows], **SETTINGS))


def test_pieces_and_words_are_counted() -> None:
    found = splitting(unigram(), ["the cat", "zqz - cat"])
    # the, cat; ▁ z q z, ▁ and the unknown dash, cat; a lone dash is no word
    assert (found.words, found.pieces, found.pieces_a_word) == (4, 9, 2.25)
    assert found.unknown_share == 1 / 9
    assert found.unknown_words == ("-",)


def test_english_is_one_times_english(mini: Any) -> None:
    rows = Rows(tuple((text, "It sat") for text in english_texts()), None, "en")
    found = report_task(XNLI, mini, [rows], **SETTINGS | {"max_length": 256})
    assert found.tables[0].times_english == pytest.approx(1, abs=0.1)
    assert found.tables[0].advice.startswith("fine")
    assert found.english.words > 1500


def test_a_script_without_spaces_has_no_pieces_a_word(mini: Any) -> None:
    assert splitting(mini, ["玛丽亚在市场买了五个鸡蛋和两个面包。"]).pieces_a_word is None
    assert splitting(mini, ["มาเรียซื้อไข่ห้าฟองและขนมปังสองก้อนที่ตลาด"]).pieces_a_word is None
    cut = splitting(mini, ["玛丽亚 在 市场 买 了 五 个 鸡蛋"])
    assert cut.pieces_a_word == cut.pieces / 8
    assert splitting(mini, ["?!"]).pieces_a_word is None


def test_a_script_that_the_tokenizer_cannot_read(mini: Any) -> None:
    rows = Rows((("ይህ መጽሐፍ በጣም ጥሩ ነው", "በጣም መጥፎ ነው"),), None, "am.tsv")
    found = report_task(XNLI, mini, [rows], **SETTINGS | {"max_length": 256}).tables[0]
    assert found.splitting.unknown_share > 0.3
    assert found.advice.endswith("unknown: the tokenizer cannot read this script; choose another backbone")
    assert found.splitting.unknown_words[0] in {"በጣም", "ነው"}


@pytest.mark.parametrize(
    ("unknown", "times", "expected"),
    [
        (0.0, 1.49, "fine: 1.5 times the pieces a word of English"),
        (0.0, 2.4, "split 2.4 times as finely as English: expect weaker transfer; prefer in-language examples"),
        (0.009, 1.0, "fine: 1.0 times the pieces a word of English"),
        (0.05, 2.0, "5% unknown (such as ⴘ): lost to the model, so spell it otherwise; split 2.0 times as finely"),
        (0.1, 1.0, "10% unknown: the tokenizer cannot read this script; choose another backbone"),
        (0.0, None, "no spaces between words, so pieces a word cannot be held against English"),
    ],
)
def test_advice(unknown: float, times: float | None, expected: str) -> None:
    assert advise(Splitting(10, 20, 2.0, unknown, ("ⴘ",)), times).startswith(expected)


@pytest.mark.parametrize("times", [None, 1.0])
def test_texts_without_words_are_called_so(mini: Any, times: float | None) -> None:
    found = splitting(mini, ["!!!", "— ?!", "☃"])
    assert (found.words, found.pieces_a_word) == (0, None)
    assert advise(found, times) == "no words found: only punctuation or symbols"


def test_a_length_that_the_tokenizer_or_template_forbids_is_refused(mini: Any) -> None:
    with pytest.raises(InputError, match="`max_length` 513 is more than mini reads: 512"):
        report_task(XNLI, mini, **SETTINGS | {"backbone": "mini", "max_length": 513})
    with pytest.raises(InputError, match="`max_length` 8 is too short"):
        report_task(XNLI, mini, **SETTINGS | {"max_length": 8})


def test_a_language_without_words_is_refused() -> None:
    with pytest.raises(InputError, match="no words in 'quy'; choose from en"):
        report_task(XNLI, unigram(), **SETTINGS | {"language": "quy"})


def test_plain_json() -> None:
    found = report_task(XNLI, unigram(), [ROWS], **SETTINGS)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert list(data) == list(TaskReport.__dataclass_fields__)
    assert data["tables"][0]["lengths"]["soft"]["minimum"] == found.tables[0].lengths["soft"].minimum


def test_single_texts(mini: Any) -> None:
    task = Task(
        name="mood",
        labels=("up", "down"),
        columns=("text",),
        templates={"soft": ("{text}", "{prompt}", "{mask}")},
        words={"en": {"up": "good", "down": "bad"}},
        languages=("en",),
        strip_punctuation=False,
    )
    found = report_task(task, mini, [Rows((("Fine!",),), (0,), "a")], **SETTINGS)
    assert found.templates["soft"].text == "Fine! <p1> <p2> <p3> <p4> <mask>"
    assert np.array_equal(found.tables[0].lengths["soft"].maximum, len(found.templates["soft"].tokens))
