from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.toy_classifiers import OTHER, TRAINED, assert_same_bits, theta, toy_classifier
from helpers.toy_tokenizers import mini
from helpers.toys import KINDS, toy_backbone, toy_model, toy_tokenizer
from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaForMaskedLM

from ltprompt.backbone.model import Backbone
from ltprompt.classifier import PromptClassifier
from ltprompt.errors import InputError, OutputError

# What a user of the merged folder has: transformers alone. The filled template comes as text and as ids.
STOCK = """
import json, sys, torch
from transformers import AutoModelForMaskedLM, AutoTokenizer
for folder in json.load(sys.stdin):
    options = {"dtype": torch.float32, "output_loading_info": True}
    model, report = AutoModelForMaskedLM.from_pretrained(folder + "/merged", **options)
    tokenizer = AutoTokenizer.from_pretrained(folder + "/merged")
    given = torch.load(folder + "/ids.pt")
    logits = model.eval()(input_ids=given["ids"], attention_mask=given["attention"]).logits.detach()
    text = tokenizer(open(folder + "/text.txt", encoding="utf-8").read())["input_ids"]
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    found = {"logits": logits, "text": text, "tied": tied}
    found["report"] = {key: [str(item) for item in report[key]] for key in report}
    torch.save(found, folder + "/found.pt")
assert not [name for name in sys.modules if name.startswith("ltprompt")]
"""
CASES = [(kind, trained, tied) for kind in KINDS for trained in TRAINED for tied in (True, False)]
# An untied backbone with a tied ticket is no case: stage 1 with `tied` needs a shared matrix.
CASES = [case for case in CASES if case[1:] != ("ltp-tied", False)]


@dataclass
class Merged:
    """A merged folder, the classifier it is of, and what a fresh process with stock transformers found in it."""

    folder: Path
    classifier: PromptClassifier
    ids: torch.Tensor
    attention: torch.Tensor
    found: dict[str, Any]


def filled(classifier: PromptClassifier) -> tuple[torch.Tensor, torch.Tensor]:
    """Templates of OTHER, padded; slots still negative."""
    examples = classifier.resolved.template.encode([(row["premise"], row["hypothesis"]) for row in OTHER])
    length = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), length), classifier.backbone.tokenizer.pad_token_id)
    attention = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.from_numpy(example.ids)
        attention[row, : len(example.ids)] = 1
    return ids, attention


def added(ids: torch.Tensor, size: int) -> torch.Tensor:
    """Prompt slot k, coded -(k + 1), as the k-th added word."""
    return torch.where(ids < 0, size - ids - 1, ids)


def readme_text(folder: Path, row: dict[str, str]) -> str:
    """The template that README.md shows, filled with the fields of a row."""
    shown = re.search(r"^Template: `(.*)`", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert shown
    return shown[1].replace("{premise}", row["premise"]).replace("{hypothesis}", row["hypothesis"])


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, bool], Merged]:
    """Every case merged, and all of them read by one fresh process."""
    made = {}
    for case in CASES:
        kind, trained, tied = case
        folder = tmp_path_factory.mktemp(f"{kind}-{trained}-{tied}")
        classifier = toy_classifier(toy_backbone(kind, tied=tied), trained)
        classifier.merge(folder / "merged")
        ids, attention = filled(classifier)
        size = len(classifier.backbone.tokenizer)
        torch.save({"ids": added(ids, size), "attention": attention}, folder / "ids.pt")
        (folder / "text.txt").write_text(readme_text(folder / "merged", OTHER[0]), encoding="utf-8")
        made[case] = (folder, classifier, ids, attention)
    folders = json.dumps([str(folder) for folder, *_ in made.values()])
    done = subprocess.run([sys.executable, "-c", STOCK], input=folders, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {case: Merged(*parts, torch.load(parts[0] / "found.pt")) for case, parts in made.items()}


@pytest.mark.parametrize("case", CASES)
def test_a_stock_load_misses_nothing(case: tuple[str, str, bool], merged: dict[Any, Merged]) -> None:
    report = merged[case].found["report"]
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]


@pytest.mark.parametrize("case", CASES)
def test_merged_logits_are_those_of_the_applied_adapter(case: tuple[str, str, bool], merged: dict[Any, Merged]) -> None:
    given = merged[case]
    backbone, adapter = given.classifier.backbone, given.classifier.adapter
    assert adapter is not None
    assert backbone.decoder.bias.abs().max() > 0.05
    adapter.apply(backbone)
    words = backbone.word_embeddings(given.ids.clamp_min(0))
    for row, place in (given.ids < 0).nonzero().tolist():
        words[row, place] = adapter.folded[-given.ids[row, place] - 1]
    size, real = len(backbone.tokenizer), given.attention.bool()
    with torch.no_grad():
        expected = backbone.model(inputs_embeds=words, attention_mask=given.attention).logits[real]
    found = given.found["logits"][real]
    assert found.shape[1] == size + len(adapter.folded)
    assert (found[:, :size] - expected).abs().max() <= 1e-5
    # An added word is never predicted.
    assert (found.softmax(-1)[:, size:] == 0).all()


@pytest.mark.parametrize("case", CASES)
def test_the_output_matrix_is_written_out_only_where_it_stands_apart(
    case: tuple[str, str, bool], merged: dict[Any, Merged]
) -> None:
    _, trained, tied = case
    assert merged[case].found["tied"] is (tied and trained != "ltp-decoupled")


