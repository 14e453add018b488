"""How predictions agree with labels: accuracy, macro-F1 and confusion, by language and on the mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ltprompt.terminal import Sheet

MATRIX = 8  # labels of the largest confusion matrix that is shown whole
WORST = 10  # confusions that are shown of a larger one


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [N, labels] of the verbaliser's words among themselves."""
    return torch.from_numpy(logits).softmax(-1).numpy()


@dataclass(frozen=True)
class Measures:
    """How predictions agree with labels: accuracy, macro-F1 and confusion[gold][predicted], over `size` examples.

    macro_f1: the plain mean over the classes that occur, be it as a label or as a prediction.
    """

    size: int
    accuracy: float
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]

    @property
    def classes(self) -> int:
        """How many classes occur in labels or predictions: those that `macro_f1` is the mean of."""
        return int(_occurrences(np.array(self.confusion)).astype(bool).sum())

    @property
    def macro_f1_of_all(self) -> float:
        """Macro-F1 over all classes of the task, one that does not occur as 0: what the records of grids hold."""
        return float(_f1(np.array(self.confusion)).mean())

    def to_json(self) -> dict[str, Any]:
        """Return the measures as plain JSON."""
        return {
            "examples": self.size,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "classes": self.classes,
            "confusion": [list(row) for row in self.confusion],
        }


def measure(gold: np.ndarray, predicted: np.ndarray, classes: int) -> Measures:
    """Return the measures of predictions [N] against labels [N], both class numbers from 0.

    A class that neither occurs nor is predicted has no F1 and is left out of the mean, as scikit-learn leaves it out.
    """
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (gold, predicted), 1)
    found = _f1(confusion)[_occurrences(confusion) > 0]
    rows = tuple(tuple(int(n) for n in row) for row in confusion)
    accuracy = float(np.trace(confusion) / max(len(gold), 1))
    return Measures(len(gold), accuracy, float(found.mean()) if len(found) else 0.0, rows)


def _occurrences(confusion: np.ndarray) -> np.ndarray:
    """Return how often each class [C] is a label or a prediction."""
    sums: np.ndarray = confusion.sum(0) + confusion.sum(1)
    return sums


def _f1(confusion: np.ndarray) -> np.ndarray:
    """Return each class's F1 [C], 0 for a class that does not occur."""
    sums = _occurrences(confusion)
    f1: np.ndarray = np.divide(2 * np.diag(confusion), sums, out=np.zeros(len(confusion)), where=sums > 0)
    return f1


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

    def sheets(self, width: int | None = None) -> list[Sheet]:
        """Return what is shown: the measures by language with their means, then each language's confusions.

        width: columns of the terminal that they are for, if any. A matrix of more than 8 labels, or wider than that, is
        shown as its ten worst confusions.
        """
        confusions = [self._confusions(language, width) for language in self.by_language]
        return [self._measures(), *confusions]

    def _measures(self) -> Sheet:
        header = ["language", "examples", "accuracy", "macro-F1"]
        parts = [
            (language, str(part.size), f"{part.accuracy:.2%}", f"{part.macro_f1:.2%}", part.classes)
            for language, part in self.by_language.items()
        ]
        mean = ["mean", "", f"{self.mean['accuracy']:.2%}", f"{self.mean['macro_f1']:.2%}"]
        every = len(self.labels)
        if all(part[-1] == every for part in parts):
            return Sheet(header, [*(part[:-1] for part in parts), mean])
        rows = [[*cells, f"{classes} of {every}"] for *cells, classes in parts]
        note = "macro-F1 is the mean over the classes that occur as a label or as a prediction"
        return Sheet([*header, "classes"], [*rows, [*mean, ""]], note)

    def _confusions(self, language: str, width: int | None) -> Sheet:
        confusion = self.by_language[language].confusion
        rows = [[gold, *map(str, row)] for gold, row in zip(self.labels, confusion, strict=True)]
        matrix = Sheet([f"{language}: gold \\ predicted", *self.labels], rows)
        if len(self.labels) <= MATRIX and matrix.fits(width):
            return matrix
        return _worst(language, self.labels, np.array(confusion))

    def _repr_html_(self) -> str:
        return "".join(sheet.html() for sheet in self.sheets())

    def __repr__(self) -> str:
        names = ", ".join(self.by_language) if len(self.by_language) <= 5 else f"{len(self.by_language)} languages"
        means = "".join(f", {name} {value:.1%}" for name, value in self.mean.items()) if self.by_language else ""
        return f"Evaluation({names or 'no language'}{means}, {self.dtype})"


def _worst(language: str, labels: tuple[str, ...], confusion: np.ndarray) -> Sheet:
    """Return the confusions that happen most often, each with its share of the examples of its label."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[: min(WORST, np.count_nonzero(wrong))]
    rows = []
    for gold, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        count = wrong[gold, predicted]
        rows.append([labels[gold], labels[predicted], f"{count:,}", f"{count / confusion[gold].sum():.1%}"])
    kinds = np.count_nonzero(wrong)
    note = f"{len(rows)} most frequent of {kinds:,} confusions; the measures as JSON have the whole matrix"
    return Sheet([f"{language}: gold", "predicted", "count", "of gold"], rows, note if rows else "no confusion")
