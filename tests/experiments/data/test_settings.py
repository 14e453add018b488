from __future__ import annotations

from typing import Any

import pytest

from ltprompt.errors import InputError
from ltprompt.experiments.data.settings import DataSettings, data_settings, fill

TABLE = {"table": "dev/{language}.tsv"}


def test_what_is_left_out_has_a_default() -> None:
    found = data_settings({"train": {"fewshot": "splits"}, "test": {"hub": "facebook/xnli"}})
    assert (found.train.kind, found.train.location) == ("fewshot", "splits")
    assert (found.train.dev_shots, found.train.draw_seed) == (None, 0)
    assert found.test is not None
    assert (found.test.kind, found.test.location, found.test.config) == ("hub", "facebook/xnli", "{language}")
    assert (found.test.split, found.train.split) == ("test", "train")
    assert (found.examples, found.languages, found.source_language, found.source_name) == (None,) * 4
    assert data_settings({"train": TABLE}).test is None


def test_all_of_it_can_be_given() -> None:
    given: dict[str, Any] = {
        "train": {"hub": "a/b", "revision": "v1", "split": "dev", "config": "default", "label_names": ["x", "y"]},
        "test": {"official": "xnli.test.tsv"},
        "examples": 300,
        "languages": ["sw", "ur"],
        "source_language": "de",
        "source_name": "MultiNLI",
    }
    given["train"] |= {"draw_seed": 3, "dev_shots": 0}
    found = data_settings(given)
    assert found.train.label_names == ("x", "y")
    assert found.languages == ("sw", "ur")
    plain = found.model_dump(mode="json", exclude_defaults=True)
    assert plain == given
    assert DataSettings(train=found.train, test=found.test).train is found.train
    with pytest.raises(ValueError, match="frozen"):
        found.examples = 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": TABLE, "tset": {}}, r"^data: unknown key 'tset'; did you mean 'test'\? choose from train, test, "),
        ({"train": {"tabel": "a.tsv"}}, r"^data\.train: unknown key 'tabel'; did you mean 'table'\?"),
        ({"train": TABLE, "test": {"file": "a.tsv"}}, r"^data\.test: unknown key 'file'; did you mean 'files'\?"),
        ({"train": TABLE, "test": {3: "a.tsv"}}, r"^data\.test: unknown key '3'; choose from"),
        ({"train": TABLE, "test": {"draw_seed": 3}}, r"^data\.test: unknown key 'draw_seed'"),
        ({"test": {"files": "a.tsv"}}, r"^data\.train is missing; give it, such as train: {fewshot: FOLDER}"),
        ({"train": "splits"}, r"^data\.train must be keys with values, such as fewshot: FOLDER, found 'splits'"),
        (
            {"train": TABLE, "examples": 3, "sample": 5},
            "^data: examples 3 keeps a table's first rows and sample 5 draws",
        ),
        ({"train": TABLE, "sample_seed": 1}, "^data: sample_seed goes with sample, such as sample: 100"),
        ({"train": TABLE, "sample": 0}, r"^data\.sample cannot be 0: input should be greater"),
        ({"train": {}}, r"^data\.train needs exactly one of fewshot, table, hub, official; found none"),
        ({"train": TABLE | {"hub": "a/b"}}, r"^data\.train needs exactly one of .*; found table and hub"),
        ({"train": TABLE, "test": {}}, r"^data\.test needs exactly one of files, hub, official; found none"),
        ({"train": {"table": "{lang}.tsv"}}, r"^data\.train: '{lang}\.tsv' holds {lang}; only {language} can be"),
        ({"train": {"hub": "a/b", "config": "{}"}}, r"^data\.train: '{}' holds {}; only {language}"),
        ({"train": TABLE | {"revision": "v1"}}, r"^data\.train: revision goes with hub, not with table; remove it"),
        ({"train": TABLE | {"split": "train"}}, r"^data\.train: split goes with hub, not with table"),
        ({"train": TABLE, "test": {"files": "a", "label_names": ["x"]}}, r"^data\.test: label_names goes with hub"),
        ({"train": {"fewshot": "a", "draw_seed": 1}}, r"^data\.train: draw_seed goes with table, hub or official, not"),
        ({"train": TABLE | {"dev_shots": -1}}, r"^data\.train\.dev_shots cannot be -1: input should be greater"),
        ({"train": TABLE | {"draw_seed": "x"}}, r"^data\.train\.draw_seed cannot be 'x': input should be a valid int"),
        ({"train": {"table": ["a"]}}, r"^data\.train\.table: expected text in quotes, found \['a'\]"),
        ({"train": TABLE, "examples": 0}, r"^data\.examples cannot be 0: input should be greater"),
        ({"train": TABLE, "languages": []}, r"^data\.languages cannot be \[\]: tuple should have at least 1 item"),
    ],
)
def test_every_fault_names_its_key_and_the_mend(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        data_settings(given)
    assert "\n" not in str(caught.value)


def test_a_section_that_is_none() -> None:
    with pytest.raises(InputError, match=r"^data must be keys with values, such as train: {fewshot: FOLDER}, found"):
        data_settings([])  # type: ignore[arg-type]


def test_only_the_language_is_filled_in() -> None:
    assert fill("a/{language}/{language}.{x}", "sw") == "a/sw/sw.{x}"
