"""A folder laid out like a data set's repository stands in for the hub, which tests do not reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from ltprompt.errors import InputError
from ltprompt.experiments.data.hub import UnreachableError, read_hub
from ltprompt.tasks import Rows, load_task

XNLI = load_task("xnli")
LABELS = list(XNLI.labels)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def repository(root: Path, tables: dict[tuple[str, str], dict[str, list[Any]]], label: Any) -> str:
    """Write a data set as the hub keeps it: parquet files by config and split, and a README.md that lists them."""
    features = {"label": label}
    lines = ["---", "configs:"]
    for config in dict.fromkeys(config for config, _ in tables):
        lines += [f"- config_name: {config}", "  data_files:"]
        for split in (split for name, split in tables if name == config):
            lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
            columns = tables[config, split]
            types = {name: features.get(name, datasets.Value("string")) for name in columns}
            table = datasets.Dataset.from_dict(columns, features=datasets.Features(types))
            path = root / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_parquet(path)
    (root / "README.md").write_text("\n".join([*lines, "---", ""]))
    return str(root)


def pairs(labels: list[Any], word: str = "") -> dict[str, list[Any]]:
    numbers = range(len(labels))
    return {"premise": [f"p{word}{n}" for n in numbers], "hypothesis": [f"h{n}" for n in numbers], "label": labels}


def test_configs_are_languages_and_labels_are_numbered(tmp_path: Path) -> None:
    tables = {("en", "test"): pairs([2, 0, 1], "en"), ("sw", "test"): pairs([1], "sw"), ("sw", "dev"): pairs([0])}
    name = repository(tmp_path / "xnli", tables, datasets.ClassLabel(names=LABELS))
    found = read_hub(name, XNLI, config="en", split="test")
    assert found.rows.texts == (("pen0", "h0"), ("pen1", "h1"), ("pen2", "h2"))
    assert (found.rows.labels, found.remark) == ((2, 0, 1), "")
    assert found.rows.name == f"{name} (en, test)"
    assert read_hub(name, XNLI, config="sw", split="test").rows.texts == (("psw0", "h0"),)
    assert read_hub(name, XNLI, config="sw", split="dev").rows.labels == (0,)


@pytest.mark.parametrize(
    ("label", "given", "values"),
    [
        (datasets.ClassLabel(names=LABELS[::-1]), None, [0, 2]),
        (datasets.Value("string"), None, ["contradiction", " entailment "]),
        (datasets.Value("int64"), ["neutral", "contradiction", "entailment"], [1, 2]),
        (datasets.ClassLabel(names=["0", "1", "2"]), LABELS, [2, 0]),
        (datasets.ClassLabel(names=[*LABELS, "-"]), None, [2, 0]),
    ],
)
def test_names_count_not_numbers(tmp_path: Path, label: Any, given: list[str] | None, values: list[Any]) -> None:
    name = repository(tmp_path / "a", {("en", "train"): pairs(values)}, label)
    assert read_hub(name, XNLI, config="en", split="train", label_names=given).rows.labels == (2, 0)


@pytest.mark.parametrize(
    ("label", "codes", "values"),
    [
        (datasets.Value("int64"), {"label_names": ("neutral", "contradiction", "entailment")}, [1, -1, 2]),
        (
            datasets.Value("string"),
            {"label_names": ("neutral", "contradiction", "entailment")},
            ["1", None, "entailment"],
        ),
        (datasets.Value("int8"), {"label_map": {"-1": "contradiction", "1": "entailment"}}, [-1, None, 1]),
        (datasets.Value("float32"), {"label_map": {"0": "contradiction", "0.5": "entailment"}}, [0, -1, 0.5]),
        (
            datasets.ClassLabel(names=["a", "b", "c"]),
            {"label_names": ("neutral", "contradiction", "entailment")},
            [1, -1, 2],
        ),
        (
            datasets.ClassLabel(names=["0", "1", "2"]),
            {"label_names": ("neutral", "contradiction", "entailment")},
            [1, -1, 2],
        ),
        (datasets.ClassLabel(names=LABELS), {"label_names": ("neutral", "contradiction", "entailment")}, [2, -1, 0]),
        (datasets.ClassLabel(names=["yes", *LABELS[1:]]), {"label_map": {"yes": "entailment"}}, [2, -1, 0]),
    ],
)
def test_the_task_names_numbers_as_it_does_for_other_data(
    tmp_path: Path, label: Any, codes: dict[str, Any], values: list[Any]
) -> None:
    name = repository(tmp_path / "a", {("en", "train"): pairs(values)}, label)
    found = read_hub(name, XNLI.model_copy(update=codes), config="en", split="train")
    assert found.rows == Rows((("p0", "h0"), ("p2", "h2")), (2, 0), f"{name} (en, train)")
    assert found.remark == "1 without an agreed label left out"


def test_the_data_section_s_label_names_go_before_the_task_s(tmp_path: Path) -> None:
    name = repository(tmp_path / "a", {("en", "train"): pairs([1, 2])}, datasets.Value("int64"))
    task = XNLI.model_copy(update={"label_names": tuple(LABELS[::-1])})
    given = ["contradiction", "entailment", "neutral"]
    assert read_hub(name, task, config="en", split="train", label_names=given).rows.labels == (0, 1)


def test_rows_without_a_label_or_text_are_left_out(tmp_path: Path) -> None:
    columns = pairs([0, -1, 1, 2])
    columns["hypothesis"][3] = " "
    name = repository(tmp_path / "a", {("en", "train"): columns}, datasets.ClassLabel(names=LABELS))
    found = read_hub(name, XNLI, config="en", split="train")
    assert (found.rows.texts, found.rows.labels) == ((("p0", "h0"), ("p2", "h2")), (0, 1))
    assert found.remark == "1 without an agreed label left out, 1 with an empty text left out"


def test_a_test_set_without_labels_is_refused(tmp_path: Path) -> None:
    name = repository(tmp_path / "a", {("en", "test"): pairs([-1, -1])}, datasets.ClassLabel(names=LABELS))
    with pytest.raises(InputError, match=r"a \(en, test\) has no labels in any of its 2 rows: they are kept back"):
        read_hub(name, XNLI, config="en", split="test")


def test_unknown_configs_and_splits_name_those_there_are(tmp_path: Path) -> None:
    tables = {("quy", "validation"): pairs([0]), ("gn", "validation"): pairs([0]), ("gn", "test"): pairs([0])}
    name = repository(tmp_path / "a", tables, datasets.ClassLabel(names=LABELS))
    with pytest.raises(InputError, match=r"a' has no config 'qu'; did you mean 'quy'\? choose from quy, gn$"):
        read_hub(name, XNLI, config="qu", split="test")
    with pytest.raises(InputError, match=r"a' has no split 'test' in 'quy'; choose from validation$"):
        read_hub(name, XNLI, config="quy", split="test")


@pytest.mark.parametrize(
    ("label", "values", "message"),
    [
        (datasets.Value("int64"), [0], r"labels are numbers \(int64\) without names; give label_names"),
        (datasets.Value("string"), ["maybe"], r"a \(en, train\), row 0: unknown label 'maybe'; choose from entailment"),
        (datasets.ClassLabel(names=["yes", "no"]), [0], r"has the labels yes, no, the task xnli has entailment, neut"),
    ],
)
def test_labels_that_are_not_the_task_s(tmp_path: Path, label: Any, values: list[Any], message: str) -> None:
    name = repository(tmp_path / "a", {("en", "train"): pairs(values)}, label)
    with pytest.raises(InputError, match=message):
        read_hub(name, XNLI, config="en", split="train")


def test_columns_and_numbers_that_are_not_the_task_s(tmp_path: Path) -> None:
    columns = pairs([3])
    name = repository(tmp_path / "a", {("en", "train"): columns}, datasets.Value("int64"))
    with pytest.raises(InputError, match=r"row 0: the label 3 has no name; 3 are named: entailment"):
        read_hub(name, XNLI, config="en", split="train", label_names=LABELS)
    columns["hypotesis"] = columns.pop("hypothesis")
    name = repository(tmp_path / "b", {("en", "train"): columns}, datasets.Value("int64"))
    with pytest.raises(InputError, match=r"no column 'hypothesis'; did you mean 'hypotesis'\? found premise, label, "):
        read_hub(name, XNLI, config="en", split="train", label_names=LABELS)


def test_offline_says_what_was_tried_and_how_to_go_on() -> None:
    with pytest.raises(UnreachableError) as caught:
        read_hub("facebook/xnli", XNLI, config="sw", split="test", revision="abc")
    message = str(caught.value)
    assert message.startswith("the data set 'facebook/xnli' at revision 'abc' cannot be reached: Couldn't reach")
    assert message.endswith("or give local files instead, under table, files or official")
    assert "\n" not in message


def test_a_config_that_is_not_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise ValueError("Couldn't find cache for a/b for config 'sw'\nAvailable configs in the cache: ['en']")

    monkeypatch.setattr(datasets, "load_dataset", load)
    # What `datasets` says of every data set that it has only in its cache.
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda *_, **__: ["default"])
    message = (
        r"'a/b' cannot be read \(sw, test\): Couldn't find .* config 'sw' Available configs in the cache: \['en'\]; "
    )
    with pytest.raises(InputError, match=message) as caught:
        read_hub("a/b", XNLI, config="sw", split="test")
    assert not isinstance(caught.value, UnreachableError)


def test_what_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(*args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs))
        return datasets.Dataset.from_dict(pairs(["neutral"]))

    monkeypatch.setattr(datasets, "load_dataset", load)
    read_hub("a/b", XNLI, config="sw", split="dev", revision="v1")
    assert asked == [(("a/b", "sw"), {"split": "dev", "revision": "v1"})]


def test_a_data_set_that_is_there_but_broken(tmp_path: Path) -> None:
    name = repository(tmp_path / "a", {("en", "train"): pairs(["neutral"])}, datasets.Value("string"))
    (tmp_path / "a" / "en" / "train-00000-of-00001.parquet").write_bytes(b"no parquet")
    with pytest.raises(
        InputError, match=r"a' cannot be read \(en, train\): .*; choose another, or give local"
    ) as caught:
        read_hub(name, XNLI, config="en", split="train")
    assert not isinstance(caught.value, UnreachableError)
    assert "\n" not in str(caught.value)
