"""The top of the package: what it offers by name, what each shows of itself, and that importing it costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.toy_classifiers import TRAIN, toy_classifier, toy_ticket
from helpers.toy_tickets import A, B, ticket
from helpers.toys import toy_backbone

import ltprompt
from ltprompt import Adapter, Backbone, Rows, Scores, compare, distribution, load_task, rows_from
from ltprompt.experiments.records import Results

PACKAGE = Path(ltprompt.__file__).parent
# Every command, and the call that does the same.
CALLS = {
    "scores": ("find_scores", "read_lines"),
    "ticket cut": ("Scores", "find_criterion"),
    "ticket combine": ("union", "intersection"),
    "ticket inspect": ("distribution", "draw_distribution"),
    "ticket compare": ("compare",),
    "train, evaluate, predict": ("PromptClassifier", "read_rows", "rows_from"),
    "merge": ("merge_adapter",),
    "split": ("split", "write_rows"),
    "task check": ("load_task", "report_task"),
    "task new": ("starter_text",),
    "grid": ("plan_grid", "run_grid"),
    "report": ("read_results", "write_report"),
}


@pytest.mark.parametrize("command", CALLS)
def test_what_a_command_does_is_a_call(command: str) -> None:
    for name in CALLS[command]:
        assert name in ltprompt.__all__
        assert name in dir(ltprompt)
        assert getattr(ltprompt, name).__doc__


def test_every_name_is_there_and_none_is_hidden_by_a_module() -> None:
    """A module of the top, once imported, takes the place of a function with its name."""
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert modules.isdisjoint(ltprompt.__all__)
    assert {name: getattr(ltprompt, name).__name__ for name in ltprompt.__all__} == {n: n for n in ltprompt.__all__}
    with pytest.raises(AttributeError, match="no attribute 'mergo'"):
        ltprompt.mergo  # noqa: B018


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import ltprompt, sys; print(*(name for name in ('torch', 'numpy', 'transformers') if name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return toy_backbone("xlm-roberta")


def test_each_shows_itself_in_one_line(backbone: Backbone) -> None:
    size = sum(parameter.numel() for parameter in backbone.parameters.values())
    packed = "packed" if backbone.packs else "padded"
    assert repr(backbone) == f"Backbone({backbone.name or 'unnamed'}, {size:,} parameters, cpu, {packed})"
    cut = toy_ticket(backbone, 0.25)
    eligible = sum(parameter.numel for parameter in backbone.eligible)
    assert repr(cut) == f"Ticket({round(eligible / 4):,} of {eligible:,} entries, decoupled, 25 %)"
    scores = Scores(backbone.eligible, {p.name: torch.zeros(p.shape) for p in backbone.eligible}, "tied", "f" * 64)
    assert repr(scores) == f"Scores({eligible:,} parameters, tied, delta)"
    adapter = toy_classifier(backbone).adapter
    assert adapter is not None
    assert repr(adapter) == f"Adapter(ltp, {adapter.size:,} changed entries of {adapter.backbone or 'a backbone'})"
    task = load_task("xnli")
    assert repr(task) == str(task) == "Task(xnli, premise + hypothesis, 3 labels, 15 languages)"
    rows = rows_from(TRAIN, task)
    assert repr(rows) == "Rows(6 of rows, labelled)"
    assert repr(Rows(rows.texts, None, "test.tsv")) == "Rows(6 of test.tsv, unlabelled)"
    assert repr(compare(ticket(A), ticket(B))) == "Comparison(4 in both, IoU 0.267, 0.086 by chance)"
    assert repr(distribution(ticket(A))) == "Distribution(9 of 60 entries, 3 layers, 3 kinds of module)"


def test_what_a_grid_and_a_task_report_shows_is_one_line(backbone: Backbone) -> None:
    assert repr(Results("table1", (), (), (), 84)) == "Results(table1, 0 of 84 runs, 0 tickets)"
    found = ltprompt.report_task(
        load_task("xnli"), backbone.tokenizer, backbone="toy", language="en", prompt_length=4, max_length=48
    )
    assert repr(found) == "TaskReport(xnli, toy, en, 0 tables)"


def test_tables_of_tickets_are_html_in_a_notebook() -> None:
    found, overlap = distribution(ticket(A)), compare(ticket(A), ticket(B))
    assert found._repr_html_().count("<table>") == 2
    assert "<td>word_embeddings</td><td>6</td>" in found._repr_html_()
    assert "<td>all</td><td>9</td><td>10</td><td>4</td>" in overlap._repr_html_()


def test_files_are_named_by_text_as_well_as_by_paths(backbone: Backbone, tmp_path: Path) -> None:
    names = {p.name: torch.zeros(p.shape) for p in backbone.eligible}
    Scores(backbone.eligible, names, "tied", "f" * 64).save(f"{tmp_path}/scores")
    assert Scores.load(f"{tmp_path}/scores").strategy == "tied"
    adapter = toy_classifier(backbone).adapter
    assert adapter is not None
    adapter.save(f"{tmp_path}/adapter")
    assert Adapter.load(f"{tmp_path}/adapter").size == adapter.size
    (tmp_path / "text.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    assert ltprompt.read_lines(f"{tmp_path}/text.txt") == ["one", "two"]
    task = load_task("xnli")
    ltprompt.write_rows(f"{tmp_path}/rows.jsonl", rows_from(TRAIN, task), task)
    assert ltprompt.read_rows(f"{tmp_path}/rows.jsonl", task).texts == rows_from(TRAIN, task).texts


def test_an_adapter_s_folder_is_merged_in_one_call(backbone: Backbone, tmp_path: Path) -> None:
    classifier = toy_classifier(backbone)
    classifier.save_pretrained(tmp_path / "adapter")
    classifier.merge(tmp_path / "one")
    ltprompt.merge_adapter(str(tmp_path / "adapter"), str(tmp_path / "other"), backbone)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "other"))
    assert one == other
