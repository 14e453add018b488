"""The statistics against plain Python loops over every resample and every swap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from time import perf_counter

import numpy as np
import pytest
from scipy.stats import permutation_test

from ltprompt.experiments.statistics import (
    bootstrap_interval,
    compare,
    holm,
    mean_and_deviation,
    paired_groups,
    permutation_p,
    smallest_p,
)

Lists = list[list[int]]


def hits(generator: np.random.Generator, seeds: int, examples: int, probability: float = 0.5) -> np.ndarray:
    return (generator.random((seeds, examples)) < probability).astype(np.uint8)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def every_resample(first: Sequence[Lists], second: Sequence[Lists], parallel: bool) -> list[float]:
    """The mean difference in every resample of seeds and examples, with nothing but loops."""
    seeds, sizes = len(first[0]), [len(language[0]) for language in first]
    found = []
    for drawn_seeds in itertools.product(range(seeds), repeat=seeds):
        spaces = [itertools.product(range(size), repeat=size) for size in (sizes[:1] if parallel else sizes)]
        for drawn in itertools.product(*spaces):
            languages = []
            for index, (a, b) in enumerate(zip(first, second, strict=True)):
                examples = drawn[0 if parallel else index]
                languages.append(mean([a[s][e] - b[s][e] for s in drawn_seeds for e in examples]))
            found.append(mean(languages))
    return found


def every_swap(values: Sequence[float]) -> float:
    """The exact two-sided p of a mean under all swaps."""
    observed = abs(math.fsum(values))
    signs = list(itertools.product((1, -1), repeat=len(values)))
    sums = [abs(math.fsum(sign * value for sign, value in zip(each, values, strict=True))) for each in signs]
    return mean([total >= observed - 1e-9 for total in sums])


@pytest.mark.parametrize(("seeds", "sizes"), [(2, (3, 3)), (3, (3, 3, 3)), (1, (5,)), (2, (2, 3)), (1, (2, 1, 3))])
def test_interval_is_that_of_every_resample(seeds: int, sizes: tuple[int, ...]) -> None:
    generator = np.random.default_rng(seeds + sum(sizes))
    first = [hits(generator, seeds, size, 0.7) for size in sizes]
    second = [hits(generator, seeds, size, 0.3) for size in sizes]
    parallel = len(set(sizes)) == 1
    plain = every_resample([a.tolist() for a in first], [b.tolist() for b in second], parallel)
    low, high = bootstrap_interval(paired_groups(first, second))
    assert (low, high) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])), abs=1e-12)
    assert low < high


@pytest.mark.parametrize("sizes", [(4, 4), (3, 2)])
def test_drawn_interval_agrees_with_the_exact_one(sizes: tuple[int, ...]) -> None:
    generator = np.random.default_rng(5)
    first, second = ([hits(generator, 2, size) for size in sizes] for _ in range(2))
    groups = paired_groups(first, second)
    exact, drawn = bootstrap_interval(groups), bootstrap_interval(groups, exact=1)
    assert exact != (0, 0)
    # The means of resamples are multiples of 1/16 (or 1/24): a bound may fall on the next one.
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


@pytest.mark.parametrize("sizes", [(3, 3), (3, 2)])
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
    assert (found.smallest_p_seeds, found.seeds, found.languages) == (0.25, 3, 2)
    parallel = len(set(sizes)) == 1
    resamples = every_resample(plain_first, plain_second, parallel)
    assert (found.low, found.high) == pytest.approx(tuple(100 * np.quantile(resamples, [0.025, 0.975])))
    assert found.p_examples == pytest.approx(every_swap(example_units(plain_first, plain_second, parallel)))


def example_units(first: Sequence[Lists], second: Sequence[Lists], parallel: bool) -> list[float]:
    """What each example adds to the mean difference."""
    units: dict[tuple[int, int], float] = {}
    for language, (a, b) in enumerate(zip(first, second, strict=True)):
        for row_a, row_b in zip(a, b, strict=True):
            for example, (x, y) in enumerate(zip(row_a, row_b, strict=True)):
                unit = (0 if parallel else language, example)
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
        by_p += permutation_p(groups[0].mean(axis=0)) < 0.05
        low, high = bootstrap_interval(groups, draws=400)
        by_interval += low > 0 or high < 0
    # Within four standard errors of 5 %; the interval also resamples seeds, which makes it wider here.
    assert 0 < by_p / 300 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)
    assert by_interval / 300 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)


def test_a_true_difference_is_found() -> None:
    generator = np.random.default_rng(3)
    found = compare([hits(generator, 3, 300, 0.6)], [hits(generator, 3, 300, 0.4)])
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
