"""What commands leave for machines: JSON on stdout or in a file, predictions; places are checked beforehand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltprompt.files.places import check_file

if TYPE_CHECKING:
    import numpy as np

STDOUT = Path("-")  # how a command is told to write to standard output


def check_outputs(**files: Path | None) -> None:
    """Raise `InputError` where one of the files, by the fields that name them, cannot be written; before long work."""
    for field, path in files.items():
        if path is not None and path != STDOUT:
            check_file(path, field)


def give_result(text: str, data: str, json_: Path | None) -> None:
    """Print a result for people, then write its JSON to a file; where `json_` is stdout, print the JSON alone.

    text: the result for people. data: the same as JSON. json_: what `--json` was, None where it was not given.
    """
    print(data if json_ == STDOUT else text)
    if json_ not in (None, STDOUT):
        from ltprompt.files.artifacts import write_text

        write_text(json_, f"{data}\n")


def result_json(data: Any) -> str:
    """Return `data` as indented JSON, its keys in their own order."""
    return json.dumps(data, indent=1, ensure_ascii=False)


def predictions_json(labels: Sequence[str], probabilities: np.ndarray) -> str:
    """Return JSON of the labels and, in the order of the input, each example's predicted label and probabilities."""
    examples = [
        {"predicted": labels[int(row.argmax())], "probabilities": dict(zip(labels, row.tolist(), strict=True))}
        for row in probabilities
    ]
    return result_json({"labels": list(labels), "examples": examples})


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
    from ltprompt.files.artifacts import write_text

    write_text(path, predictions_tsv(labels, probabilities, gold))
