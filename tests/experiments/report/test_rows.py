from __future__ import annotations

import random

import numpy as np
import pytest
from helpers.synthetic_runs import SETTINGS, data, run, share, ticket

from ltprompt.experiments.records import RunRecord
from ltprompt.experiments.report.rows import group_rows

HITS = {"en": share(8), "sw": share(6)}


def labels(runs: list[RunRecord]) -> list[str]:
    return [row.label for row in group_rows(runs)]


def test_runs_that_differ_in_the_seed_make_a_row() -> None:
    rows = group_rows([run(HITS, seed=seed) for seed in (3, 1, 2)])
    assert [row.label for row in rows] == ["SP"]
    assert rows[0].seeds(["en", "sw"]) == (1, 2, 3)
    assert rows[0].languages == {"en", "sw"}
    assert rows[0].accuracies(["en", "sw"]) == pytest.approx([35.0] * 3)
    assert np.array_equal(rows[0].hits("sw", [1, 3]), [[1] * 6 + [0] * 14] * 2)


def test_rows_do_not_depend_on_the_order_of_the_runs() -> None:
    runs = [
        run(HITS, method, seed, shots, settings={**SETTINGS, "lr": lr})
        for method in ("sp", "ft")
        for seed in (1, 2)
        for shots in (16, 4)
        for lr in (1e-5, 2e-5)
    ]
    expected = group_rows(runs)
    random.Random(1).shuffle(runs)
    assert [(row.label, row.spec.shots, dict(row.results)) for row in group_rows(runs)] == [
        (row.label, row.spec.shots, dict(row.results)) for row in expected
    ]
    assert [row.spec.shots for row in expected] == [4] * 4 + [16] * 4


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"settings": {**SETTINGS, "lr": 0.0002}}, "lr 0.0002"),
        ({"settings": {**SETTINGS, "recipe": {"clip": 2.0}}}, "clip 2.0"),
        ({"settings": {**SETTINGS, "epochs": None}}, "epochs null"),
        ({"settings": {**SETTINGS, "schedule": "linear"}}, "schedule linear"),
        ({"dtype": "bfloat16"}, "dtype bfloat16"),
        ({"backbone": "another", "fingerprint": "e" * 64}, "backbone another"),
        ({"fingerprint": "e" * 64}, "backbone some/backbone (eeeeeeee)"),
        ({"task": "mine"}, "task mine"),
        ({"source": "SNLI", "train": data("train MultiNLI en 16"), "dev": data("dev MultiNLI en 16")}, "source SNLI"),
        ({"train": data("other rows")}, "training data 1"),
        ({"dev": None}, "training data 1"),
        ({"tests": {"en": data("other tests"), "sw": data("test sw 20", 20)}}, "tests 2"),
        ({"language": "de", "train": data("train MultiNLI en 16"), "dev": data("dev MultiNLI en 16")}, "trained on de"),
    ],
)
def test_what_differs_parts_rows_and_is_said(changes: dict[str, object], text: str) -> None:
    """The same seed or another, with one thing changed: never one mean over both."""
    for seed in (1, 2):
        found = group_rows([run(HITS, seed=1), run(HITS, seed=seed, **changes)])
        assert len(found) == 2
        (changed,) = [row for row in found if text.split()[0] in row.label and row.variant.endswith(text)]
        assert len(changed.results) == 2
        assert found[0].label != found[1].label


@pytest.mark.parametrize(
    ("changes", "tuned"),
    [
        ({"settings": {**SETTINGS, "lr": 0.0002}}, True),
        ({"settings": {**SETTINGS, "recipe": {"clip": 2.0}}}, True),
        ({"dtype": "bfloat16"}, False),
        ({"backbone": "another", "fingerprint": "e" * 64}, False),
        ({"seed": 2}, False),
    ],
)
def test_rows_parted_by_a_setting_of_training_know_it(changes: dict[str, object], tuned: bool) -> None:
    rows = group_rows([run(HITS), run(HITS, **changes), run(HITS, "ft")])
    assert {row.tuned for row in rows if row.name == "SP"} == {tuned}
    assert {row.tuned for row in rows if row.name == "FT"} == {False}


def test_what_does_not_count_parts_nothing() -> None:
    runs = [
        run(HITS, seed=1),
        run(HITS, seed=2, backbone="the same under another name"),
        run(HITS, seed=3, settings={**SETTINGS, "seed": 3, "recipe": {"clip": 1.0, "seed": 3}}),
        run(HITS, seed=4, train=data("train MultiNLI en 16").model_copy(update={"name": "elsewhere"})),
    ]
    assert labels(runs) == ["SP"]
    assert group_rows(runs[::-1])[0].spec == group_rows(runs)[0].spec


