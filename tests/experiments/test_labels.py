from __future__ import annotations

import pytest
from helpers.synthetic_runs import run, share, ticket

from ltprompt.experiments.labels import cut_method_label, is_control, is_lottery, method_label, percent, place
from ltprompt.experiments.records import RunSpec, TicketSpec


def spec(method: str, cut: TicketSpec | None = None) -> RunSpec:
    return run({"en": share(8)}, method, ticket=cut).spec


@pytest.mark.parametrize(
    ("method", "cut", "label"),
    [
        ("ft", None, "FT"),
        ("mp", None, "MP"),
        ("prompt-only", None, "Prompt only"),
        ("bitfit", None, "BitFit"),
        ("my-own", None, "my-own"),
        ("ltp", ticket(0.2), "LTP 20 %"),
        ("ltp", ticket(0.075), "LTP 7.5 %"),
        ("ltp", ticket(0.2, "random", seed=1), "Random 20 %"),
        ("ltp", ticket(0.2, "magnitude"), "Magnitude 20 %"),
        ("ltp", ticket(0.2, layers="middle"), "LTP 20 % (middle)"),
        ("ltp", ticket(0.2, layers="5-8"), "LTP 20 % (layers 5-8)"),
        ("ltp", ticket(0.2, strategy="tied", layers="lower", scope="layer"), "LTP 20 % (tied, lower, scope layer)"),
        ("shira", ticket(0.1, "random", seed=1), "SHiRA 10 %"),
        ("ltp", ticket(0.2, name="english"), "LTP 20 % (english)"),
        ("ltp", ticket(0.341234567, "union", name="en-or-sw"), "LTP 34.12 % (en-or-sw)"),
        ("ltp", ticket(0.123456, "intersection"), "LTP 12.35 % (intersection)"),
        ("ltp", ticket(0.2, "union", strategy="tied"), "LTP 20 % (union, tied)"),
        ("ltp", ticket(0.2, "random", seed=1, name="drawn"), "Random 20 % (drawn)"),
        ("discrete+ticket", ticket(0.2), "LTP 20 % (discrete)"),
        ("mixed+ticket", ticket(0.2, layers="middle"), "LTP 20 % (mixed, middle)"),
        ("mixed+ticket", ticket(0.2, "random", seed=1), "Random 20 % (mixed)"),
        ("plain+nothing", None, "Frozen (plain)"),
        ("mixed+lora", None, "LoRA (mixed)"),
    ],
)
def test_labels(method: str, cut: TicketSpec | None, label: str) -> None:
    assert method_label(spec(method, cut)) == label


def test_percentages_are_free_of_rounding_noise() -> None:
    assert [percent(share) for share in (0.29, 0.07, 1.0, 0.0005)] == ["29 %", "7 %", "100 %", "0.05 %"]


def test_a_ready_ticket_is_also_known_by_its_cut() -> None:
    assert cut_method_label(spec("ltp", ticket(0.2, name="english"))) == "LTP 20 %"
    assert cut_method_label(spec("ltp", ticket(0.2, layers="middle", name="english"))) == "LTP 20 % (middle)"
    assert cut_method_label(spec("sp")) == "SP"


def test_methods_stand_in_the_papers_order() -> None:
    ordered = [
        spec("ft"),
        spec("dp"),
        spec("sp"),
        spec("mp"),
        spec("ltp", ticket(0.05)),
        spec("ltp", ticket(0.2)),
        spec("ltp", ticket(0.2, layers="middle")),
        spec("ltp", ticket(0.75)),
        spec("ltp", ticket(0.75, "random", seed=1)),
        spec("ltp", ticket(0.2, "magnitude")),
        spec("bitfit"),
        spec("lora"),
        spec("shira"),
        spec("super-tuning"),
        spec("prompt-only"),
        spec("another"),
    ]
    backwards = ordered[::-1]
    assert sorted(backwards, key=place) == ordered


def test_what_is_a_winning_ticket() -> None:
    for criterion in ("delta", "union", "intersection"):
        assert is_lottery(spec("ltp", ticket(0.2, criterion)))
        assert not is_control(spec("ltp", ticket(0.2, criterion)))
    assert is_control(spec("ltp", ticket(0.2, "random", seed=1)))
    for other in (spec("sp"), spec("shira", ticket(0.2))):
        assert not is_lottery(other)
        assert not is_control(other)
