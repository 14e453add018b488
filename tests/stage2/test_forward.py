from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.stage2 import Toy, label_logits, labelled, plain_pieces
from helpers.toys import KINDS

from ltprompt.backbone.model import Backbone
from ltprompt.device import Compute
from ltprompt.stage2 import forward as evaluation
from ltprompt.stage2.forward import MAX_TOKENS, Reader
from ltprompt.stage2.measures import mean_measures, measure, softmax
from ltprompt.stage2.readout import fold

each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("packs", [True, False])
def test_label_logits_are_those_of_the_full_head(
    kind: str, tied: bool, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "packs", packs)
    toy = Toy.of(kind, double=False, tied=tied)
    prompt, pieces = fold(toy.prompt()), plain_pieces(toy.backbone.tokenizer)
    assert sorted(map(len, pieces)) == [1, 1, 3]
    found = toy.reader.predict(toy.train.examples, prompt)
    expected = label_logits(toy.stock().eval(), prompt, toy.train.examples, pieces, toy.backbone.tokenizer.pad_token_id)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)
    assert expected.std(0).min() > 1e-3, "examples must differ, or their order could be lost unseen"


@each_kind
def test_the_order_of_a_batch_does_not_change_probabilities(kind: str) -> None:
    toy = Toy.of(kind, double=False)
    examples, prompt = labelled(toy.template, 300).examples, fold(toy.prompt())
    assert sum(len(example.ids) for example in examples) > MAX_TOKENS, "they must not fit one micro-batch"
    found = softmax(toy.reader.predict(examples, prompt))
    order = np.random.default_rng(0).permutation(len(examples))
    shuffled = softmax(toy.reader.predict([examples[i] for i in order], prompt))
    np.testing.assert_allclose(shuffled, found[order], rtol=0, atol=1e-5)
    alone = np.concatenate([softmax(toy.reader.predict([examples[i]], prompt)) for i in range(20)])
    np.testing.assert_allclose(alone, found[:20], rtol=0, atol=1e-5)
    assert found.std(0).min() > 1e-4


def test_prediction_has_no_dropout_and_no_gradient() -> None:
    toy = Toy.of("bert", double=False, dropout=0.5)
    prompt = fold(toy.prompt())
    toy.backbone.model.train()
    found = toy.reader.predict(toy.train.examples, prompt)
    np.testing.assert_array_equal(found, toy.reader.predict(toy.train.examples, prompt))
    plain = Toy.of("bert", double=False, dropout=0.0)
    np.testing.assert_allclose(found, plain.reader.predict(plain.train.examples, prompt), rtol=0, atol=1e-6)


def test_logits_under_bf16_keep_the_masters_precision() -> None:
    toy = Toy.of("xlm-roberta", double=False)
    prompt = fold(toy.prompt())
    low = Reader(toy.backbone, toy.reader.readout, Compute(torch.device("cpu"), torch.bfloat16))
    found, exact = low.predict(toy.train.examples, prompt), toy.reader.predict(toy.train.examples, prompt)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 0.1
    assert (torch.from_numpy(found).bfloat16().float().numpy() != found).any(), "the head itself must not run in bf16"


def test_every_example_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MAX_TOKENS", 100)
    toy = Toy.of("bert", double=False)
    counts: list[int] = []
    toy.reader.predict(toy.train.examples, fold(toy.prompt()), on_batch=counts.append)
    assert len(counts) > 1
    assert sum(counts) == len(toy.train)


def test_no_example_gives_an_empty_table() -> None:
    toy = Toy.of("bert", double=False)
    assert toy.reader.predict([], fold(toy.prompt())).shape == (0, 3)


def test_softmax_is_over_the_labels() -> None:
    logits = np.array([[0.0, 1.0, -2.0], [100.0, 100.0, -100.0]], np.float32)
    expected = []
    for row in logits.astype(np.float64):
        weights = [np.exp(value - max(row)) for value in row]
        expected.append([weight / sum(weights) for weight in weights])
    np.testing.assert_allclose(softmax(logits), expected, rtol=0, atol=1e-7)


def plain_f1(gold: list[int], predicted: list[int], label: int) -> float:
    pairs = list(zip(gold, predicted, strict=True))
    hits = sum(g == p == label for g, p in pairs)
    if hits == 0:
        return 0.0
    precision = hits / sum(p == label for _, p in pairs)
    recall = hits / sum(g == label for g, _ in pairs)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(
    ("gold_classes", "predicted_classes"),
    [([0, 1, 2], [0, 1, 2]), ([0, 1], [0, 1]), ([0, 1], [0, 2]), ([0, 1, 2], [1]), ([0], [1])],
)
def test_measures_are_those_of_plain_loops(gold_classes: list[int], predicted_classes: list[int]) -> None:
    random = np.random.default_rng(4)
    gold, predicted = random.choice(gold_classes, 40), random.choice(predicted_classes, 40)
    found = measure(gold, predicted, 3)
    pairs = list(zip(gold.tolist(), predicted.tolist(), strict=True))
    assert found.size == 40
    assert found.accuracy == pytest.approx(sum(g == p for g, p in pairs) / 40)
    assert found.confusion == tuple(tuple(pairs.count((g, p)) for p in range(3)) for g in range(3))
    scores = [plain_f1(gold.tolist(), predicted.tolist(), label) for label in range(3)]
    seen = {*gold.tolist(), *predicted.tolist()}
    assert found.classes == len(seen)
    assert found.macro_f1 == pytest.approx(sum(scores) / len(seen))
    assert found.macro_f1_of_all == pytest.approx(sum(scores) / 3)


def test_a_class_never_seen_is_left_out_of_the_mean() -> None:
    found = measure(np.array([0, 1]), np.array([0, 1]), 3)
    assert found.accuracy == 1
    assert found.macro_f1 == 1
    assert found.classes == 2
    assert found.macro_f1_of_all == pytest.approx(2 / 3)
    assert found.confusion == ((1, 0, 0), (0, 1, 0), (0, 0, 0))


def test_measures_as_json_are_plain_numbers() -> None:
    found = measure(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).to_json()
    assert found["confusion"] == [[1, 0], [1, 1]]
    assert {key: type(value) for key, value in found.items()} == {
        "examples": int,
        "accuracy": float,
        "macro_f1": float,
        "classes": int,
        "confusion": list,
    }


def test_where_all_classes_occur_both_means_are_the_same_number() -> None:
    """To the last bit: the records of grids hold the mean of all."""
    random = np.random.default_rng(0)
    for classes in range(2, 12):
        gold, predicted = np.arange(40) % classes, random.integers(0, classes, 40)
        found = measure(gold, predicted, classes)
        assert found.classes == classes
        assert found.macro_f1 == found.macro_f1_of_all


def test_the_mean_weighs_languages_equally() -> None:
    many, few = np.zeros(90, np.int64), np.zeros(10, np.int64)
    found = mean_measures({"en": measure(many, many, 2), "sw": measure(few, few + 1, 2)})
    assert found["accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx(0.5)
