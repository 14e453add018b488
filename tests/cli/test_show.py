from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ltprompt.cli.show import show_comparison, show_distribution, show_evaluation, show_precision
from ltprompt.device import resolve
from ltprompt.stage2.measures import Evaluation, measure
from ltprompt.terminal import table
from ltprompt.tickets.distribution import Comparison, Distribution, Overlap, Part


def test_a_table_is_aligned_and_has_no_trailing_space() -> None:
    found = table(["name", "n"], [["a", "1,000"], ["longer", "7"]])
    assert found == "name        n\na       1,000\nlonger      7"
    assert table(["name", "n"], []) == "name  n"
    assert table(["name", ""], [["a", ""]]) == "name\na"


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_distribution_shows_layers_and_kinds_with_their_shares() -> None:
    layers = {0: Part(1500, 0.75, 4000, 0.4, 1.875), 1: Part(500, 0.25, 6000, 0.6, 0.4166)}
    kinds = {"word_embeddings": Part(1500, 0.75, 4000, 0.4, 1.875), "dense": Part(500, 0.25, 6000, 0.6, 0.4166)}
    header = {"strategy": "decoupled", "ratio": 0.2, "scope": "global", "layers": "all"}
    found = show_distribution(header, Distribution(layers, kinds, 2000, 10000, 0.2, 12))
    assert "2,000 of 10,000 eligible parameters (20.00%)" in found
    assert "strategy decoupled, ratio 0.2, scope global, layers all" in found
    assert "entries that never moved (score 0): 12" in found
    assert ["0", "1,500", "75.00%", "40.00%", "1.88"] in cells(found)
    assert ["1", "500", "25.00%", "60.00%", "0.42"] in cells(found)
    assert ["word_embeddings", "1,500", "75.00%", "40.00%", "1.88"] in cells(found)
    assert ["dense", "500", "25.00%", "60.00%", "0.42"] in cells(found)


def test_a_comparison_shows_the_whole_and_every_layer() -> None:
    whole = Overlap(2000, 1000, 10000, 800, 2200, 0.3636, 200.4, 0.0714)
    layer = Overlap(20, 10, 100, 8, 22, 0.3636, 2.0, 0.0714)
    found = show_comparison("a.safetensors", "b.safetensors", Comparison(whole, {3: layer}))
    assert found.startswith("first: a.safetensors\nsecond: b.safetensors\n")
    assert ["all", "2,000", "1,000", "800", "200", "0.364", "0.071"] in cells(found)
    assert ["3", "20", "10", "8", "2", "0.364", "0.071"] in cells(found)


def test_an_evaluation_shows_measures_means_and_confusions() -> None:
    gold, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    measures = {"en": measure(gold, predicted, 2), "sw": measure(gold, gold, 2)}
    found = show_evaluation(Evaluation(("yes", "no"), measures, {}, {}, "fp32"))
    assert ["en", "4", "75.00%", "73.33%"] in cells(found)
    assert ["sw", "4", "100.00%", "100.00%"] in cells(found)
    assert ["mean", "87.50%", "86.67%"] in cells(found)
    english = found[found.index("en: gold \\ predicted") : found.index("sw: gold \\ predicted")]
    assert cells(english)[1:3] == [["yes", "1", "1"], ["no", "0", "2"]]


@pytest.mark.parametrize(
    ("used", "trained", "asked", "expected"),
    [
        ("fp32", "fp32", "auto", "computed in fp32, as trained"),
        ("bf16", "bf16", "bf16", "computed in bf16, as trained"),
        ("fp32", None, "auto", "computed in fp32"),
        ("fp32", "bf16", "fp32", "computed in fp32; the adapter was trained in bf16"),
        (
            *("fp32", "bf16", "auto"),
            "computed in fp32; the adapter was trained in bf16, for which cpu has no instructions here",
        ),
    ],
)
def test_the_precision_is_shown_beside_that_of_training(
    used: str, trained: str | None, asked: str, expected: str
) -> None:
    classifier: Any = SimpleNamespace(
        resolved=SimpleNamespace(compute=resolve("cpu", used)), adapter=SimpleNamespace(dtype=trained)
    )
    assert show_precision(classifier, asked) == expected
