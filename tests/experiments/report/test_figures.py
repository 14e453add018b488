from __future__ import annotations

import numpy as np
import pytest
from helpers.synthetic_runs import random_hits, results, run, share, ticket, ticket_record

from ltprompt.experiments.records import RunRecord, TicketSpec
from ltprompt.experiments.report.figures import Chart, build_chart


def lottery(cut: TicketSpec, shots: int, seed: int, **changes: object) -> RunRecord:
    generator = np.random.default_rng([round(100 * cut.ratio), shots, seed])
    texts = {code: random_hits(generator, 0.5, 20) for code in ("en", "sw")}
    return run(texts, "ltp", seed, shots, ticket=cut, **changes)


def chart(runs: list[RunRecord], layout: str) -> Chart:
    found = build_chart(results(runs), layout)
    assert found is not None
    return found


CUTS = (
    ticket(0.2),
    ticket(0.2, strategy="tied"),
    ticket(0.2, strategy="frozen-embeddings"),
    ticket(0.2, layers="lower"),
    ticket(0.2, layers="middle"),
    ticket(0.2, layers="higher"),
)


def test_figure_2a_has_a_line_for_each_strategy_and_segment() -> None:
    runs = [lottery(cut, shots, seed) for cut in (*CUTS, ticket(0.75)) for shots in (16, 1, 4) for seed in (1, 2)]
    found = chart([*runs, run({"en": share(3), "sw": share(3)})], "figure2a")
    names = ["decoupled", "tied", "frozen-embeddings", "lower", "middle", "higher"]
    assert [curve.label for curve in found.curves] == names
    assert found.ticks == (1, 4, 16)
    assert found.log
    assert "Active ratio 20 %." in found.caption


def test_points_are_means_over_languages_and_deviations_over_seeds() -> None:
    runs = [lottery(CUTS[0], 4, seed) for seed in (1, 2, 3)]
    (curve,) = chart(runs, "figure2a").curves
    averages = [100 * np.mean([part.accuracy for part in each.result.languages.values()]) for each in runs]
    (point,) = curve.points
    assert (point.x, point.seeds) == (4, 3)
    assert point.y == pytest.approx(np.mean(averages))
    assert point.deviation == pytest.approx(np.std(averages, ddof=1))


def test_figure_2b_has_a_line_for_each_number_of_shots() -> None:
    runs = [lottery(ticket(ratio), shots, seed) for ratio in (0.75, 0.05, 0.2) for shots in (16, 2) for seed in (1, 2)]
    found = chart([*runs, *(lottery(cut, 2, 1) for cut in CUTS[1:])], "figure2b")
    assert [curve.label for curve in found.curves] == ["2 shots", "16 shots"]
    assert [point.x for point in found.curves[0].points] == pytest.approx([5, 20, 75])
    assert not found.log
    assert found.compares


def test_figure_2b_of_two_kinds_of_cut_names_them() -> None:
    runs = [lottery(ticket(ratio, scope=scope), 1, 1) for ratio in (0.2, 0.5) for scope in ("global", "layer")]
    assert [curve.label for curve in chart(runs, "figure2b").curves] == ["1 shot, decoupled", "1 shot, scope layer"]


def test_other_settings_make_other_lines() -> None:
    runs = [lottery(CUTS[0], shots, 1, settings={"lr": lr}) for shots in (1, 2) for lr in (0.5, 0.25)]
    assert [curve.label for curve in chart(runs, "figure2a").curves] == ["decoupled, lr 0.25", "decoupled, lr 0.5"]


def test_ready_and_combined_tickets_make_lines_of_their_own() -> None:
    cuts = (CUTS[0], ticket(0.2, name="english"), ticket(0.2, "union"))
    runs = [lottery(cut, shots, 1) for cut in cuts for shots in (1, 4)]
    labels = [curve.label for curve in chart(runs, "figure2a").curves]
    assert labels == ["decoupled", "english", "union"]


def test_incomplete_points_are_said() -> None:
    runs = [lottery(CUTS[0], 4, seed) for seed in (1, 2, 3)] + [lottery(CUTS[1], 4, 1)]
    found = chart(runs, "figure2a")
    assert "Some points have 1 of 3 seeds only." in found.caption
    assert "Some points" not in chart(runs[:3], "figure2a").caption


def test_the_ratio_with_most_cuts_is_shown() -> None:
    runs = [lottery(ticket(0.5, layers=layers), 4, 1) for layers in ("all", "lower")]
    assert "Active ratio 50 %." in chart([*runs, lottery(CUTS[0], 4, 1)], "figure2a").caption
    assert "Active ratio 20 %." in chart([runs[0], lottery(CUTS[0], 4, 1)], "figure2a").caption


def test_figures_of_accuracy_need_zero_shot_winning_tickets() -> None:
    random_ticket = run({"en": share(3)}, "ltp", ticket=ticket(0.2, "random", seed=0))
    in_language = run({"hi": share(3)}, "ltp", ticket=CUTS[0], setting="in-language", language="hi")
    for layout in ("figure2a", "figure2b"):
        assert build_chart(results([random_ticket, in_language, run({"en": share(3)})]), layout) is None
        assert build_chart(results([]), layout) is None


def test_a_single_line_or_ratio_shows_no_more_than_the_tables() -> None:
    runs = [lottery(CUTS[0], shots, 1) for shots in (1, 4)]
    assert not chart(runs, "figure2a").compares
    assert not chart(runs, "figure2b").compares
    assert chart([*runs, lottery(CUTS[1], 1, 1)], "figure2a").compares


def test_figure_3_has_the_entries_of_each_strategy_by_layer() -> None:
    records = [
        ticket_record(cut, range(index, index + 13)) for index, cut in enumerate((CUTS[2], CUTS[0], CUTS[1], CUTS[4]))
    ]
    other = [ticket_record(ticket(0.75), range(13)), ticket_record(ticket(0.2, "random", seed=0), range(13))]
    found = build_chart(results([], tickets=[*records, *other]), "figure3")
    assert found is not None
    assert [curve.label for curve in found.curves] == ["decoupled", "tied", "frozen-embeddings"]
    assert found.ticks == tuple(range(13))
    assert [point.y for point in found.curves[0].points] == list(range(1, 14))
    assert found.bars
    assert found.compares


def test_figure_3_tells_tickets_of_one_cut_apart() -> None:
    records = [ticket_record(ticket(0.2, sha256=letter * 64), [1, 2]) for letter in "ba"]
    found = build_chart(results([], tickets=records), "figure3")
    assert found is not None
    assert [curve.label for curve in found.curves] == ["decoupled aaaaaaaa", "decoupled bbbbbbbb"]
    assert build_chart(results([]), "figure3") is None