def test_a_setting_that_varies_is_named_at_all_shots() -> None:
    runs = [run(HITS, shots=4, settings={**SETTINGS, "lr": lr}) for lr in (1e-5, 2e-5)]
    assert labels([*runs, run(HITS, shots=16)]) == ["SP, lr 1e-05", "SP, lr 2e-05", "SP, lr 2e-05"]


def test_a_setting_that_goes_with_the_shots_needs_no_name() -> None:
    runs = [run(HITS, shots=shots, settings={**SETTINGS, "epochs": 1000 // shots}) for shots in (4, 16)]
    assert labels(runs) == ["SP", "SP"]


def test_settings_of_one_last_name_are_told_apart() -> None:
    runs = [run(HITS, seed=1, settings={"lr": 1.0, "recipe": {"lr": lr}}) for lr in (1.0, 2.0)]
    assert labels(runs) == ["SP, lr 1.0", "SP, lr 2.0"]
    both = run(HITS, seed=1, settings={"lr": 3.0, "recipe": {"lr": 1.0}})
    assert labels([*runs, both]) == [
        "SP, lr 1.0, recipe.lr 1.0",
        "SP, lr 1.0, recipe.lr 2.0",
        "SP, lr 3.0, recipe.lr 1.0",
    ]


def test_tickets_of_other_scores_make_other_rows() -> None:
    runs = [run(HITS, "ltp", seed, ticket=ticket(sha256=letter * 64)) for seed, letter in ((1, "a"), (2, "b"))]
    assert labels(runs) == ["LTP 20 %, ticket 1", "LTP 20 %, ticket 2"]


def test_ready_tickets_go_by_their_names() -> None:
    named = [ticket(sha256=letter * 64, name=name) for letter, name in (("a", "english"), ("b", "swahili"))]
    assert labels([run(HITS, "ltp", ticket=each) for each in (*named, ticket(sha256="c" * 64))]) == [
        "LTP 20 %",
        "LTP 20 % (english)",
        "LTP 20 % (swahili)",
    ]
    alike = [named[0], ticket(sha256="b" * 64, name="english")]
    assert labels([run(HITS, "ltp", ticket=each) for each in alike]) == [
        "LTP 20 % (english), ticket 1",
        "LTP 20 % (english), ticket 2",
    ]


def test_a_ready_ticket_of_another_name_is_the_same_row() -> None:
    runs = [run(HITS, "ltp", seed, ticket=ticket(sha256="a" * 64, name=name)) for seed, name in ((1, "x"), (2, "y"))]
    (row,) = group_rows(runs)
    assert row.seeds(HITS) == (1, 2)


def test_random_tickets_may_be_drawn_anew_for_every_seed() -> None:
    runs = [run(HITS, "ltp", seed, ticket=ticket(0.2, "random", seed=seed)) for seed in (1, 2, 3)]
    (row,) = group_rows(runs)
    assert row.label == "Random 20 %"
    assert len(row.seeds(["en"])) == 3


def test_several_random_tickets_of_one_seed_make_rows() -> None:
    runs = [run(HITS, "ltp", seed, ticket=ticket(0.2, "random", seed=drawn)) for seed in (1, 2) for drawn in (0, 7)]
    assert labels(runs) == ["Random 20 %, ticket seed 0", "Random 20 %, ticket seed 7"]


def test_one_run_tested_twice_is_not_two_seeds() -> None:
    """The same run in grids of other test languages: a mean must not count it twice."""
    assert labels([run(HITS), run({"en": share(8)})]) == ["SP, test languages en", "SP, test languages en+sw"]


def test_a_missing_language_leaves_a_row_whole() -> None:
    (row,) = group_rows([run(HITS, seed=1), run({"en": share(8)}, seed=2)])
    assert row.seeds(["en", "sw"]) == (1,)
    assert row.seeds(["en"]) == (1, 2)
    assert row.accuracies(["en", "sw"]) == pytest.approx([35.0])


def test_in_language_runs_make_one_row_of_their_own_languages() -> None:
    runs = [
        run({language: share(8), "en": share(20)}, seed=seed, language=language, setting="in-language")
        for language in ("hi", "sw")
        for seed in (1, 2)
    ]
    (row,) = group_rows(runs)
    assert row.languages == {"hi", "sw"}
    assert row.accuracies(["hi", "sw"]) == pytest.approx([40.0, 40.0])


def test_in_language_training_data_are_compared_language_by_language() -> None:
    runs = [
        run({code: share(8)}, seed=1, language=code, setting="in-language", train=data(f"train {code} {draw}"))
        for code in ("hi", "sw")
        for draw in (1, 2)
    ]
    assert labels(runs) == ["SP, training data 1", "SP, training data 2"]


def test_sources_part_rows_with_or_without_a_word() -> None:
    runs = [run(HITS, source=source) for source in ("MultiNLI", "SNLI")]
    assert [row.label for row in group_rows(runs, by_source=True)] == ["SP", "SP"]
    assert len({label for label in labels(runs) if "source" in label}) == 2
