"""Predictions as a table: one line an example, in the order of the input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltprompt.files.artifacts import write_text


def predictions_tsv(labels: Sequence[str], probabilities: np.ndarray, gold: np.ndarray | None = None) -> str:
    """Return TSV text: example (from 1), gold label where known, predicted label, a probability column a label."""
    header = ["example", *(["gold"] if gold is not None else []), "predicted", *labels]
    lines = ["\t".join(header)]
    for number, row in enumerate(probabilities):
        known = [labels[int(gold[number])]] if gold is not None else []
        lines.append("\t".join([str(number + 1), *known, labels[int(row.argmax())], *(f"{p:.6f}" for p in row)]))
    return "\n".join(lines) + "\n"


def write_predictions(
    path: Path, labels: Sequence[str], probabilities: np.ndarray, gold: np.ndarray | None = None
) -> None:
    """Write `predictions_tsv` to a file, atomically."""
    write_text(path, predictions_tsv(labels, probabilities, gold))
