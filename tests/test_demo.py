"""The demonstration, with a toy in place of the embedded backbone, and the embedded data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import toy_backbone

from ltprompt import demo as module
from ltprompt.backbone import Backbone
from ltprompt.config import ScoresSettings, TrainSettings
from ltprompt.device import Compute
from ltprompt.evaluation import measure
from ltprompt.pipeline import Evaluation, PromptClassifier

CPU = Compute(torch.device("cpu"))
LABELS = ("entailment", "neutral", "contradiction")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Backbone:
    backbone = toy_backbone("xlm-roberta")
    monkeypatch.setattr(Backbone, "from_pretrained", lambda *_, **__: backbone)
    scores = ScoresSettings(steps=2, batch_size=2, max_length=32, evaluate_every=2, held_out=0.01)
    monkeypatch.setattr(module, "SCORES", scores)
    monkeypatch.setattr(module, "TRAIN", TrainSettings(epochs=2, max_length=64, lr=1e-2))
    return backbone


def test_it_says_what_it_did_and_leaves_its_files(short: Backbone, tmp_path: Path) -> None:
    said: list[str] = []
    module.demo(tmp_path / "out", CPU, said.append)
    text = "\n".join(said)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results) == sorted(module.METHODS)
    for method in module.METHODS:
        assert f"{results[method]['mean']['accuracy']:.1%}" in text
        assert (tmp_path / "out" / f"adapter-{method}" / "adapter.json").is_file()
    assert "2 steps of 2 lines" in text
    assert "training 2 epochs" in text
    assert (tmp_path / "out" / "ticket-20.png").read_bytes()[1:4] == b"PNG"
    loaded = PromptClassifier.from_pretrained(tmp_path / "out" / "adapter-ltp", short)
    assert len(loaded.predict([{"premise": "the cat sat", "hypothesis": "a cat sat"}])) == 1


def test_a_second_demo_replaces_the_first(short: Backbone, tmp_path: Path) -> None:
    for _ in range(2):
        module.demo(tmp_path, CPU, lambda _: None)
    assert not list(tmp_path.rglob("*.part"))


def hits(rate: float, seed: int, languages: int = 3, examples: int = 60) -> np.ndarray:
    return (np.random.default_rng(seed).random((examples, languages)) < rate).astype(float)


def test_the_interval_is_that_of_a_plain_bootstrap_over_examples() -> None:
    first, second = hits(0.6, 1), hits(0.4, 2)
    random = np.random.default_rng(9)
    differences = []
    for _ in range(4000):
        drawn = [int(random.integers(60)) for _ in range(60)]
        differences.append(100 * np.mean([first[i].mean() - second[i].mean() for i in drawn]))
    expected = np.quantile(differences, [0.025, 0.975])
    assert module.difference_interval(first, second) == pytest.approx(tuple(expected), abs=1.5)


@pytest.mark.parametrize(("rate", "verdict"), [(0.95, "beyond noise"), (0.34, "within noise")])
def test_the_conclusion_names_noise_as_noise(rate: float, verdict: str) -> None:
    assert verdict in module.conclusion({"sp": evaluation(0.33, 1), "ltp": evaluation(rate, 2)})


def evaluation(rate: float, seed: int) -> Evaluation:
    gold = np.arange(60) % 3
    right = hits(rate, seed, 1)[:, 0].astype(bool)
    predicted = np.where(right, gold, (gold + 1) % 3)
    return Evaluation(LABELS, {"en": measure(gold, predicted, 3)}, {"en": np.eye(3)[predicted]}, {"en": gold})


def test_embedded_text_is_prose_without_repeats() -> None:
    lines = module.embedded_text()
    assert len(lines) > 300
    assert len(set(lines)) == len(lines)
    assert all(len(line.split()) >= 8 and "\n" not in line for line in lines)


def test_embedded_tables_are_balanced_and_parallel() -> None:
    labels = {}
    for file in module.embedded_tables():
        rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()[1:]]
        assert all(len(row) == 3 and all(row) for row in rows), file.name
        labels[file.name] = [row[2] for row in rows]
        assert set(Counter(labels[file.name]).values()) == {20 if file.name.startswith("test") else 32}
    tests = [found for name, found in labels.items() if name.startswith("test")]
    assert len(tests) == 12
    assert all(found == tests[0] for found in tests)
