"""The library in a notebook's kernel, where standard error is no terminal and rich would show HTML."""

from __future__ import annotations

import re

import nbformat
import pytest
from helpers.terminals import SECONDS, Terminal
from nbclient import NotebookClient

CELL = """
from ltprompt import Backbone, PromptClassifier, find_scores
from ltprompt.settings import ScoresSettings
from ltprompt.stage2.fit import training_bar

backbone = Backbone.from_pretrained("toy")
texts, settings = open("english.txt").read().splitlines(), ScoresSettings(steps=2, max_length=48)
scores = find_scores(backbone, texts, settings=settings, progress=True)
rows = [{"premise": "a mat", "hypothesis": "good", "label": "neutral"},
        {"premise": "cat", "hypothesis": "no cat", "label": "contradiction"},
        {"premise": "a cat", "hypothesis": "a cat", "label": "entailment"}]
clf = PromptClassifier(backbone, task="xnli", ticket=scores.select(ratio=0.2), epochs=2, max_length=48)
with training_bar(2) as on_epoch:
    clf.fit(rows, on_epoch=on_epoch)
print(clf.predict(rows).tolist())
"""


@pytest.mark.loopback
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_progress_in_a_notebook_is_plain_lines(terminal: Terminal) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client = NotebookClient(
        notebook, timeout=int(SECONDS), kernel_name="python3", resources={"metadata": {"path": str(terminal.folder)}}
    )
    client.execute(env=terminal.variables)
    outputs = notebook.cells[0].outputs
    assert {output.output_type for output in outputs} == {"stream"}
    shown = {name: "".join(output.text for output in outputs if output.name == name) for name in ("stdout", "stderr")}
    assert re.fullmatch(r"\['\w+', '\w+', '\w+'\]\n", shown["stdout"])
    bars = re.findall(r"^(stage 1|training) (\d)/2, .* left$", shown["stderr"], re.MULTILINE)
    assert bars[-1] == ("training", "2")
    assert ("stage 1", "2") in bars
    assert "\x1b" not in shown["stderr"]
