"""Paired statistics of two methods on the same examples and seeds; pure functions on arrays of hits (0 or 1).

Hits come as one [seeds, examples] array a language. Tables of equal length are taken for translations of one another:
the examples with one index then are one unit in all of these languages. Another length has units of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

DRAWS = 10_000
LEVEL = 0.05
# The largest number of equally likely resamples that are enumerated instead of drawn.
EXACT = 10_000
# Numbers held at once while drawing: 16 MB as float64.
_CHUNK = 2**21


class Group(NamedTuple):
    """Languages whose examples are resampled together.

    weight: their share of all languages. values: mean over them of the differences of hits, [seeds, examples].
    """

    weight: float
    values: np.ndarray


@dataclass(frozen=True)
class Difference:
    """How far the first of two methods lies above the second, in points of accuracy (0 to 100).

    mean: over seeds, languages and examples. low, high: 95 % interval, as `student_interval` gives it. p_examples,
    p_seeds: two-sided permutation tests. smallest_p_seeds: the smallest p that this number of seeds can give. seeds,
    languages: counts.
    """

    mean: float
    low: float
    high: float
    p_examples: float
    p_seeds: float
    smallest_p_seeds: float
    seeds: int
    languages: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of some values and their sample standard deviation (n - 1), None for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def compare(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Difference:
    """Compare two methods by their hits, one [seeds, examples] array a language, in the same order in both.

    The mean of the difference weighs seeds, languages and a language's examples alike. Raises `ValueError` for arrays
    that do not pair or hold nothing.
    """
    groups = paired_groups(first, second)
    low, high = student_interval(groups)
    seeds = _by_seed(groups)
    return Difference(
        mean=100 * float(seeds.mean()),
        low=100 * low,
        high=100 * high,
        p_examples=permutation_p(_example_units(groups)),
        p_seeds=permutation_p(seeds),
        smallest_p_seeds=smallest_p(len(seeds)),
        seeds=len(seeds),
        languages=len(first),
    )


def paired_groups(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> list[Group]:
    """Return the differences of hits, one group for each length of the languages' tables.

    The difference of mean accuracy is the sum over groups of weight times mean. Raises `ValueError` for arrays that do
    not pair or hold nothing.
    """
    shapes = [array.shape for array in first]
    if shapes != [array.shape for array in second] or len({seeds for seeds, _ in shapes}) != 1 or 0 in sum(shapes, ()):
        raise ValueError(f"hits must pair, with equally many seeds in all languages; got {shapes}")
    by_length: dict[int, list[np.ndarray]] = {}
    for a, b in zip(first, second, strict=True):
        by_length.setdefault(a.shape[1], []).append(a.astype(float) - b.astype(float))
    return [Group(len(alike) / len(first), np.mean(alike, axis=0)) for alike in by_length.values()]


def student_interval(groups: Sequence[Group], *, draws: int = DRAWS, exact: int = EXACT) -> tuple[float, float]:
    """Return `bootstrap_interval` widened about the mean by Student's correction for the number S of seeds.

    Resampling a handful of seeds shows too little spread: that of their mean is short by sqrt((S - 1) / S), and 1.96
    deviations of it hold 95 % only for many seeds. The bounds are moved away from the mean by both factors, the second
    with the t distribution of S - 1 degrees of freedom. A single seed has no spread: its interval is left as it is.
    """
    # imported here: naming the layouts of a grid should not wait for scipy
    from scipy.stats import norm, t  # type: ignore[import-untyped]

    low, high = bootstrap_interval(groups, draws=draws, exact=exact)
    by_seed = _by_seed(groups)
    seeds, mean = len(by_seed), float(by_seed.mean())
    if seeds == 1:
        return low, high
    tail = 1 - LEVEL / 2
    factor = math.sqrt(seeds / (seeds - 1)) * float(t.ppf(tail, seeds - 1) / norm.ppf(tail))
    return mean + factor * (low - mean), mean + factor * (high - mean)


def bootstrap_interval(groups: Sequence[Group], *, draws: int = DRAWS, exact: int = EXACT) -> tuple[float, float]:
    """Return the percentile interval (95 %) of the mean of `groups`, resampling seeds and examples with replacement.

    groups: as `paired_groups` gives them. A resample takes its seeds for all groups and its examples for each group.
    All resamples are enumerated where there are at most `exact`, else `draws` are drawn with a fixed seed. A single
    seed is in every resample: the interval then covers the choice of examples only. Over a few seeds it is too narrow.
    """
    sizes = [len(groups[0].values), *(group.values.shape[1] for group in groups)]
    few = sum(size * math.log(size) for size in sizes) <= math.log(exact) + 1e-9
    means = _every_mean(groups) if few else _drawn_means(groups, draws)
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def permutation_p(differences: np.ndarray) -> float:
    """Return the two-sided p of the mean of paired differences under random swaps of the two methods in each pair.

    Exact where there are at most 10,000 patterns of swaps, else from as many random ones with a fixed seed.
    """
    moved = differences[differences != 0]  # a swap of equals changes nothing
    if moved.size < 2:  # and a single difference is as far from 0 swapped as unswapped
        return 1.0
    if 2**moved.size > DRAWS:
        return _drawn_permutation_p(moved)
    from scipy.stats import permutation_test

    found = permutation_test((moved,), _rounded_sum, permutation_type="samples", vectorized=True, n_resamples=DRAWS)
    return float(found.pvalue)


def smallest_p(pairs: int) -> float:
    """Return the smallest two-sided p that `permutation_p` can give for a number of pairs."""
    return 2 / 2**pairs if 2**pairs <= DRAWS else 1 / (DRAWS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by Holm's step-down method, in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _by_seed(groups: Sequence[Group]) -> np.ndarray:
    """Return the mean difference [seeds] over languages and examples."""
    return np.asarray(sum(group.weight * group.values.mean(axis=1) for group in groups))


def _example_units(groups: Sequence[Group]) -> np.ndarray:
    """Return what each example adds to the mean, times the number of examples."""
    total = sum(group.values.shape[1] for group in groups)
    return np.concatenate([values.mean(axis=0) * (weight * total / values.shape[1]) for weight, values in groups])


def _rounded_sum(values: np.ndarray, axis: int = -1) -> Any:
    # Sums that are equal in exact arithmetic must count as ties.
    return np.round(np.sum(values, axis=axis), 9)


def _drawn_permutation_p(differences: np.ndarray) -> float:
    """Return the p of random swaps, drawn as how many of the differences of one size keep their methods.

    Their number is binomial, so that thousands of examples cost no more than the few sizes that they have; drawing the
    swaps themselves, as `permutation_test` does, takes seconds.
    """
    sizes, counts = np.unique(np.round(np.abs(differences), 9), return_counts=True)
    kept = np.random.default_rng(0).binomial(counts, 0.5, size=(DRAWS, len(counts)))
    extreme = np.abs(_rounded_sum((2 * kept - counts) * sizes)) >= np.abs(_rounded_sum(differences))
    return (1 + int(extreme.sum())) / (DRAWS + 1)


def _every_mean(groups: Sequence[Group]) -> np.ndarray:
    seeds = _every_count(len(groups[0].values))
    totals = np.zeros((len(seeds), 1))
    for weight, values in groups:
        means = weight * (seeds @ values @ _every_count(values.shape[1]).T) / values.size
        totals = (totals[:, :, None] + means[:, None, :]).reshape(len(seeds), -1)
    return totals.ravel()


def _every_count(size: int) -> np.ndarray:
    """Return how often each of `size` things is taken, for every ordered draw of `size` with replacement."""
    return np.array([np.bincount(draw, minlength=size) for draw in itertools.product(range(size), repeat=size)])


def _drawn_means(groups: Sequence[Group], draws: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    seeds = _drawn_counts(generator, draws, len(groups[0].values))
    means = [weight * np.mean(seeds * _resampled(generator, values, draws), axis=1) for weight, values in groups]
    return np.asarray(np.sum(means, axis=0))


def _resampled(generator: np.random.Generator, values: np.ndarray, draws: int) -> np.ndarray:
    """Return the means [draws, seeds] of a group's values over resampled examples."""
    examples = values.shape[1]
    chunk = max(1, _CHUNK // examples)
    sizes = [min(chunk, draws - start) for start in range(0, draws, chunk)]
    return np.concatenate([_drawn_counts(generator, size, examples) @ values.T / examples for size in sizes])


def _drawn_counts(generator: np.random.Generator, draws: int, size: int) -> np.ndarray:
    """Return how often each of `size` things is taken, [draws, size], in random draws with replacement."""
    taken = generator.integers(size, size=(draws, size), dtype=np.int32) + size * np.arange(draws)[:, None]
    return np.bincount(taken.ravel(), minlength=draws * size).reshape(draws, size).astype(float)
