from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ltprompt.errors import InputError
from ltprompt.experiments.data import sources
from ltprompt.experiments.data.hub import UnreachableError
from ltprompt.experiments.data.settings import data_settings
from ltprompt.experiments.data.sources import Sources, digest
from ltprompt.experiments.data.usable import Usable
from ltprompt.tasks import Rows, label_counts, load_task, read_rows
from ltprompt.tasks.splits import draw

XNLI = load_task("xnli")
TABLE = {"train": {"table": "data/{language}.tsv"}}
FEWSHOT = {"train": {"fewshot": "splits"}, "test": {"files": "test/{language}.tsv"}}


def write_table(path: Path, each: int) -> Path:
    """Write `each` examples a class."""
    lines = [f"{path} {number} {label}\th\t{label}" for number in range(each) for label in XNLI.labels]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["premise\thypothesis\tlabel", *lines, ""]))
    return path


def write_split(path: Path, shots: int) -> Path:
    rows = [
        {"premise": f"{path} {n}", "hypothesis": "h", "label": label} for n, label in enumerate(XNLI.labels * shots)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def made(base: Path, given: dict[str, Any], **changes: Any) -> Sources:
    return Sources(data_settings({**given, **changes}), XNLI, base)


def texts(rows: Rows | None) -> set[tuple[str, ...]]:
    assert rows is not None
    return set(rows.texts)


def test_published_splits_as_they_are(tmp_path: Path) -> None:
    for language in ("en", "sw"):
        train = write_split(tmp_path / "splits" / language / "train.2.jsonl", 2)
        dev = write_split(tmp_path / "splits" / language / "dev.2.jsonl", 2)
        write_table(tmp_path / "test" / f"{language}.tsv", 5)
    found = made(tmp_path, FEWSHOT)
    rows = found.train("sw", 2)
    assert rows[1] is not None
    assert (rows[0].texts, rows[1].texts) == (read_rows(train, XNLI).texts, read_rows(dev, XNLI).texts)
    assert [one.name for one in rows if one] == ["splits/sw/train.2.jsonl", "splits/sw/dev.2.jsonl"]
    assert len(found.test("sw", 2).rows) == 15
    assert (found.test("sw", 2).note, found.test("sw", 2).rows.name) == ("", "test/sw.tsv")
    assert found.problems("zero-shot", ["en", "sw"], [2]) == []
    assert found.problems("in-language", ["en", "sw"], [2]) == []
    assert (found.source_name, found.source_language, found.languages) == ("splits", "en", XNLI.languages)
    without_dev = made(tmp_path, FEWSHOT, train={"fewshot": "splits", "dev_shots": 0})
    assert without_dev.train("en", 2)[1] is None


def test_a_folder_without_languages_is_of_the_source_language(tmp_path: Path) -> None:
    write_split(tmp_path / "splits" / "train.1.jsonl", 1)
    write_split(tmp_path / "splits" / "dev.1.jsonl", 1)
    assert len(made(tmp_path, FEWSHOT).train("en", 1)[0]) == 3
    assert len(made(tmp_path, FEWSHOT, source_language="sw").train("sw", 1)[0]) == 3
    with pytest.raises(InputError, match="no folder for the language 'sw'"):
        made(tmp_path, FEWSHOT).train("sw", 1)


@pytest.mark.parametrize("kind", ["table", "official"])
def test_one_draw_for_all(tmp_path: Path, kind: str) -> None:
    rows = read_rows(write_table(tmp_path / "data" / "en.tsv", 20), XNLI)
    source = {kind: "data/{language}.tsv"}
    for draw_seed, dev_shots in ((0, None), (7, 3), (0, 0)):
        changes = {"draw_seed": draw_seed} | ({} if dev_shots is None else {"dev_shots": dev_shots})
        found = made(tmp_path, {"train": source | changes}, source_name="N")
        count = 4 if dev_shots is None else dev_shots
        expected = draw(rows, XNLI, shots=4, dev_shots=count, seed=draw_seed)
        train, dev = found.train("en", 4)
        assert train.texts == rows.select(expected.train).texts
        assert (dev.texts if dev else ()) == rows.select(expected.dev).texts
        assert (dev is None) == (count == 0)
        rest = found.test("en", 4)
        assert rest.rows.texts == rows.select(expected.rest).texts
        assert rest.note == f"rest of N ({60 - 3 * (4 + count)} examples)"
        assert not texts(rest.rows) & (texts(train) | (texts(dev) if dev else set()))
        assert found.train("en", 4)[0] is found.train("en", 4)[0]
        assert train.name == "data/en.tsv"


def test_only_the_first_examples_are_kept_and_that_is_said(tmp_path: Path) -> None:
    rows = read_rows(write_table(tmp_path / "test" / "en.tsv", 5), XNLI)
    write_table(tmp_path / "data" / "en.tsv", 5)
    cut = made(tmp_path, FEWSHOT, examples=4).test("en", 1)
    assert (cut.rows.texts, cut.note) == (rows.texts[:4], "first 4 of 15 examples")
    whole = made(tmp_path, FEWSHOT, examples=15).test("en", 1)
    assert (whole.rows.texts, whole.note) == (rows.texts, "")
    rest = made(tmp_path, TABLE, examples=4).test("en", 1)
    assert len(rest.rows) == 4
    # Which rows the draw leaves depends on their texts, here the folder of this test; so does a class that is missing.
    assert rest.note.partition("; no ")[0] == "rest of data (9 examples); first 4 of 9 examples"


def test_a_class_that_the_first_examples_lack_is_named(tmp_path: Path) -> None:
    lines = [f"p {number}\th\t{label}" for label in XNLI.labels for number in range(4)]
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "en.tsv").write_text("\n".join(["premise\thypothesis\tlabel", *lines, ""]))
    found = made(tmp_path, FEWSHOT, examples=5)
    lacking = f"no {XNLI.labels[2]!r}"
    assert found.test("en", 1).note == f"first 5 of 12 examples; {lacking}"
    assert found.notes() == [
        f"test/en.tsv: first 5 of 12 examples hold {lacking}; give data.sample, which draws of every class"
    ]


