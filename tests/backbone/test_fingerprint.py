from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from helpers.toys import KINDS, edit, toy_backbone, toy_folder, toy_model, toy_tokenizer

from ltprompt.backbone.changes import Change
from ltprompt.backbone.model import Backbone
from ltprompt.errors import InputError


@dataclass(frozen=True, eq=False)
class AnyBackbones:
    """Changes that no backbone refuses."""

    changes: tuple[Change, ...]
    moves_output: bool = True

    def check(self, backbone: Backbone) -> None:
        """Accept it."""


@pytest.mark.parametrize("kind", KINDS)
def test_copies_in_fp32_and_fp16_have_one_fingerprint(kind: str, tmp_path: Path) -> None:
    toy_folder(kind, tmp_path / "fp16", dtype=torch.float16)
    toy_model(kind).half().float().save_pretrained(tmp_path / "fp32")
    toy_tokenizer(kind).save_pretrained(tmp_path / "fp32")
    first, second = (Backbone.from_pretrained(tmp_path / dtype).fingerprint for dtype in ("fp16", "fp32"))
    assert first == second
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    sizes = [(tmp_path / dtype / "model.safetensors").stat().st_size for dtype in ("fp16", "fp32")]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_backbone_in_memory_and_the_same_from_a_folder_have_one_fingerprint(kind: str, tmp_path: Path) -> None:
    assert Backbone.from_pretrained(toy_folder(kind, tmp_path)).fingerprint == toy_backbone(kind).fingerprint


@pytest.mark.parametrize(
    "name",
    [
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.2.output.LayerNorm.weight",
        "bert.encoder.layer.1.attention.self.key.bias",
        "cls.predictions.bias",
    ],
)
def test_one_bit_of_a_weight_changes_the_fingerprint(name: str) -> None:
    model = toy_model("bert")
    before = Backbone(model, toy_tokenizer("bert")).fingerprint
    model.get_parameter(name).data.view(torch.int32).view(-1)[5] ^= 1
    assert Backbone(model, toy_tokenizer("bert")).fingerprint != before


def test_a_setting_that_changes_behaviour_changes_the_fingerprint(tmp_path: Path) -> None:
    folder = toy_folder("xlm-roberta", tmp_path)
    before = Backbone.from_pretrained(folder).fingerprint
    edit(folder / "config.json", lambda config: config.update(layer_norm_eps=1e-6))
    changed = Backbone.from_pretrained(folder).fingerprint
    edit(folder / "config.json", lambda config: config.update(layer_norm_eps=1e-12))
    edit(folder / "config.json", lambda config: config.update(transformers_version="5.0.0", use_cache=False))
    assert changed != before == Backbone.from_pretrained(folder).fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_one_entry_of_the_tokenizer_changes_the_fingerprint(kind: str, tmp_path: Path) -> None:
    folder = toy_folder(kind, tmp_path)
    before = Backbone.from_pretrained(folder).fingerprint
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    old, new = ('"cat"', '"cow"')
    assert text.count(old) == 1
    (folder / "tokenizer.json").write_text(text.replace(old, new), encoding="utf-8")
    assert Backbone.from_pretrained(folder).fingerprint != before


@pytest.mark.parametrize("kind", KINDS)
def test_calls_that_set_truncation_and_padding_leave_the_fingerprint(kind: str) -> None:
    backbone, used = toy_backbone(kind), toy_backbone(kind)
    used.tokenizer(["the cat", "a"], truncation=True, max_length=4, padding=True)
    assert used.tokenizer.backend_tokenizer.truncation is not None
    assert used.fingerprint == backbone.fingerprint


def test_a_fingerprint_is_of_the_pretrained_weights_alone() -> None:
    backbone, pristine = toy_backbone("bert"), toy_backbone("bert")
    name = backbone.eligible[-1].name
    with backbone.applied(AnyBackbones((Change(name, torch.tensor([0]), torch.tensor([7.0])),))):
        assert backbone.parameters[name].view(-1)[0] == 7
        with pytest.raises(InputError, match="this very thread"):
            _ = backbone.fingerprint
    assert backbone.fingerprint == pristine.fingerprint
    with backbone.reserved(), torch.no_grad():  # known by now
        assert backbone.fingerprint == pristine.fingerprint
