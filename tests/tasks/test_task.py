from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ltprompt.errors import InputError
from ltprompt.files.artifacts import canonical_json, sha256
from ltprompt.tasks import Task, load_task, parse_task, task_names

SENTIMENT = """
name: sentiment
labels: [positive, negative]
columns: [review]
label_column: stars
templates:
  soft: ["{review}", "{prompt}", "{mask}"]
  discrete: ["{review}", "{was}", "{mask}", "."]
words:
  en: {positive: good, negative: bad}
pattern_words:
  en: {was: It was}
languages: [en]
"""

# The published table, row by row: entailment, contradiction, neutral, Question:, Answer:
PUBLISHED = {
    "en": ("right", "wrong", "maybe", "Question:", "Answer:"),
    "ar": ("نعم", "لا", "يمكن", "سؤال:", "إجابه:"),
    "bg": ("да", "не", "можеби", "Въпрос:", "Отговор:"),
    "de": ("Ja", "Nein", "vielleicht", "Frage:", "Antworten:"),
    "el": ("N\u03b1\u03af", "όχι", "μπορεί", "Ερώτηση:", "Απάντηση:"),
    "es": ("sí", "no", "talvez", "Pregunta:", "Respuesta:"),
    "fr": ("oui", "non", "possible", "Question:", "Répondre:"),
    "hi": ("सच", "झूठ", "शायद", "सवाल:", "उत्तर:"),
    "ru": ("да", "нет", "возможно", "Вопрос:", "Отвечать:"),
    "sw": ("ndio", "hasi", "labda", "Swali:", "Jibu:"),
    "th": ("ใช่", "ไม่", "อาจจะ", "คำถาม:", "ตอบ:"),
    "tr": ("Evet", "hiçbir", "belki", "Soru:", "Cevap:"),
    "ur": ("ہاں", "نہیں", "شاید", "سوال:", "جواب:"),
    "vi": ("dạ", "Không", "lẽ", "Câu hỏi:", "Câu trả lời:"),
    "zh": ("是", "否", "也许", "问题\uff1a", "答案\uff1a"),
}


def sentiment(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(SENTIMENT), **changes}


@pytest.mark.parametrize("name", ["xnli", "americasnli"])
def test_published_words(name: str) -> None:
    task = load_task(name)
    assert task.labels == ("entailment", "neutral", "contradiction")
    assert set(task.words) == set(PUBLISHED)
    for language, (entailment, contradiction, neutral, question, answer) in PUBLISHED.items():
        words = task.words_for(language)
        assert list(words.items()) == [
            ("entailment", entailment),
            ("neutral", neutral),
            ("contradiction", contradiction),
        ]
        assert task.template_for("discrete", language) == (
            "{premise}", ".", question, "{hypothesis}", "?", answer, "{mask}", ".",
        )  # fmt: skip
        assert task.template_for("mixed", language) == (
            "{premise}", ".", question, "{hypothesis}", "?", "{prompt}", answer, "{mask}", ".",
        )  # fmt: skip
        assert task.template_for("soft", language) == ("{premise}", ".", "{hypothesis}", "?", "{prompt}", "{mask}", ".")


def test_packaged_tasks() -> None:
    assert task_names() == ["americasnli", "xnli"]
    assert load_task("xnli").languages == tuple(PUBLISHED)
    americas = load_task("americasnli")
    assert americas.name == "americasnli"
    assert americas.languages == ("aym", "bzd", "cni", "gn", "hch", "nah", "oto", "quy", "shp", "tar")
    assert americas.default_language == "en"


def test_a_second_task_is_data(tmp_path: Path) -> None:
    (tmp_path / "sentiment.yaml").write_text(SENTIMENT)
    task = load_task(tmp_path / "sentiment.yaml")
    assert task.columns == ("review",)
    assert task.template_for("discrete", "en") == ("{review}", "It was", "{mask}", ".")
    assert task.words_for("en") == {"positive": "good", "negative": "bad"}


