from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from helpers.toys import KINDS, example, toy_backbone, toy_model, toy_tokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from ltprompt.backbone.model import Backbone

XLMR_BASE = {"vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1}


def eligible_by_name(model: Any) -> dict[str, tuple[int, ...]]:
    """The eligible set told by the names of these two families, which the source does not look at."""
    pattern = r"embeddings\.(word|position|token_type)_embeddings\.|encoder\.layer\.\d+\.(?!.*LayerNorm)"
    named = model.named_parameters(remove_duplicate=False)
    return {name: tuple(parameter.shape) for name, parameter in named if re.search(pattern, name)}


def test_xlmr_base_has_277_414_656_eligible_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backbone, "_verify", lambda self: None)  # no logits without weights
    with torch.device("meta"):
        model = XLMRobertaForMaskedLM(XLMRobertaConfig(**XLMR_BASE))
    backbone = Backbone(model, toy_tokenizer("xlm-roberta"))
    assert sum(parameter.numel for parameter in backbone.eligible) == 277_414_656
    assert {p.name: p.shape for p in backbone.eligible} == eligible_by_name(model)
    assert [len(backbone.layers), backbone.width, backbone.tied] == [12, 768, True]
    # facts.md: about 470 M parameters with the output embeddings counted apart
    assert backbone.untied_size == sum(p.numel() for p in model.parameters()) + 250_002 * 768


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_eligible_are_input_embeddings_and_layers_without_norms_and_head(kind: str, tied: bool) -> None:
    backbone = toy_backbone(kind, tied=tied)
    assert {p.name: p.shape for p in backbone.eligible} == eligible_by_name(toy_model(kind, tied=tied))
    names = [p.name for p in backbone.eligible]
    assert not [name for name in names if "LayerNorm" in name or "head" in name or "cls" in name or "decoder" in name]
    norms = {name for name, _ in backbone.model.named_parameters() if "LayerNorm" in name or "layer_norm" in name}
    assert norms
    assert norms <= backbone.norms


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_numbered_in_the_order_they_run(kind: str) -> None:
    backbone = toy_backbone(kind, layers=3)
    ran: list[int] = []
    for number, layer in enumerate(backbone.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    ids, attention = example(kind)
    backbone.model(input_ids=ids, attention_mask=attention)
    assert ran == [1, 2, 3]
    for parameter in backbone.eligible:
        number = re.search(r"encoder\.layer\.(\d+)\.", parameter.name)
        assert parameter.layer == (int(number[1]) + 1 if number else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_module_is_one_in_every_layer(kind: str) -> None:
    backbone = toy_backbone(kind)
    kinds = [{p.kind for p in backbone.eligible if p.layer == layer} for layer in range(4)]
    assert kinds[0] == {"word_embeddings", "position_embeddings", "token_type_embeddings"}
    assert kinds[1] == kinds[2] == kinds[3] >= {"attention.self.query", "intermediate.dense", "output.dense"}


def test_a_model_with_one_layer_list_of_other_modules_is_no_obstacle() -> None:
    config = BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = BertForMaskedLM(config)
    model.bert.extra = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    assert Backbone(model, toy_tokenizer("bert")).layers is model.bert.encoder.layer
