"""The notebooks of docs, run from top to bottom in a kernel of their own."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.loopback
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_dataframe_becomes_a_cross_validated_score(tmp_path: Path) -> None:
    notebook = nbformat.read(DOCS / "dataframe.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code"), "clear the outputs"
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )  # fmt: skip
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "execute_result"}
    streams = [output for output in outputs if output.output_type == "stream"]
    (shown,) = ["".join(output.text) for output in streams if output.name == "stdout"]  # libraries warn on stderr
    mean = re.fullmatch(r"accuracy over three folds: (\d\.\d\d) ± \d\.\d\d\n", shown)
    assert mean is not None
    assert 0 <= float(mean[1]) <= 1
    last = outputs[-1]["data"]["text/plain"]
    assert re.fullmatch(r"array\(\['(positive|negative)', '(positive|negative)'\], dtype='?<U8'?\)", last)
