"""The selection against a full sort, at every ratio, scope and segment, with ties and odd values."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers.toy_scores import full_sort, make_scores, parameters
from hypothesis import given
from hypothesis import strategies as st

from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.errors import InputError
from ltprompt.tickets import selection as module
from ltprompt.tickets.selection import Scope, Scored, Selection, eligible_layers, select

RATIOS = [0, *(round(0.05 * step, 2) for step in range(1, 20)), 1]
KINDS = [
    "distinct",
    "wide",
    "heavy ties",
    "same upper bits",
    "all equal",
    "all zero",
    "minus zero",
    "denormals",
    "mostly zero",
]


def chosen_entries(selection: Selection, scores: list[Scored]) -> set[tuple[str, int]]:
    """The entries of packed bitmaps, read bit by bit."""
    names = {parameter.name: parameter.numel for parameter, _ in scores}
    return {
        (name, index)
        for name, bitmap in selection.bitmaps.items()
        for index in range(names[name])
        if int(bitmap[index // 8]) >> (index % 8) & 1
    }


SEGMENTS = {
    "all": {0, 1, 2, 3, 4, 5},
    "lower": {1},
    "middle": {2, 3, 4},
    "higher": {5},
    "2-4": {2, 3, 4},
    "0,2,4-5": {0, 2, 4, 5},
    "5": {5},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_selection_is_that_of_a_full_sort(kind: str, scope: Scope) -> None:
    scores = make_scores(kind)
    for layers, chosen in SEGMENTS.items():
        for ratio in RATIOS:
            selection = select(scores, ratio=ratio, scope=scope, layers=layers)
            expected = full_sort(scores, ratio, scope, chosen)
            assert chosen_entries(selection, scores) == expected, (layers, ratio)
            flat = {parameter.name: tensor.flatten() for parameter, tensor in scores}
            assert selection.zero_entries == sum(flat[name][index].item() == 0 for name, index in expected)


def asked_brackets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list that grows by every bracket that the threshold is looked for in."""
    asked: list[tuple[int, int]] = []
    between = module._find_between

    def find(group: list[Scored], size: int, low: int, high: int) -> tuple[int, int] | None:
        asked.append((low, high))
        return between(group, size, low, high)

    monkeypatch.setattr(module, "_find_between", find)
    return asked


