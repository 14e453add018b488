from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.synthetic_runs import grid, random_hits, run, share, ticket

from ltprompt.experiments.records import RunRecord
from ltprompt.experiments.report.comparisons import HEADER, Comparison, compare_rows, explanation
from ltprompt.experiments.report.statistics import compare, holm
from ltprompt.experiments.report.tables import table_languages, table_rows

RANDOM = {"ticket": ticket(0.2, "random", seed=0)}


def comparisons(runs: list[RunRecord], layout: str = "table1") -> tuple[Comparison, ...]:
    rows = table_rows(runs, layout)
    return compare_rows(rows, table_languages(rows, layout))


def pairs(runs: list[RunRecord], layout: str = "table1") -> list[tuple[str, str, str]]:
    return [(each.block, each.row, each.against) for each in comparisons(runs, layout)]


def some(method: str = "sp", right: int = 8, **changes: object) -> RunRecord:
    return run({"en": share(right)}, method, **changes)


def test_ltp_meets_sp_its_random_ticket_and_the_best_baseline() -> None:
    runs = [
        some("ft", 9),
        some("sp", 8),
        some("lora", 7),
        some("ltp", 10, ticket=ticket(0.2)),
        some("ltp", 10, ticket=ticket(0.75)),
        some("ltp", 19, **RANDOM),
    ]
    assert pairs(runs) == [
        ("16 shots", "LTP 20 %", "SP"),
        ("16 shots", "LTP 20 %", "Random 20 %"),
        ("16 shots", "LTP 20 %", "FT (best baseline)"),
        ("16 shots", "LTP 75 %", "SP"),
        ("16 shots", "LTP 75 %", "FT (best baseline)"),
    ]


def test_a_rival_can_be_the_best_baseline_and_sp_is_met_once() -> None:
    ltp = some("ltp", 10, ticket=ticket(0.2))
    assert pairs([some("sp", 8), some("lora", 9), ltp])[1] == ("16 shots", "LTP 20 %", "LoRA (best baseline)")
    assert pairs([some("sp", 8), some("ft", 7), ltp]) == [("16 shots", "LTP 20 %", "SP (best baseline)")]


def test_random_tickets_of_other_parameters_are_no_control() -> None:
    middle = some("ltp", ticket=ticket(0.2, layers="middle"))
    frozen = some("ltp", ticket=ticket(0.2, strategy="frozen-embeddings"))
    assert pairs([middle, frozen, some("ltp", **RANDOM)]) == []
    control = some("ltp", ticket=ticket(0.2, "random", seed=0, layers="middle"))
    assert pairs([middle, control]) == [("16 shots", "LTP 20 % (middle)", "Random 20 % (middle)")]
    by_layer = ticket(0.2, scope="layer")
    assert pairs([some("ltp", ticket=by_layer), some("ltp", **RANDOM)]) == []
    own = some("ltp", ticket=ticket(0.2, "random", seed=0, scope="layer"))
    assert [against for _, _, against in pairs([some("ltp", ticket=by_layer), own, some("ltp", **RANDOM)])] == [
        "Random 20 % (scope layer)"
    ]
    magnitude = some("ltp", ticket=ticket(0.2, "magnitude"))
    assert pairs([some("ltp", ticket=ticket(0.2)), magnitude]) == []


def test_the_random_ticket_of_the_same_strategy_is_preferred() -> None:
    tied = some("ltp", ticket=ticket(0.2, strategy="tied"))
    tied_control = some("ltp", ticket=ticket(0.2, "random", seed=0, strategy="tied"))
    assert [against for _, _, against in pairs([tied, some("ltp", **RANDOM)])] == ["Random 20 %"]
    both = [tied, tied_control, some("ltp", **RANDOM)]
    assert [against for _, _, against in pairs(both)] == ["Random 20 % (tied)"]


@pytest.mark.parametrize("criterion", ["union", "intersection"])
def test_combined_tickets_are_compared_as_winning_ones(criterion: str) -> None:
    combined = ticket(0.341234567, criterion, name="both")
    control = some("ltp", 6, ticket=ticket(0.341234567, "random", seed=0))
    assert [against for _, _, against in pairs([some("ltp", ticket=combined), control, some(), some("ft", 9)])] == [
        "SP",
        "Random 34.12 %",
        "FT (best baseline)",
    ]


def test_blocks_are_not_mixed() -> None:
    ltp = {"method": "ltp", "ticket": ticket(0.2)}
    assert pairs([some(**ltp), some(shots=4), some(fingerprint="e" * 64)]) == []
    runs = [some(**ltp), some(), some(**ltp, shots=1), some(shots=1)]
    assert [block for block, _, _ in pairs(runs)] == ["1 shot", "16 shots"]


def test_blocks_of_table_2_say_setting_and_source() -> None:
    runs = [
        run({"aym": share(8)}, method, task="americasnli", ticket=cut, source=source, setting=setting, language="aym")
        for method, cut in (("sp", None), ("ltp", ticket(0.2)))
        for source, setting in (("MultiNLI", "zero-shot"), ("AmericasNLI-dev", "in-language"))
    ]
    assert pairs(runs, "table2") == [
        (block, "LTP 20 %", "SP (best baseline)")
        for block in ("MultiNLI, zero-shot, 16 shots", "AmericasNLI-dev, in-language, 16 shots")
    ]


