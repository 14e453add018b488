"""The layers that a segment names."""

from __future__ import annotations

import pytest
from helpers.toy_scores import parameters

from ltprompt.errors import InputError
from ltprompt.tickets.segment import segment


@pytest.mark.parametrize(
    ("last", "lower", "middle", "higher"),
    [
        (12, [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]),
        (13, [1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13]),
        (14, [1, 2, 3, 4], [5, 6, 7, 8, 9, 10], [11, 12, 13, 14]),
        (5, [1], [2, 3, 4], [5]),
        (3, [1], [2], [3]),
    ],
)
def test_thirds(last: int, lower: list[int], middle: list[int], higher: list[int]) -> None:
    for embeddings in (True, False):
        eligible = parameters(last, embeddings)
        assert segment(eligible, "lower") == lower
        assert segment(eligible, "middle") == middle
        assert segment(eligible, "higher") == higher
        assert segment(eligible, "all") == [0] * embeddings + lower + middle + higher


@pytest.mark.parametrize("last", [1, 2])
def test_fewer_than_three_layers_are_all_in_the_middle(last: int) -> None:
    assert segment(parameters(last), "middle") == list(range(1, last + 1))
    for name in ("lower", "higher"):
        with pytest.raises(InputError, match=f"'{name}' names no layer; the eligible layers are 0"):
            segment(parameters(last), name)


def test_lists_of_layers() -> None:
    eligible = parameters(12)
    assert segment(eligible, "5-8") == [5, 6, 7, 8]
    assert segment(eligible, "8, 1,3,3-4") == [1, 3, 4, 8]
    assert segment(eligible, "0") == [0]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("", "'' is not a segment"),
        ("upper", "'upper' is not a segment"),
        ("1,,2", "not a segment"),
        ("-1", "not a segment"),
        ("1-2-3", "not a segment"),
        ("6", "there is no layer 6; the eligible layers are 0 (the embeddings) and 1 to 5"),
        ("4-999999", "there is no layer 6"),
        ("4-2", "'4-2' names no layer"),
    ],
)
def test_bad_segments_are_refused(layers: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        segment(parameters(5), layers)
    assert message in str(caught.value)
    assert "1 to 5" in str(caught.value)


def test_embeddings_that_are_not_eligible_cannot_be_named() -> None:
    with pytest.raises(InputError, match=r"there is no layer 0; the eligible layers are 1 to 5"):
        segment(parameters(5, embeddings=False), "0")
