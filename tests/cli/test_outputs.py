from __future__ import annotations

from pathlib import Path

import numpy as np

from ltprompt.cli.outputs import predictions_tsv, write_predictions

PROBABILITIES = np.array([[0.25, 0.75], [0.6, 0.4], [0.5, 0.5]], np.float32)
PLAIN = """\
example\tpredicted\tyes\tno
1\tno\t0.250000\t0.750000
2\tyes\t0.600000\t0.400000
3\tyes\t0.500000\t0.500000
"""
WITH_GOLD = """\
example\tgold\tpredicted\tyes\tno
1\tyes\tno\t0.250000\t0.750000
2\tno\tyes\t0.600000\t0.400000
3\tno\tyes\t0.500000\t0.500000
"""


def test_a_line_an_example_in_the_order_of_the_input() -> None:
    assert predictions_tsv(("yes", "no"), PROBABILITIES) == PLAIN


def test_the_gold_label_stands_before_the_prediction() -> None:
    assert predictions_tsv(("yes", "no"), PROBABILITIES, np.array([0, 1, 1])) == WITH_GOLD


def test_no_example_gives_the_header_alone() -> None:
    assert predictions_tsv(("yes", "no"), np.empty((0, 2), np.float32)) == "example\tpredicted\tyes\tno\n"


def test_the_file_holds_the_table(tmp_path: Path) -> None:
    path = tmp_path / "sw.tsv"
    write_predictions(path, ("ndio", "是"), PROBABILITIES)
    assert path.read_text(encoding="utf-8") == PLAIN.replace("yes", "ndio").replace("\tno", "\t是")
