"""How predictions agree with labels: accuracy, macro-F1 and confusion, by language and on the mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [N, labels] of the verbaliser's words among themselves."""
    return torch.from_numpy(logits).softmax(-1).numpy()


@dataclass(frozen=True)
class Measures:
    """How predictions agree with labels: accuracy, macro-F1 and confusion[gold][predicted], over `size` examples."""

    size: int
    accuracy: float
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the measures as plain JSON."""
        return {
            "examples": self.size,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "confusion": [list(row) for row in self.confusion],
        }


def measure(gold: np.ndarray, predicted: np.ndarray, classes: int) -> Measures:
    """Return the measures of predictions [N] against labels [N], both class numbers from 0.

    Macro-F1 is the plain mean over all classes; a class that neither occurs nor is predicted counts as 0.
    """
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (gold, predicted), 1)
    hits = np.diag(confusion)
    sums = confusion.sum(0) + confusion.sum(1)
    f1 = np.divide(2 * hits, sums, out=np.zeros(classes), where=sums > 0)
    rows = tuple(tuple(int(n) for n in row) for row in confusion)
    return Measures(len(gold), float(hits.sum() / max(len(gold), 1)), float(f1.mean()), rows)


def mean_measures(by_language: Mapping[str, Measures]) -> dict[str, float]:
    """Return the plain means over languages, as the paper's AVG. column."""
    return {
        "accuracy": float(np.mean([found.accuracy for found in by_language.values()])),
        "macro_f1": float(np.mean([found.macro_f1 for found in by_language.values()])),
    }


@dataclass(frozen=True)
class Evaluation:
    """Measures by language, their means, and for every language gold labels and probabilities [N, labels].

    dtype: name of the matmul dtype in which it was computed.
    """

    labels: tuple[str, ...]
    by_language: dict[str, Measures]
    probabilities: dict[str, np.ndarray]
    gold: dict[str, np.ndarray]
    dtype: str

    @property
    def mean(self) -> dict[str, float]:
        """Plain means over the languages."""
        return mean_measures(self.by_language)

    def to_json(self) -> dict[str, Any]:
        """Return labels, dtype, measures and means as plain JSON."""
        languages = {language: found.to_json() for language, found in self.by_language.items()}
        return {"labels": list(self.labels), "dtype": self.dtype, "languages": languages, "mean": self.mean}