@pytest.mark.parametrize("sampled", [8, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_one_bracket_is_enough_for_every_kind(kind: str, sampled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAMPLED", sampled)
    asked = asked_brackets(monkeypatch)
    scores = make_scores(kind)
    for ratio in RATIOS:
        expected = full_sort(scores, ratio, "global", SEGMENTS["all"])
        assert chosen_entries(select(scores, ratio=ratio), scores) == expected
    assert len(asked) == len(RATIOS) - 1  # nothing is sought for the ratio 0


@pytest.mark.parametrize("deviations", [0, 1e-3, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_that_misleads_changes_nothing(kind: str, deviations: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAMPLED", 8)
    monkeypatch.setattr(module, "_DEVIATIONS", deviations)
    asked = asked_brackets(monkeypatch)
    scores = make_scores(kind)
    for ratio in RATIOS:
        expected = full_sort(scores, ratio, "global", SEGMENTS["all"])
        assert chosen_entries(select(scores, ratio=ratio), scores) == expected
    if (kind, deviations) == ("distinct", 0):
        assert len(asked) > len(RATIOS)  # it did mislead


@pytest.mark.parametrize("width", [24, 64, 768])
def test_a_sample_walks_through_every_column(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns differ as in a real matrix: a step with a factor of the width would see some alone."""
    monkeypatch.setattr(module, "_SAMPLED", 400)
    generator = torch.Generator().manual_seed(0)
    tensor = torch.rand(200, width, generator=generator) / 2 + torch.arange(width) % 3
    low, high = module._bracket([(EligibleParameter("wide", (200, width), 0, "word_embeddings"), tensor)], 100 * width)
    bits = np.sort(tensor.flatten().numpy().view(np.uint32))
    assert low <= bits[100 * width] <= high
    assert np.count_nonzero((bits >= low) & (bits <= high)) < len(bits) / 2


def read_entries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the length of every chunk that the selection reads."""
    read: list[int] = []
    whole = module._chunks

    def chunks(group: list[Scored]) -> Iterator[module.Chunk]:
        for parameter, bits in whole(group):
            read.append(len(bits))
            yield parameter, bits

    monkeypatch.setattr(module, "_chunks", chunks)
    return read


def test_a_million_different_scores_are_passed_over_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_entries(monkeypatch)
    tensor = torch.rand(1024, 1000, generator=torch.Generator().manual_seed(0))
    parameter = EligibleParameter("big", (1024, 1000), 0, "word_embeddings")
    selection = select([(parameter, tensor)], ratio=0.2)
    assert sum(read) == 2 * tensor.numel()
    order = np.argsort(-tensor.flatten().numpy(), kind="stable")[: round(0.2 * tensor.numel())]
    assert set(np.flatnonzero(np.unpackbits(selection.bitmaps["big"], bitorder="little"))) == set(order)


@pytest.mark.parametrize("values", [1, 2, 3, 1000])
def test_values_that_many_entries_share_take_no_memory_and_two_passes(
    values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_entries(monkeypatch)
    tensor = torch.arange(2**22) * 7919 % values / 1000
    parameter = EligibleParameter("big", (2**22,), 0, "word_embeddings")
    for ratio in (0.2, 0.5, 0.9):
        tracemalloc.start()
        selection = select([(parameter, tensor)], ratio=ratio)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        order = np.argsort(-tensor.numpy(), kind="stable")[: round(ratio * 2**22)]
        expected = np.zeros(2**22, dtype=bool)
        expected[order] = True
        assert (selection.bitmaps["big"] == np.packbits(expected, bitorder="little")).all()
        assert peak < tensor.nbytes
    assert sum(read) == 3 * 2 * 2**22


@pytest.mark.parametrize("chunk", [8, 16])
@pytest.mark.parametrize("kind", ["heavy ties", "all equal", "distinct"])
def test_chunks_do_not_change_the_selection(kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    scores = make_scores(kind)
    for ratio in RATIOS:
        expected = full_sort(scores, ratio, "global", SEGMENTS["all"])
        assert chosen_entries(select(scores, ratio=ratio), scores) == expected


@given(
    values=st.lists(st.floats(0, width=32, allow_infinity=False), min_size=1, max_size=60),
    ratio=st.floats(0, 1),
    split=st.integers(0, 60),
)
def test_selection_of_any_floats_is_that_of_a_full_sort(values: list[float], ratio: float, split: int) -> None:
    parts = [part for part in (values[:split], values[split:]) if part]
    scores = [
        (EligibleParameter(f"t{layer}", (len(part),), layer, "dense"), torch.tensor(part))
        for layer, part in enumerate(parts)
    ]
    selection = select(scores, ratio=ratio)
    assert chosen_entries(selection, scores) == full_sort(scores, ratio, "global", {0, 1})


def test_selection_does_not_depend_on_memory_layout() -> None:
    scores = make_scores("distinct")
    strided = [
        (parameter, tensor.t().contiguous().t() if tensor.dim() == 2 else tensor) for parameter, tensor in scores
    ]
    expected = full_sort(scores, 0.4, "global", SEGMENTS["all"])
    assert chosen_entries(select(strided, ratio=0.4), scores) == expected


def test_selection_needs_little_memory() -> None:
    size = 2**23
    parameter = EligibleParameter("big", (size,), 0, "word_embeddings")
    tensor = (torch.arange(size) * 7919 % size).float()
    tracemalloc.start()
    selection = select([(parameter, tensor)], ratio=0.25)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert int(np.unpackbits(selection.bitmaps["big"]).sum()) == size // 4
    assert peak < tensor.nbytes  # far from the 8 bytes an entry of a sort's indices


@pytest.mark.parametrize("ratio", [-0.01, 1.01, math.nan, math.inf, -math.inf])
def test_bad_ratios_are_refused(ratio: float) -> None:
    with pytest.raises(InputError, match=r"give a number from 0 to 1"):
        select(make_scores("distinct"), ratio=ratio)


def test_a_bad_scope_is_refused() -> None:
    with pytest.raises(InputError, match=r"did you mean 'layer'\?"):
        select(make_scores("distinct"), ratio=0.5, scope="layers")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf, -1.0, -(2.0**-149)])
@pytest.mark.parametrize("ratio", [0, 0.5])
def test_bad_scores_are_refused_by_name(bad: float, ratio: float) -> None:
    scores = make_scores("distinct")
    scores[4][1][0] = bad
    with pytest.raises(InputError, match=r"the scores of 1\.dense\.weight hold a negative, infinite or NaN value"):
        select(scores, ratio=ratio)


def test_scores_that_are_mostly_infinite_are_refused_by_name() -> None:
    """The sample then says that the threshold is infinite, which must not hide what is wrong."""
    scores = make_scores("distinct")
    for _, tensor in scores[1:]:
        tensor.fill_(math.inf)
    with pytest.raises(InputError, match="the scores of position hold a negative, infinite or NaN value"):
        select(scores, ratio=0.01)


def test_scores_of_another_type_or_shape_are_refused_by_name() -> None:
    for wrong in (torch.zeros(5, 3, dtype=torch.float64), torch.zeros(3, 5)):
        scores = make_scores("distinct")
        scores[1] = (scores[1][0], wrong)
        with pytest.raises(InputError, match="the scores of position are"):
            select(scores, ratio=0.5)


def test_the_layers_of_a_cut_are_known_before_it() -> None:
    made = parameters(5)
    assert eligible_layers(made, ratio=0.2, layers="higher") == [5]
    with pytest.raises(InputError, match="the ratio 2 is not a share"):
        eligible_layers(made, ratio=2)
    with pytest.raises(InputError, match="unknown scope 'locale'"):
        eligible_layers(made, ratio=0.2, scope="locale")
    with pytest.raises(InputError, match="there is no layer 9"):
        eligible_layers(made, ratio=0.2, layers="9")
