"""The statistics against plain Python loops over every resample and every swap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from time import perf_counter

import numpy as np
import pytest
from scipy.stats import permutation_test

from ltprompt.experiments.report.statistics import (
    Group,
    bootstrap_interval,
    compare,
    holm,
    mean_and_deviation,
    paired_groups,
    permutation_p,
    smallest_p,
    student_interval,
)

Lists = list[list[int]]
# The 97.5th percentile of Student's t by degrees of freedom, from a printed table.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


def hits(generator: np.random.Generator, seeds: int, examples: int, probability: float = 0.5) -> np.ndarray:
    return (generator.random((seeds, examples)) < probability).astype(np.uint8)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def every_resample(first: Sequence[Lists], second: Sequence[Lists]) -> list[float]:
    """The mean difference in every resample of seeds and examples, with nothing but loops."""
    seeds, sizes = len(first[0]), sorted({len(language[0]) for language in first})
    found = []
    for drawn_seeds in itertools.product(range(seeds), repeat=seeds):
        spaces = [itertools.product(range(size), repeat=size) for size in sizes]
        for drawn in itertools.product(*spaces):
            languages = []
            for a, b in zip(first, second, strict=True):
                examples = drawn[sizes.index(len(a[0]))]
                languages.append(mean([a[s][e] - b[s][e] for s in drawn_seeds for e in examples]))
            found.append(mean(languages))
    return found


def every_swap(values: Sequence[float]) -> float:
    """The exact two-sided p of a mean under all swaps."""
    observed = abs(math.fsum(values))
    signs = list(itertools.product((1, -1), repeat=len(values)))
    sums = [abs(math.fsum(sign * value for sign, value in zip(each, values, strict=True))) for each in signs]
    return mean([total >= observed - 1e-9 for total in sums])


@pytest.mark.parametrize(
    ("seeds", "sizes"),
    [(2, (3, 3)), (3, (3, 3, 3)), (1, (5,)), (2, (2, 3)), (1, (2, 1, 3)), (2, (3, 2, 3)), (2, (2, 3, 2, 3, 3))],
)
def test_interval_is_that_of_every_resample(seeds: int, sizes: tuple[int, ...]) -> None:
    generator = np.random.default_rng(seeds + sum(sizes))
    first = [hits(generator, seeds, size, 0.7) for size in sizes]
    second = [hits(generator, seeds, size, 0.3) for size in sizes]
    plain = every_resample([a.tolist() for a in first], [b.tolist() for b in second])
    low, high = bootstrap_interval(paired_groups(first, second))
    assert (low, high) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])), abs=1e-12)
    assert low < high


@pytest.mark.parametrize("sizes", [(4, 4), (3, 2), (3, 2, 2)])
def test_drawn_interval_agrees_with_the_exact_one(sizes: tuple[int, ...]) -> None:
    generator = np.random.default_rng(5)
    first, second = ([hits(generator, 2, size) for size in sizes] for _ in range(2))
    groups = paired_groups(first, second)
    exact, drawn = bootstrap_interval(groups), bootstrap_interval(groups, exact=1)
    assert exact != (0, 0)
    # The means of resamples are multiples of 1/16 (or 1/24, 1/36): a bound may fall on the next one.
    assert drawn == pytest.approx(exact, abs=1 / 16 + 1e-9)


def test_drawn_interval_is_the_normal_one_for_many_examples() -> None:
    generator = np.random.default_rng(2)
    first, second = ([hits(generator, 1, 3000, p)] for p in (0.5, 0.45))
    low, high = bootstrap_interval(paired_groups(first, second))
    difference = first[0].astype(float) - second[0]
    half = 1.96 * difference.std() / math.sqrt(3000)
    assert low == pytest.approx(difference.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(difference.mean() + half, abs=0.1 * half)


def test_seeds_are_resampled_too() -> None:
    # Every example agrees and the seeds do not: all of the spread comes from the seeds.
    first = [np.repeat([[1], [1], [0], [0], [1]], 200, axis=1)]
    second = [np.zeros((5, 200))]
    low, high = bootstrap_interval(paired_groups(first, second))
    totals = [sum(draw) / 5 for draw in itertools.product((1, 1, 0, 0, 1), repeat=5)]
    assert (low, high) == pytest.approx(tuple(np.quantile(totals, [0.025, 0.975])), abs=1e-9)


def test_equal_lengths_resample_languages_together() -> None:
    # One language's examples make up for the other's, index by index: no spread if they are resampled together.
    first = [np.array([[1, 0] * 50]), np.array([[0, 1] * 50])]
    second = [np.zeros((1, 100)), np.zeros((1, 100))]
    assert bootstrap_interval(paired_groups(first, second)) == pytest.approx((0.5, 0.5))
    shorter = [first[0], first[1][:, :99]], [second[0], second[1][:, :99]]
    low, high = bootstrap_interval(paired_groups(*shorter))
    assert high - low > 0.1


def test_a_table_of_another_length_leaves_the_others_together() -> None:
    pair = [np.array([[1, 0] * 50]), np.array([[0, 1] * 50])]
    shorter = np.array([[1] * 30])
    groups = paired_groups([pair[0], shorter, pair[1]], [np.zeros((1, 100)), np.zeros((1, 30)), np.zeros((1, 100))])
    assert [weight for weight, _ in groups] == pytest.approx([2 / 3, 1 / 3])
    # Neither the pair, whose examples make up for one another, nor the constant table has any spread.
    assert bootstrap_interval(groups) == pytest.approx((2 / 3, 2 / 3))
    drawn = bootstrap_interval(groups, exact=1)
    assert drawn == pytest.approx((2 / 3, 2 / 3))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_is_widened_about_the_mean_as_students(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    groups = paired_groups(*([hits(generator, seeds, size, p) for size in (40, 30)] for p in (0.6, 0.5)))
    mean_of_all = sum(weight * values.mean() for weight, values in groups)
    plain, wide = bootstrap_interval(groups), student_interval(groups)
    factor = math.sqrt(seeds / (seeds - 1)) * STUDENT[seeds - 1] / 1.96
    expected = [mean_of_all + factor * (bound - mean_of_all) for bound in plain]
    assert wide == pytest.approx(expected, rel=1e-3)
    assert wide[0] < plain[0] < plain[1] < wide[1]


def test_the_interval_of_one_seed_is_that_of_its_examples() -> None:
    groups = [Group(1.0, np.array([[1.0, 0.0, -1.0, 1.0, 1.0]]))]
    assert student_interval(groups) == bootstrap_interval(groups)


@pytest.mark.parametrize(
    "values", [[0.5, -0.25, 0, 1], [1, 1, 1, 1, 1], [0.1] * 3 + [-0.3], [0.2, -0.2], [3, 1, 2, -1]]
)
def test_permutation_is_that_of_every_swap(values: list[float]) -> None:
    assert permutation_p(np.array(values)) == pytest.approx(every_swap(values), abs=1e-12)


def test_permutation_without_differences_or_with_one_says_nothing() -> None:
    assert permutation_p(np.zeros(4)) == 1
    assert permutation_p(np.array([0.0, 2.0, 0.0])) == 1


@pytest.mark.parametrize("shift", [0.0, 0.15, 0.3])
def test_drawn_permutation_agrees_with_all_swaps_and_with_scipy(shift: float) -> None:
    generator = np.random.default_rng(4)
    values = np.round(generator.normal(shift, 0.6, size=15), 1)
    assert np.count_nonzero(values) > 13  # so many that swaps are drawn
    signs = np.array(list(itertools.product((1, -1), repeat=15)))
    exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-9)
    assert permutation_p(values) == pytest.approx(exact, abs=4 * math.sqrt(0.25 / 10_000))
    scipys = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=2**15, vectorized=True).pvalue
    assert permutation_p(values) == pytest.approx(scipys, abs=4 * math.sqrt(0.25 / 10_000))


def test_a_drawn_p_is_never_zero() -> None:
    assert permutation_p(np.ones(100)) == pytest.approx(1 / 10_001)


def test_smallest_p_is_reached() -> None:
    for seeds in range(2, 7):
        assert permutation_p(np.full(seeds, 0.25)) == pytest.approx(smallest_p(seeds)) == 2 / 2**seeds
    assert smallest_p(1) == 1
    assert smallest_p(50) == permutation_p(np.ones(50)) == pytest.approx(1 / 10_001)


@pytest.mark.parametrize("sizes", [(3, 3), (3, 2), (2, 3, 3)])
def test_comparison_is_all_of_it_in_points(sizes: tuple[int, ...]) -> None:
    generator = np.random.default_rng(8)
    first, second = ([hits(generator, 3, size, p) for size in sizes] for p in (0.8, 0.4))
    found = compare(first, second)
    plain_first, plain_second = ([array.tolist() for array in arrays] for arrays in (first, second))
    by_seed = [
        mean([mean(a[s]) - mean(b[s]) for a, b in zip(plain_first, plain_second, strict=True)]) for s in range(3)
    ]
    assert found.mean == pytest.approx(100 * mean(by_seed))
    assert found.p_seeds == pytest.approx(every_swap(by_seed))
    assert (found.smallest_p_seeds, found.seeds, found.languages) == (0.25, 3, len(sizes))
    resamples = every_resample(plain_first, plain_second)
    factor = math.sqrt(3 / 2) * STUDENT[2] / 1.96
    bounds = [found.mean + factor * (100 * bound - found.mean) for bound in np.quantile(resamples, [0.025, 0.975])]
    assert (found.low, found.high) == pytest.approx(tuple(bounds), rel=1e-3)
    assert found.p_examples == pytest.approx(every_swap(example_units(plain_first, plain_second)))


def example_units(first: Sequence[Lists], second: Sequence[Lists]) -> list[float]:
    """What each example adds to the mean difference."""
    units: dict[tuple[int, int], float] = {}
    for a, b in zip(first, second, strict=True):
        for row_a, row_b in zip(a, b, strict=True):
            for example, (x, y) in enumerate(zip(row_a, row_b, strict=True)):
                unit = (len(row_a), example)
                units[unit] = units.get(unit, 0) + (x - y) / (len(first) * len(a) * len(row_a))
    return list(units.values())


def test_two_equal_methods_differ_in_nothing() -> None:
    same = [hits(np.random.default_rng(1), 3, 50)]
    found = compare(same, same)
    assert (found.mean, found.low, found.high, found.p_examples, found.p_seeds) == (0, 0, 0, 1, 1)
    assert not found.excludes_zero


@pytest.mark.parametrize(
    ("low", "high", "excludes"), [(0.1, 2, True), (-2, -0.1, True), (-0.1, 2, False), (0, 2, False)]
)
def test_an_interval_that_touches_zero_does_not_exclude_it(low: float, high: float, excludes: bool) -> None:
    found = compare([np.ones((1, 2))], [np.zeros((1, 2))])
    assert found.__class__(**{**vars(found), "low": low, "high": high}).excludes_zero is excludes


def test_arrays_that_do_not_pair_are_refused() -> None:
    for first, second in (
        ([np.ones((2, 3))], [np.ones((2, 4))]),
        ([np.ones((2, 3))], []),
        ([], []),
        ([np.ones((2, 3)), np.ones((1, 3))],) * 2,
        ([np.ones((2, 0))],) * 2,
    ):
        with pytest.raises(ValueError, match="must pair"):
            paired_groups(first, second)


def test_null_is_rejected_as_often_as_it_should_be() -> None:
    """Two methods of equal accuracy on shared examples: about 5 % of the tests and intervals may say otherwise."""
    generator = np.random.default_rng(11)
    by_p = by_interval = 0
    for _ in range(300):
        ease = generator.random((1, 60))
        first, second = ([(generator.random((3, 60)) < ease).astype(np.uint8)] for _ in range(2))
        groups = paired_groups(first, second)
        by_p += permutation_p(groups[0].values.mean(axis=0)) < 0.05
        low, high = bootstrap_interval(groups, draws=400)
        by_interval += low > 0 or high < 0
    # Within four standard errors of 5 %; the interval also resamples seeds, which makes it wider here.
    assert 0 < by_p / 300 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)
    assert by_interval / 300 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)


def test_null_of_parallel_tables_of_unequal_length_is_rejected_as_often_as_it_should_be() -> None:
    """Ten translations of one table, one of them shorter: whether a method is right depends on the example alone."""
    generator = np.random.default_rng(12)
    by_p = by_interval = 0
    for _ in range(150):
        first, second = (
            [table] * 9 + [table[:, :40]] for table in (hits(generator, 1, 60, 0.4), hits(generator, 1, 60, 0.4))
        )
        found = compare(first, second)
        by_p += found.p_examples < 0.05
        by_interval += found.excludes_zero
    # The shorter table repeats examples of the others under another length, which nothing can tell: the variance found
    # is 0.01375 / 0.01675 of the true one, so 7.6 % are expected; with a unit for every row it would be 45 %.
    for rejected in (by_p, by_interval):
        assert 0 < rejected / 150 < 0.076 + 4 * math.sqrt(0.076 * 0.924 / 150)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_null_with_an_effect_of_seeds_is_rejected_no_more_often_than_it_should_be(seeds: int) -> None:
    """Two methods that are equal over training, with a deviation of 4 points over seeds, on 5,010 examples."""
    generator = np.random.default_rng(seeds)
    rejected = plain = 0
    for _ in range(120):
        first, second = generator.normal(0.4, 0.04, size=(2, seeds, 1))
        arrays = [[(generator.random((seeds, 5010)) < chance).astype(np.uint8)] for chance in (first, second)]
        groups = paired_groups(*arrays)
        plain += excludes_zero(bootstrap_interval(groups, draws=100))
        rejected += excludes_zero(student_interval(groups, draws=100))
    bound = 0.05 + 4 * math.sqrt(0.05 * 0.95 / 120)
    assert rejected / 120 < bound
    # And the case is one that the uncorrected interval gets wrong.
    assert plain / 120 > (bound if seeds < 5 else 0.05)


def excludes_zero(interval: tuple[float, float]) -> bool:
    return interval[0] > 0 or interval[1] < 0


def test_a_true_difference_is_found() -> None:
    generator = np.random.default_rng(3)
    found = compare([hits(generator, 3, 1000, 0.6)], [hits(generator, 3, 1000, 0.4)])
    assert found.excludes_zero
    assert found.p_examples < 0.001
    assert found.low < found.mean < found.high


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@pytest.mark.parametrize("values", [[40.0, 42.0, 47.0], [1.0, 1.0], [33.3]])
def test_mean_and_deviation_are_numpys(values: list[float]) -> None:
    average, deviation = mean_and_deviation(values)
    assert average == np.mean(values)
    assert deviation == (None if len(values) == 1 else np.std(values, ddof=1))


def test_equal_input_gives_equal_numbers_quickly() -> None:
    generator = np.random.default_rng(6)
    first, second = ([hits(generator, 3, 300) for _ in range(15)] for _ in range(2))
    start = perf_counter()
    found = compare(first, second)
    assert perf_counter() - start < 5  # a fifth of a second where the machine is idle
    assert compare(first, second) == found