def test_a_sample_draws_the_same_rows_of_every_language(tmp_path: Path) -> None:
    labels = sorted(XNLI.labels * 10)
    for language in ("en", "sw"):
        lines = [f"{language} {number}\th\t{label}" for number, label in enumerate(labels)]
        path = tmp_path / "test" / f"{language}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(["premise\thypothesis\tlabel", *lines, ""]))
    found = made(tmp_path, FEWSHOT, sample=6)
    numbers = {
        language: [int(text[0].split()[1]) for text in found.test(language, 1).rows.texts] for language in ("en", "sw")
    }
    assert numbers["en"] == numbers["sw"] == sorted(numbers["en"])
    assert label_counts(found.test("en", 1).rows, XNLI) == dict.fromkeys(XNLI.labels, 2)
    assert found.test("en", 1).note == "6 of 30 examples, drawn by class with seed 0"
    assert found.notes() == []
    assert made(tmp_path, FEWSHOT, sample=6, sample_seed=1).test("en", 1).rows.texts != found.test("en", 1).rows.texts


@pytest.mark.real
def test_a_sample_of_sib_200_has_every_class(shared: Path) -> None:
    base = shared / "data" / "sib200" / "test"
    labels = tuple(dict.fromkeys(row["label"] for row in csv.DictReader((base / "en.csv").open(encoding="utf-8"))))
    task = XNLI.model_copy(update={"labels": labels, "columns": ("text",), "label_column": "label"})
    given = {"train": {"fewshot": "none"}, "test": {"files": "{language}.csv"}}
    first = Sources(data_settings({**given, "examples": 20}), task, base)
    assert set(first.test("en", 1).rows.labels or ()) == {0}
    assert "en.csv: first 20 of 204 examples hold no " in first.notes()[0]
    drawn = Sources(data_settings({**given, "sample": 20}), task, base)
    kept = {language: drawn.test(language, 1).rows.labels for language in ("en", "sw", "quy", "zh")}
    assert set(kept.values()) == {kept["en"]}
    assert set(kept["en"] or ()) == set(range(7))


