from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.toy_tickets import PARAMETERS, A, B, Entries, ticket

from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.errors import MismatchError
from ltprompt.tickets.distribution import compare, distribution


def numel(*layers: int) -> int:
    return sum(p.numel for p in PARAMETERS if p.layer in layers)


def test_distribution_counts_by_layer_and_by_kind() -> None:
    found = distribution(ticket(A))
    assert (found.entries, found.parameters, found.zero_entries) == (9, 60, 2)
    assert found.active_ratio == 9 / 60
    assert list(found.by_layer) == [0, 1, 2]
    assert list(found.by_kind) == ["word_embeddings", "query", "dense"]
    expected = {0: (6, 20), 1: (3, 20), 2: (0, 20), "word_embeddings": (6, 20), "query": (2, 18), "dense": (1, 22)}
    for key, part in [*found.by_layer.items(), *found.by_kind.items()]:
        entries, parameters = expected[key]
        assert (part.entries, part.parameters) == (entries, parameters)
        assert part.share == pytest.approx(entries / 9)
        assert part.parameter_share == pytest.approx(parameters / 60)
        assert part.enrichment == pytest.approx((entries / 9) / (parameters / 60))


def test_distribution_of_everything_and_of_nothing() -> None:
    everything = distribution(ticket({p.name: set(range(p.numel)) for p in PARAMETERS}))
    nothing = distribution(ticket({}))
    for part in [*everything.by_layer.values(), *everything.by_kind.values()]:
        assert part.enrichment == pytest.approx(1)
    for part in [*nothing.by_layer.values(), *nothing.by_kind.values()]:
        assert (part.entries, part.share, part.enrichment) == (0, 0, 0)
    json.dumps(nothing.to_json(), allow_nan=False)


def test_distribution_as_json() -> None:
    found = json.loads(json.dumps(distribution(ticket(A)).to_json()))
    assert found["entries"] == 9
    assert found["by_layer"]["0"]["entries"] == 6
    assert found["by_kind"]["query"]["parameters"] == 18


def pairs(entries: Entries, *layers: int) -> set[tuple[str, int]]:
    names = {p.name for p in PARAMETERS if p.layer in layers}
    return {(name, index) for name, indices in entries.items() if name in names for index in indices}


@pytest.mark.parametrize(("first", "second"), [(A, B), (B, A), (A, A), (A, {}), ({}, {})])
def test_comparison_is_that_of_plain_sets(first: Entries, second: Entries) -> None:
    found = compare(ticket(first), ticket(second))
    assert list(found.by_layer) == [0, 1, 2]
    for layers, overlap in [((0, 1, 2), found.overall), *(((layer,), each) for layer, each in found.by_layer.items())]:
        a, b, n = pairs(first, *layers), pairs(second, *layers), numel(*layers)
        assert (overlap.a, overlap.b, overlap.parameters) == (len(a), len(b), n)
        assert (overlap.intersection, overlap.union) == (len(a & b), len(a | b))
        assert overlap.iou == (len(a & b) / len(a | b) if a | b else 0)
        chance = len(a) * len(b) / n
        assert overlap.chance_intersection == pytest.approx(chance)
        assert overlap.chance_iou == pytest.approx(chance / (len(a) + len(b) - chance) if a | b else 0)


def test_random_tickets_overlap_as_expected_by_chance() -> None:
    parameters = (EligibleParameter("word", (200, 1000), 0, "word_embeddings"),)
    generator = np.random.default_rng(1)
    first, second = (ticket({"word": set(generator.permutation(200_000)[:60_000])}, parameters) for _ in range(2))
    overall = compare(first, second).overall
    assert overall.iou == pytest.approx(overall.chance_iou, abs=0.005)


def test_frozen_embeddings_compare_within_the_larger_set() -> None:
    inner = {name: entries for name, entries in B.items() if name != "word"}
    frozen = replace(ticket(inner, PARAMETERS[1:]), strategy="frozen-embeddings")
    for found in (compare(ticket(A), frozen), compare(frozen, ticket(A))):
        assert found.overall.parameters == 60
        assert found.overall.union == len(pairs(A, 0, 1, 2) | pairs(inner, 1, 2))
        assert found.by_layer[0].intersection == 0
        assert found.by_layer[0].union == 6
    assert compare(ticket(A), frozen).by_layer[1] == compare(ticket(A), ticket(B)).by_layer[1]


def test_strategies_may_differ_but_backbones_may_not() -> None:
    assert compare(ticket(A), replace(ticket(A), strategy="tied", tied=True)).overall.iou == 1
    with pytest.raises(MismatchError, match=r"0{12}"):
        compare(ticket(A), replace(ticket(A), fingerprint="0" * 64))
    other = (*PARAMETERS[:-1], EligibleParameter("2.dense", (12,), 2, "dense"))
    with pytest.raises(MismatchError, match=r"different eligible sets .*2\.dense"):
        compare(ticket(A), ticket(A, other))


def test_comparison_as_json() -> None:
    found = json.loads(json.dumps(compare(ticket(A), ticket(B)).to_json()))
    assert found["overall"]["a"] == 9
    assert found["by_layer"]["0"]["intersection"] == 2