def test_numbers_are_of_the_seeds_and_languages_in_common() -> None:
    generator = np.random.default_rng(1)
    texts = {
        (method, seed): {code: random_hits(generator, 0.5, 40) for code in ("en", "hi", "sw")}
        for method in ("sp", "ltp")
        for seed in (1, 2, 3)
    }
    runs = [
        run(texts[method, seed], method, seed, ticket=ticket(0.2) if method == "ltp" else None)
        for method, seed in texts
        if (method, seed) != ("sp", 2)
    ]
    (found,) = comparisons(runs)
    arrays = [
        [np.array([[int(hit) for hit in texts[method, seed][code]] for seed in (1, 3)]) for code in ("en", "hi", "sw")]
        for method in ("ltp", "sp")
    ]
    assert found.found == compare(*arrays)
    assert found.cells()[3] == "2"


def test_other_test_rows_are_left_out() -> None:
    ltp = run({"en": share(9), "sw": share(9)}, "ltp", ticket=ticket(0.2))
    (found,) = comparisons([ltp, run({"en": share(8), "sw": share(8, 30)})])
    assert found.found is not None
    assert found.found.languages == 1
    assert found.found.mean == pytest.approx(5)


def test_rows_without_a_common_seed_are_named_and_not_compared() -> None:
    found = comparisons([some("ltp", seed=1, ticket=ticket(0.2)), some(seed=2), some("ft", seed=1)])
    assert [each.verdict for each in found] == ["no common seed", "one seed: not tested over training"]
    assert "share no seed" in found[0].sentence()
    assert len(found[0].cells()) == len(HEADER)
    assert "for the 1 comparison of" in explanation(found)


def test_p_values_are_adjusted_over_the_whole_table() -> None:
    found = comparisons(grid(examples=40, shots=(4, 16), languages=("en", "sw")))
    raw = [each.found.p_examples for each in found if each.found]
    assert len(raw) == len(found) > 4
    assert [each.adjusted for each in found] == holm(raw)
    assert any(each.adjusted > each.found.p_examples for each in found if each.found)
    assert f"for the {len(found)} comparisons of" in explanation(found)


def test_a_clear_difference_is_significant_and_said() -> None:
    (found,) = comparisons(
        [
            run({"en": share(right, 60), "sw": share(right, 60)}, method, seed, ticket=cut)
            for method, right, cut in (("sp", 20, None), ("ltp", 50, ticket(0.2)))
            for seed in (1, 2, 3)
        ]
    )
    assert found.significant
    assert found.cells()[4] == "+50.00"
    assert found.cells()[7] == "0.2500 (at least 0.2500)"
    assert found.sentence().startswith("16 shots: LTP 20 % is 50.00 points above SP (best baseline), significant (95 %")
    assert "3 seeds, 2 languages)." in found.sentence()
    assert "examples only" not in found.sentence()


def test_one_seed_says_that_training_is_not_covered() -> None:
    (found,) = comparisons([some(), some("ltp", 7, ticket=ticket(0.2))])
    assert found.verdict == "one seed: not tested over training"
    assert (
        "LTP 20 % is 5.00 points below SP (best baseline), one seed: not tested over training (95" in found.sentence()
    )
    assert "1 seed, 1 language). With one seed the interval covers the choice of examples only" in found.sentence()


def test_one_seed_is_never_significant() -> None:
    (found,) = comparisons([some(right=0), some("ltp", 20, ticket=ticket(0.2))])
    assert found.found is not None
    assert found.found.excludes_zero
    assert found.adjusted < 0.001
    assert not found.significant


@pytest.mark.parametrize(
    ("adjusted", "low", "seeds", "significant"),
    [(0.04, 1, 2, True), (0.05, 1, 2, False), (0.01, -1, 2, False), (0.04, 1, 1, False)],
)
def test_significant_needs_seeds_the_interval_and_the_adjusted_p(
    adjusted: float, low: float, seeds: int, significant: bool
) -> None:
    (found,) = comparisons([some(), some("ltp", 7, ticket=ticket(0.2))])
    assert found.found is not None
    changed = replace(found.found, low=low, high=3, seeds=seeds)
    assert Comparison("", "", "", changed, adjusted).significant is significant


@pytest.mark.parametrize(
    ("points", "relation", "cell"),
    [
        (0.0, "equals", "+0.00"),
        (-0.004, "equals", "+0.00"),
        (0.006, "is 0.01 points above", "+0.01"),
        (-2.5, "is 2.50 points below", "-2.50"),
    ],
)
def test_what_shows_as_no_difference_is_called_equal(points: float, relation: str, cell: str) -> None:
    (found,) = comparisons([some(), some("ltp", 7, ticket=ticket(0.2))])
    assert found.found is not None
    changed = replace(found, found=replace(found.found, mean=points))
    assert changed.sentence().startswith(f"16 shots: LTP 20 % {relation} SP (best baseline), ")
    assert changed.cells()[4] == cell


def test_what_is_not_covered_is_explained() -> None:
    text = explanation(comparisons([some(), some("ltp", 7, ticket=ticket(0.2))]))
    for words in ("Student's correction for few seeds", "one fixed draw of shots, whose choice is not covered"):
        assert words in text


def test_baselines_and_controls_are_not_compared_among_themselves() -> None:
    assert pairs([some("ft"), some("sp"), some("ltp", **RANDOM), some("lora")]) == []