def test_an_official_file_holds_every_language(tmp_path: Path) -> None:
    lines = [f"{language}\t{label}\tp {label}\th" for language in ("sw", "ur") for label in (*XNLI.labels, "-")]
    (tmp_path / "xnli.test.tsv").write_text("\n".join(["language\tgold_label\tsentence1\tsentence2", *lines, ""]))
    found = made(tmp_path, TABLE, test={"official": "xnli.test.tsv"})
    assert found.test("ur", 1).note == "1 without an agreed label left out"
    assert found.test("ur", 1).rows.name == "xnli.test.tsv (ur)"
    assert label_counts(found.test("sw", 1).rows, XNLI) == dict.fromkeys(XNLI.labels, 1)
    assert found.notes() == [f"xnli.test.tsv ({code}): 1 without an agreed label left out" for code in ("sw", "ur")]
    with pytest.raises(
        InputError, match=r"xnli\.test\.tsv has no rows in 'urd'; did you mean 'ur'\? choose from sw, ur"
    ):
        found.test("urd", 1)


def test_one_table_is_of_one_language(tmp_path: Path) -> None:
    write_table(tmp_path / "all.tsv", 4)
    found = made(tmp_path, {"train": {"table": "all.tsv"}})
    assert len(found.train("en", 1)[0]) == 3
    message = r"data\.train: all\.tsv is of 'en' alone and has none in 'sw'; write {language} where .* in its path"
    with pytest.raises(InputError, match=message):
        found.train("sw", 1)
    assert found.problems("in-language", ["en"], [1]) == []


