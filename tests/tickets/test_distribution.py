from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.errors import InputError, MismatchError
from ltprompt.tickets.chart import draw_distribution
from ltprompt.tickets.distribution import compare, distribution
from ltprompt.tickets.ticket import Ticket

PARAMETERS = (
    EligibleParameter("word", (4, 5), 0, "word_embeddings"),
    EligibleParameter("1.query", (3, 3), 1, "query"),
    EligibleParameter("1.dense", (11,), 1, "dense"),
    EligibleParameter("2.query", (3, 3), 2, "query"),
    EligibleParameter("2.dense", (11,), 2, "dense"),
)
Entries = dict[str, set[int]]
A: Entries = {"word": {0, 3, 4, 7, 8, 19}, "1.query": {1, 8}, "1.dense": {10}}
B: Entries = {"word": {3, 5, 19}, "1.query": {1}, "1.dense": {2, 10}, "2.dense": {0, 1, 2, 10}}


def ticket(entries: Entries, parameters: tuple[EligibleParameter, ...] = PARAMETERS) -> Ticket:
    bitmaps = {}
    for parameter in parameters:
        if parameter.name in entries:
            flat = np.zeros(parameter.numel, dtype=bool)
            flat[list(entries[parameter.name])] = True
            bitmaps[parameter.name] = np.packbits(flat, bitorder="little")
    return Ticket(parameters, bitmaps, False, "f" * 64, "decoupled", 0.2, "global", "all", 2)


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


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF")])
def test_chart_is_written(tmp_path: Path, name: str, magic: bytes) -> None:
    tickets = {"decoupled": distribution(ticket(A)), "frozen": distribution(ticket({}, PARAMETERS[1:]))}
    draw_distribution(tickets, tmp_path / "one" / name)
    draw_distribution(tickets, tmp_path / "two" / name)
    first = (tmp_path / "one" / name).read_bytes()
    assert first.startswith(magic)
    assert first == (tmp_path / "two" / name).read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == [name]


def test_chart_without_a_ticket_or_with_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'a\.jpg'; give a name that ends in \.png or \.pdf"):
        draw_distribution({"a": distribution(ticket(A))}, tmp_path / "a.jpg")
    with pytest.raises(InputError, match="no ticket"):
        draw_distribution({}, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_tickets_are_inspected_without_the_slow_libraries() -> None:
    imports = "import sys, ltprompt.tickets.chart, ltprompt.tickets.scores"
    code = f"{imports}; print({{'transformers', 'matplotlib'}} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