def test_base_by_name_and_by_path(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("base: xnli\nname: a\nstrip_punctuation: false\n")
    (tmp_path / "b.yaml").write_text("base: a.yml\nname: b\n")
    task = load_task(str(tmp_path / "b.yaml"))
    assert (task.name, task.strip_punctuation, task.words) == ("b", False, load_task("xnli").words)


def test_plain_data_comes_back() -> None:
    task = load_task("xnli")
    assert parse_task(task.model_dump(mode="json"), "adapter.json") == task


def test_a_task_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_task("xnli").name = "other"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["positive"]}, "at least two labels"),
        ({"labels": ["positive", "positive"]}, "'positive' is used twice"),
        ({"columns": []}, "at least one text column"),
        ({"columns": ["stars"]}, "'stars' is used twice"),
        ({"columns": ["mask"]}, "'mask' is used twice"),
        ({"templates": {}}, "one template"),
        ({"templates": {"sotf": ["{review}", "{prompt}", "{mask}"]}}, "'sotf'; did you mean 'soft'"),
        ({"templates": {"soft": ["{reviw}", "{prompt}", "{mask}"]}}, "did you mean 'review'"),
        ({"templates": {"soft": ["{review}", "{prompt}"]}}, "must name {mask} exactly once, found 0"),
        (
            {"templates": {"soft": ["{review}", "{prompt}", "{mask}", "{mask}"]}},
            "must name {mask} exactly once, found 2",
        ),
        ({"templates": {"soft": ["{review}", "{mask}"]}}, "must name {prompt} exactly once, found 0"),
        ({"templates": {"mixed": ["{review}", "{was}", "{mask}"]}}, "must name {prompt} exactly once, found 0"),
        ({"templates": {"discrete": ["{review}", "{prompt}", "{mask}"]}}, "must name {prompt} never, found 1"),
        ({"templates": {"soft": ["{prompt}", "{mask}"]}}, "must name {review} exactly once, found 0"),
        ({"templates": {"soft": ["{review} is", "{prompt}", "{mask}"]}}, "neither plain text nor one {name}"),
        ({"templates": {"soft": ["{review}", " ", "{prompt}", "{mask}"]}}, "neither plain text nor one {name}"),
        ({"words": {"en": {"positive": "good"}}}, "have none for the label 'negative'"),
        ({"words": {"en": {"positive": "good", "negative": " "}}}, "have none for the label 'negative'"),
        ({"words": {"en": {"positive": "a", "negatve": "b"}}}, "'negatve'; did you mean 'negative'"),
        ({"words": {"en": {"positive": "yes", "negative": False}}}, "words.en.negative: expected text.*quotes"),
        ({"words": {"en": {"positive": "yes", "negative": 3}}}, "words.en.negative: expected text in quotes, found 3"),
        ({"words": {}}, "needs label words in at least one language"),
        ({"words": {"positive": "good"}}, "words.positive: expected keys with values"),
        ({"labels": [1, 2]}, "labels.0: expected text in quotes, found 1"),
        ({"templates": {"soft": "{review} {prompt} {mask}"}}, "templates.soft: expected a list such as"),
        ({"templates": {"soft": ["{review}", "{prompt}", "{msak}"]}}, "'msak'; did you mean 'mask'"),
        ({"pattern_words": {"en": {"was": "{mask}"}}}, "must be plain text"),
        (
            {"pattern_words": {"en": {"was": "is", "review": "Review:"}}},
            "'review' of 'en' is named like a column.*rename",
        ),
        ({"pattern_words": {"en": {"was": "is", "mask": "Mask:"}}}, "'mask' of 'en' is named like a column or like"),
        ({"pattern_words": {"en": {"was": "is", "prompt": "Say:"}}}, "'prompt' of 'en' is named like a column or like"),
        ({"templates": {"discrete": ["{review} . {mask}"]}}, "neither plain text nor one {name}; split it"),
        ({"strip_punctuation": "perhaps"}, "strip_punctuation: expected true or false, found 'perhaps'"),
        ({"strip_punctuation": ["a"]}, r"strip_punctuation: expected true or false, found \['a'\]"),
        ({"pattern_words": {"de": {"was": "war"}}}, "pattern words: 'de'; choose from en"),
        ({"pattern_words": {}}, "unknown name in the discrete template: 'was'"),
        ({"default_language": "ed"}, "default_language 'ed'; choose from en"),
        ({"lables": ["a", "b"]}, "unknown key 'lables'; did you mean 'labels'"),
        ({"labels": ["positive", "negative "]}, "labels: 'negative ' has white space around it.*write 'negative'$"),
        ({"label_names": ["positive", "negtive"]}, "label_names: 'negtive'; did you mean 'negative'"),
        ({"label_names": ["positive"]}, "label_names has no number for the label 'negative'; name every label, or"),
        ({"label_names": "positive"}, "label_names: expected a list such as"),
        ({"label_map": {0: "bad"}}, "label_map: 'bad'; choose from positive, negative"),
        ({"label_map": ["positive"]}, "label_map: expected keys with values"),
        (
            {"label_map": {True: "positive"}},
            "label_map: the code True is no text; YAML reads yes, .* write it in quotes",
        ),
        ({"label_map": {None: "positive"}}, "label_map.*expected text in quotes, found None"),
        ({"label_map": {0: "positive", "0": "negative"}}, "the code 0 stands for 'positive' and for 'negative'; rem"),
        (
            {"label_names": ["positive", "negative"], "label_map": {1: "positive"}},
            "the code 1 is 'negative' in label_names and 'positive' in label_map; remove one",
        ),
        ({"label_map": {"negative": "positive"}}, "the code negative stands for 'positive' and is a label too"),
    ],
)
def test_unsound_tasks(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(sentiment(**changes)))
    with pytest.raises(InputError, match=message) as caught:
        load_task(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_checked_when_built() -> None:
    with pytest.raises(InputError, match="at least two labels"):
        Task(**sentiment(labels=["positive"]))


def test_pattern_word_missing_in_one_language() -> None:
    words = {"en": {"positive": "good", "negative": "bad"}, "de": {"positive": "gut", "negative": "schlecht"}}
    with pytest.raises(InputError, match="needs the pattern word 'was'; 'de' has none"):
        parse_task(sentiment(words=words), "toy")


def test_missing_key_names_it() -> None:
    data = sentiment()
    del data["columns"]
    with pytest.raises(InputError, match=r"^toy: columns is missing; add it$"):
        parse_task(data, "toy")


def test_languages_are_those_of_the_words_where_none_are_given() -> None:
    words = {"en": {"positive": "good", "negative": "bad"}, "de": {"positive": "gut", "negative": "schlecht"}}
    data = sentiment(words=words, pattern_words={"en": {"was": "It was"}, "de": {"was": "Es war"}}, languages=["sw"])
    assert parse_task(data, "toy").languages == ("sw",)
    del data["languages"]
    assert parse_task(data, "toy").languages == ("en", "de")
    assert parse_task({**data, "languages": []}, "toy").languages == ("en", "de")
    assert Task(**data).languages == ("en", "de")


def test_names_may_hold_spaces_and_hyphens() -> None:
    task = parse_task(
        sentiment(
            columns=["review text", "shop-name"],
            templates={"discrete": ["{review text}", "{it was}", "{shop-name}", "{mask}"]},
            pattern_words={"en": {"it was": "It was at"}},
        ),
        "toy",
    )
    assert task.template_for("discrete", "en") == ("{review text}", "It was at", "{shop-name}", "{mask}")


def test_a_key_that_stands_twice_is_refused_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(SENTIMENT.replace("languages: [en]", "columns: [text]"))
    with pytest.raises(InputError, match=r"toy\.yaml, line 13: the key 'columns' stands in line 4 too; remove one$"):
        load_task(path)


def test_a_misspelt_base_is_known() -> None:
    with pytest.raises(InputError, match="unknown key 'bases'; did you mean 'base'"):
        parse_task(sentiment(bases="xnli"), "toy")


def test_codes_of_labels_are_read_as_text_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(
        f"{SENTIMENT}label_names: [negative, positive]\nlabel_map: {{-1: negative, 2.0: positive, 'true': positive}}"
    )
    task = load_task(path)
    assert task.label_names == ("negative", "positive")
    assert task.label_map == {"-1": "negative", "2": "positive", "true": "positive"}
    assert task.label_codes == {"0": "negative", "1": "positive", **task.label_map}
    assert parse_task(task.model_dump(mode="json"), "adapter.json") == task


def test_codes_leave_the_digest_of_a_task_as_it_was_until_they_are_used() -> None:
    def digest(**changes: Any) -> str:
        return sha256(canonical_json(parse_task(sentiment(**changes), "toy").model_dump(mode="json")))

    old = "2d166c24bbac730cd4508b59607d92edb28575de973162e1e35b40a36a89e8e4"
    assert digest() == old
    assert digest(label_names=[], label_map={}) == old
    assert digest(label_names=["negative", "positive"]) != old
    assert digest(label_map={0: "negative"}) == digest(label_map={"0": "negative"}) != old


def test_unknown_language_and_style() -> None:
    task = load_task("americasnli")
    with pytest.raises(InputError, match=r"no words in 'aym'; .*choose from en, ar"):
        task.words_for("aym")
    with pytest.raises(InputError, match="no words in 'aym'"):
        task.template_for("soft", "aym")
    with pytest.raises(InputError, match="no 'sof' template; did you mean 'soft'"):
        task.template_for("sof", "en")


def test_unknown_task_and_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown task 'xnil'; did you mean 'xnli'"):
        load_task("xnil")
    (tmp_path / "mine.yaml").write_text("labels: [a")
    with pytest.raises(InputError, match=r"does not exist; did you mean .*mine\.yaml"):
        load_task(tmp_path / "mime.yaml")
    with pytest.raises(InputError, match=r"not valid YAML.*line 1"):
        load_task(tmp_path / "mine.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(InputError, match="does not hold the keys of a task"):
        load_task(tmp_path / "list.yaml")
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(InputError, match="is its own base"):
        load_task(tmp_path / "a.yaml")