class Hub:
    """Stands in for the reader of the hub. `rows` by config; a config it does not have is out of reach."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: dict[str, Rows]) -> None:
        self.rows = rows
        self.asked: list[tuple[str, dict[str, Any]]] = []
        monkeypatch.setattr(sources, "read_hub", self.read)

    def read(self, name: str, _task: object, **asked: Any) -> Usable:
        self.asked.append((name, asked))
        if asked["config"] not in self.rows:
            raise UnreachableError(f"{name} cannot be reached")
        return Usable(self.rows[asked["config"]], "remark")


def test_the_hub_is_asked_once_for_each_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_rows(write_table(tmp_path / "a.tsv", 6), XNLI)
    hub = Hub(monkeypatch, {"sw": rows, "ur": rows})
    source = {"hub": "a/b", "revision": "v1"}
    found = made(tmp_path, {"train": source | {"split": "validation"}, "test": source})
    assert found.problems("in-language", ["sw", "ur"], [1, 2]) == []
    found.train("sw", 2)
    assert found.test("sw", 2).note == "remark"
    asked = {"revision": "v1", "label_names": None}
    assert hub.asked == [
        ("a/b", asked | {"config": config, "split": split})
        for split in ("validation", "test")
        for config in ("sw", "ur")
    ]


def test_large_tables_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_rows(write_table(tmp_path / "a.tsv", 6), XNLI)
    hub = Hub(monkeypatch, {"sw": rows, "ur": rows})
    found = made(tmp_path, {"train": {"hub": "a/b"}})
    monkeypatch.setattr(sources, "LARGE", len(rows) - 1)
    assert found.problems("in-language", ["sw", "ur"], [1, 2]) == []
    for language in ("sw", "ur", "sw"):
        assert len(found.train(language, 2)[0]) == 6
    assert len(hub.asked) == 2  # no draw needs a table again
    assert len(found._tables) == 1


def test_a_hub_out_of_reach_is_one_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, {})
    found = made(tmp_path, {"train": {"hub": "a/b"}, "test": {"hub": "a/b"}})
    assert found.problems("in-language", XNLI.languages, [1, 2]) == ["a/b cannot be reached"]
    assert len(hub.asked) == 1


def test_a_hub_like_folder_is_seen_from_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, {"en": read_rows(write_table(tmp_path / "a.tsv", 6), XNLI)})
    (tmp_path / "copy").mkdir()
    source = {"hub": "copy", "config": "en", "label_names": ["a", "b"]}
    found = made(tmp_path, {"train": source})
    assert len(found.train("en", 1)[0]) == 3
    assert hub.asked[0][0] == str(tmp_path / "copy")
    assert hub.asked[0][1]["label_names"] == ("a", "b")
    with pytest.raises(InputError, match=r"copy is of 'en' alone .* write {language} where .* in its config"):
        found.train("sw", 1)


def test_every_problem_is_found_at_once(tmp_path: Path) -> None:
    for language, each in (("en", 4), ("sw", 2), ("ur", 40)):
        write_table(tmp_path / "data" / f"{language}.tsv", each)
        write_table(tmp_path / "test" / f"{language}.tsv", 1)
    (tmp_path / "test" / "sw.tsv").write_text("premise\thypothesis\tlabel\na\tb\tyes\n")
    (tmp_path / "test" / "en.tsv").rename(tmp_path / "test" / "eng.tsv")
    found = made(tmp_path, TABLE, test={"files": "test/{language}.tsv"})
    problems = found.problems("in-language", ["en", "sw", "ur", "vi"], [2, 16])
    en, sw, sw_16, vi, test_en, test_sw, test_vi = problems
    assert en.startswith(
        "data/en.tsv: different examples of 'entailment' number 4, but `shots` 16 and `dev_shots` 16 take"
    )
    assert en.endswith("the largest possible is `shots` 2 with as many for dev")
    assert sw.startswith(
        "data/sw.tsv: different examples of 'entailment' number 2, but `shots` 2 and `dev_shots` 2 take 4"
    )
    assert "`dev_shots` 16 take 32" in sw_16
    assert vi.startswith(f"{tmp_path}/data/vi.tsv does not exist")
    assert test_en.endswith(f"did you mean {tmp_path}/test/eng.tsv?")
    assert "test/sw.tsv, line 2: unknown label 'yes'; choose from entailment, neutral, contradiction" in test_sw
    assert test_vi.startswith(f"{tmp_path}/test/vi.tsv does not exist")


def test_zero_shot_trains_on_the_source_language_alone(tmp_path: Path) -> None:
    write_table(tmp_path / "data" / "ur.tsv", 4)
    for language in ("sw", "ur"):
        write_table(tmp_path / "test" / f"{language}.tsv", 1)
    changes = {"test": {"files": "test/{language}.tsv"}, "source_language": "ur"}
    assert made(tmp_path, TABLE, **changes).problems("zero-shot", ["sw", "ur"], [2]) == []
    (problem,) = made(tmp_path, TABLE, **changes).problems("in-language", ["sw", "ur"], [2])
    assert f"{tmp_path}/data/sw.tsv does not exist" in problem
    (problem,) = made(tmp_path, TABLE, source_language="ur").problems("zero-shot", ["sw"], [2])
    assert problem.startswith("data.test is missing: zero-shot runs need test rows of every language; add test: {files")


def test_a_rest_there_is_not(tmp_path: Path) -> None:
    write_table(tmp_path / "data" / "en.tsv", 4)
    (problem,) = made(tmp_path, TABLE).problems("in-language", ["en"], [1, 2])
    assert problem.startswith("data/en.tsv: 2 shots and dev_shots 2 leave nothing to test on; take fewer, or add test:")
    write_split(tmp_path / "splits" / "en" / "train.1.jsonl", 1)
    write_split(tmp_path / "splits" / "en" / "dev.1.jsonl", 1)
    (problem,) = made(tmp_path, {"train": FEWSHOT["train"]}).problems("in-language", ["en"], [1])
    assert problem.startswith(
        "data.test is missing: folders of few-shot splits leave no rest; add test: {files: FOLDER"
    )


def test_no_table_is_both_drawn_from_and_tested_on(tmp_path: Path) -> None:
    for language in ("en", "sw"):
        write_table(tmp_path / "data" / f"{language}.tsv", 9)
    found = made(tmp_path, TABLE, test={"official": "data/{language}.tsv"})
    assert [problem.split(" is ")[0] for problem in found.problems("in-language", ["en", "sw"], [1])] == [
        "data.test: data/en.tsv",
        "data.test: data/sw.tsv",
    ]
    (problem,) = found.problems("zero-shot", ["en", "sw"], [1])
    assert problem.startswith(
        "data.test: data/en.tsv is the table that train is drawn from; give another, or for in-la"
    )


def test_names_do_not_depend_on_where_the_project_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "grids" / "en.tsv", 4)
    write_table(tmp_path / "data" / "en.tsv", 4)
    monkeypatch.chdir(tmp_path)
    for base in (tmp_path / "grids", Path("grids")):
        assert made(base, {"train": {"table": "../data/en.tsv"}}).train("en", 1)[0].name == "../data/en.tsv"
    assert made(Path(), {"train": {"table": "data/en.tsv"}}).train("en", 1)[0].name == "data/en.tsv"


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("../shared/splits", "splits"),
        ("a/dev/{language}.tsv", "dev"),
        ("a/all.tsv", "all.tsv"),
        ("{language}.tsv", "{language}.tsv"),
        ("../{language}.tsv", "../{language}.tsv"),
    ],
)
def test_the_source_is_called_by_its_location(location: str, name: str) -> None:
    assert made(Path(), {"train": {"table": location}}).source_name == name
    assert made(Path(), {"train": {"table": location}}, source_name="X").source_name == "X"


def test_digest_is_of_what_the_rows_say() -> None:
    rows = Rows((("a", "b"), ("c", "é")), (0, 2), "name")
    told = [["premise", "hypothesis"], ["a", "b", "entailment"], ["c", "é", "contradiction"]]
    text = "".join(json.dumps(part, separators=(",", ":"), ensure_ascii=False) for part in told)
    assert digest(rows, XNLI) == hashlib.sha256(text.encode()).hexdigest()
    other_order = XNLI.model_copy(update={"labels": XNLI.labels[::-1]})
    assert digest(Rows(rows.texts, (2, 0), "elsewhere"), other_order) == digest(rows, XNLI)
    different = [
        digest(rows, XNLI),
        digest(rows.select([1, 0]), XNLI),
        digest(Rows(rows.texts, (0, 1), "name"), XNLI),
        digest(Rows(rows.texts, None, "name"), XNLI),
        digest(Rows((("ab", ""), ("c", "é")), (0, 2), "name"), XNLI),
        digest(rows, XNLI.model_copy(update={"columns": ("text", "hypothesis")})),
    ]
    assert len(set(different)) == len(different)


@pytest.mark.real
def test_every_published_split_loads_and_is_balanced(shared: Path) -> None:
    given = {"train": {"fewshot": "xnli/fewshot"}, "test": {"files": "xnli/dev/{language}.tsv"}}
    found = made(shared / "data", given)
    shots = (1, 2, 4, 8, 16, 32, 64)
    assert found.problems("in-language", found.languages, shots) == []
    for language in found.languages:
        for count in shots:
            for rows in found.train(language, count):
                assert rows is not None
                assert label_counts(rows, XNLI) == dict.fromkeys(XNLI.labels, count)
    assert found.notes() == [
        f"xnli/fewshot/ar/train.{count}.jsonl: 1 with an empty text kept" for count in (16, 32, 64)
    ]


@pytest.mark.real
def test_the_xnli_development_sets_are_parallel(shared: Path) -> None:
    given = {"train": {"fewshot": "xnli/fewshot"}, "test": {"files": "xnli/dev/{language}.tsv"}}
    found = made(shared / "data", given, examples=300)
    tests = [found.test(language, 1) for language in found.languages]
    assert len({test.rows.labels for test in tests}) == 1
    assert {(len(test.rows), test.note) for test in tests} == {(300, "first 300 of 2,490 examples")}
    assert len({digest(test.rows, XNLI) for test in tests}) == 15


@pytest.mark.real
def test_32_and_32_fit_in_every_language_of_the_americas(shared: Path) -> None:
    given = {"train": {"table": "americasnli/dev/{language}.tsv"}, "source_name": "AmericasNLI-dev"}
    task = load_task("americasnli")
    found = Sources(data_settings(given), task, shared / "data")
    assert found.problems("in-language", found.languages, [32]) == []
    for language in found.languages:
        train, dev = found.train(language, 32)
        rest = found.test(language, 32)
        for rows in (train, dev):
            assert rows is not None
            assert label_counts(rows, task) == dict.fromkeys(task.labels, 32)
        assert rest.note == f"rest of AmericasNLI-dev ({len(rest.rows)} examples)"
        assert not texts(rest.rows) & (texts(train) | texts(dev))
    (problem,) = found.problems("in-language", ["oto"], [35])
    assert problem.endswith("the largest possible is `shots` 34 with as many for dev")
