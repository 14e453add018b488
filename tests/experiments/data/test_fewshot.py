from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltprompt.errors import InputError
from ltprompt.experiments.data.fewshot import language_folder, read_fewshot
from ltprompt.tasks import load_task, read_rows

XNLI = load_task("xnli")


def split(path: Path, shots: int, empty: bool = False) -> Path:
    rows = [
        {"premise": f"{path.stem} {index}", "hypothesis": "" if empty and not index else "h", "label": label}
        for index, label in enumerate(XNLI.labels * shots)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_train_and_dev(tmp_path: Path) -> None:
    train, dev = split(tmp_path / "train.4.jsonl", 4), split(tmp_path / "dev.2.jsonl", 2)
    found = read_fewshot(tmp_path, XNLI, shots=4, dev_shots=2)
    assert found[1] is not None
    assert (found[0].rows, found[1].rows) == (read_rows(train, XNLI), read_rows(dev, XNLI))
    assert (found[0].remark, found[1].remark) == ("", "")
    assert read_fewshot(tmp_path, XNLI, shots=4, dev_shots=0) == (found[0], None)


def test_an_empty_text_is_kept_as_it_was_published(tmp_path: Path) -> None:
    split(tmp_path / "train.1.jsonl", 1, empty=True)
    train, _ = read_fewshot(tmp_path, XNLI, shots=1, dev_shots=0)
    assert train.rows.texts == (("train.1 0", ""), ("train.1 1", "h"), ("train.1 2", "h"))
    assert train.remark == "1 with an empty text kept"


def test_a_missing_number_of_shots_names_those_there_are(tmp_path: Path) -> None:
    for shots in (8, 1, 16):
        split(tmp_path / f"train.{shots}.jsonl", shots)
    (tmp_path / "train.x.jsonl").touch()
    (tmp_path / "trainX64.jsonl").touch()
    with pytest.raises(InputError, match=r"train\.32\.jsonl does not exist: .* K is one of 1, 8, 16 .* largest is 16;"):
        read_fewshot(tmp_path, XNLI, shots=32, dev_shots=0)
    with pytest.raises(InputError, match=r"dev\.8\.jsonl does not exist: dev\.K\.jsonl with none there"):
        read_fewshot(tmp_path, XNLI, shots=8, dev_shots=8)


def test_a_file_holds_what_its_name_promises(tmp_path: Path) -> None:
    split(tmp_path / "train.4.jsonl", 3)
    with pytest.raises(InputError, match=r"holds entailment 3, neutral 3, contradiction 3; its name promises 4 of"):
        read_fewshot(tmp_path, XNLI, shots=4, dev_shots=0)
    path = split(tmp_path / "train.2.jsonl", 2)
    path.write_text(path.read_text().replace("neutral", "entailment", 1))
    with pytest.raises(InputError, match=r"holds entailment 3, neutral 1, contradiction 2; its name promises 2"):
        read_fewshot(tmp_path, XNLI, shots=2, dev_shots=0)
    path.write_text(path.read_text().replace('"label"', '"lable"', 1))
    with pytest.raises(InputError, match=r"train\.2\.jsonl, line 1: no column 'label'; found premise, hypothesis, lab"):
        read_fewshot(tmp_path, XNLI, shots=2, dev_shots=0)


def test_the_folder_of_a_language(tmp_path: Path) -> None:
    (tmp_path / "swa").mkdir()
    assert language_folder(tmp_path, "swa", alone=False) == tmp_path / "swa"
    with pytest.raises(InputError, match=r"has no folder for the language 'sw'; did you mean 'swa'\? choose from swa"):
        language_folder(tmp_path, "sw", alone=True)
    split(tmp_path / "train.1.jsonl", 1)
    assert language_folder(tmp_path, "en", alone=True) == tmp_path
    assert language_folder(tmp_path, "swa", alone=True) == tmp_path / "swa"
    with pytest.raises(InputError, match="no folder for the language 'en'"):
        language_folder(tmp_path, "en", alone=False)
    with pytest.raises(InputError, match=r"nowhere does not exist; expected a folder with {language}/train\.K\.jsonl"):
        language_folder(tmp_path / "nowhere", "en", alone=True)
    with pytest.raises(InputError, match=r"no folder for the language 'en'; make it with train\.K\.jsonl in it"):
        language_folder(tmp_path / "swa", "en", alone=True)