@pytest.mark.parametrize("case", CASES)
def test_the_shown_template_gives_the_templates_ids(case: tuple[str, str, bool], merged: dict[Any, Merged]) -> None:
    given = merged[case]
    expected = added(given.ids[0][given.attention[0].bool()], len(given.classifier.backbone.tokenizer))
    assert given.found["text"] == expected.tolist()


@pytest.mark.parametrize("case", CASES)
def test_label_probabilities_follow_from_the_readme(case: tuple[str, str, bool], merged: dict[Any, Merged]) -> None:
    given = merged[case]
    readme = (given.folder / "merged" / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (\w+) \| (\w+) \| \[([\d, ]+)\] \|$", readme, re.MULTILINE)
    assert [(label, word) for label, word, _ in table] == [
        ("entailment", "right"),
        ("neutral", "maybe"),
        ("contradiction", "wrong"),
    ]
    masks = (given.ids == given.classifier.backbone.tokenizer.mask_token_id).nonzero()
    at_mask = given.found["logits"][masks[:, 0], masks[:, 1]]
    scores = [at_mask[:, [int(id_) for id_ in ids.split(",")]].mean(1) for *_, ids in table]
    expected = given.classifier.predict_proba(OTHER)
    assert np.abs(torch.stack(scores, 1).softmax(1).numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("used", [False, True])
def test_merging_leaves_theta(kind: str, trained: str, used: bool, tmp_path: Path) -> None:
    classifier = toy_classifier(toy_backbone(kind), trained)
    before = classifier.predict_proba(OTHER) if used else None
    tokens = len(classifier.backbone.tokenizer)
    classifier.merge(tmp_path / "merged")
    assert_same_bits(classifier.backbone.model.state_dict(), theta(kind))
    assert len(classifier.backbone.tokenizer) == tokens
    assert (classifier.backbone.overlay.on, classifier.backbone.overlay.kept_output) == (None, None)
    if before is not None:
        assert np.array_equal(classifier.predict_proba(OTHER), before)


def test_a_place_that_exists_is_refused_and_kept(tmp_path: Path) -> None:
    classifier = toy_classifier(toy_backbone("bert"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    for name in ("taken", "taken/mine.txt"):
        with pytest.raises(InputError, match="already exists"):
            classifier.merge(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "mine.txt"]


def test_an_untrained_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not trained yet"):
        PromptClassifier(toy_backbone("bert"), "xnli", "sp", max_length=48).merge(tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_that_has_the_added_words_is_refused(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer("bert")
    tokenizer.add_tokens(["<p2>"])
    model = toy_model("bert")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with pytest.raises(InputError, match="already has <p2>"):
        toy_classifier(Backbone(model, tokenizer)).merge(tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_a_backbone_with_more_rows_than_tokens(tmp_path: Path) -> None:
    model = toy_model("bert")
    model.resize_token_embeddings(len(toy_tokenizer("bert")) + 9, mean_resizing=False)
    classifier = toy_classifier(Backbone(model, toy_tokenizer("bert")), "sp")
    expected = classifier.predict_proba(OTHER)
    classifier.merge(tmp_path / "merged")
    stock = Backbone.from_pretrained(tmp_path / "merged")
    ids, attention = filled(classifier)
    logits = stock.model(input_ids=added(ids, len(toy_tokenizer("bert"))), attention_mask=attention).logits.detach()
    rows, places = (ids == classifier.backbone.tokenizer.mask_token_id).nonzero(as_tuple=True)
    words = torch.tensor([pieces[0] for pieces in classifier.reader.readout.verbaliser.piece_ids])
    assert np.abs(logits[rows, places][:, words].softmax(1).numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize("failing", ["replace", "save_file"])
def test_nothing_is_left_where_the_disk_is_full(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = toy_classifier(toy_backbone("bert"))

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((Path, "replace") if failing == "replace" else ("ltprompt.merge.save_file",)), full)
    with pytest.raises(OutputError, match=r"cannot write .*merged: .*[Nn]o space left"):
        classifier.merge(tmp_path / "merged")
    assert not list(tmp_path.iterdir())
    assert_same_bits(classifier.backbone.model.state_dict(), theta("bert"))


def test_the_shown_template_with_a_real_vocabulary(tmp_path: Path) -> None:
    tokenizer = mini()
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    config = XLMRobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=66, type_vocab_size=1, **sizes)
    classifier = toy_classifier(Backbone(XLMRobertaForMaskedLM(config), tokenizer), "prompt-only", epochs=1)
    classifier.merge(tmp_path / "merged")
    row = {"premise": "Two dogs, one of them black, run", "hypothesis": "They aren't asleep"}
    text = AutoTokenizer.from_pretrained(tmp_path / "merged")(readme_text(tmp_path / "merged", row))["input_ids"]
    example = classifier.resolved.template.encode([(row["premise"], row["hypothesis"])])[0]
    assert text == added(torch.from_numpy(example.ids), len(tokenizer)).tolist()


def test_a_fine_tuned_classifier_cannot_be_merged_and_nothing_is_written(tmp_path: Path) -> None:
    classifier = toy_classifier(toy_backbone("bert"), "ft")
    with pytest.raises(InputError, match="method 'ft' has a classifier of its own"):
        classifier.merge(tmp_path / "out")
    assert not (tmp_path / "out").exists()
