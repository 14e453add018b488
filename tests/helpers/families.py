"""Toys of every family of encoders that packs, and of some that cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    MPNetConfig,
    MPNetForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaXLConfig,
    XLMRobertaXLForMaskedLM,
)

from helpers.toys import toy_tokenizer
from ltprompt.backbone.model import Backbone

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
SMALLER = {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 48}
FAMILIES = {
    "albert": (AlbertConfig, AlbertForMaskedLM, SIZES | {"embedding_size": 16}),
    "bert": (BertConfig, BertForMaskedLM, SIZES),
    "deberta": (DebertaV2Config, DebertaV2ForMaskedLM, SIZES),
    "distilbert": (DistilBertConfig, DistilBertForMaskedLM, SMALLER),
    "electra": (ElectraConfig, ElectraForMaskedLM, SIZES | {"embedding_size": 16}),
    "mpnet": (MPNetConfig, MPNetForMaskedLM, SIZES),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaForMaskedLM, SIZES),
    "xlm-roberta-xl": (XLMRobertaXLConfig, XLMRobertaXLForMaskedLM, SIZES),  # which normalises first
}
PADDED = ("deberta", "mpnet")  # that attend in ways of their own
WHOLE = (*PADDED, "albert")  # whose last layer computes every row: ALBERT adds all of them behind the attention
LENGTHS = (9, 9, 9, 4, 4, 1)


def family(name: str, *, dropout: float = 0.0) -> Backbone:
    config, model, sizes = FAMILIES[name]
    tokenizer = toy_tokenizer("xlm-roberta")
    torch.manual_seed(3)
    given: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": 66,
    }
    built = model(config(**sizes, **given)).double()
    for module in built.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    for parameter in built.parameters():  # biases and norms start at 0 and 1, behind which mistakes could hide
        torch.nn.init.normal_(parameter, std=0.2)
    return Backbone(built, tokenizer)


def words(backbone: Backbone) -> Tensor:
    """Ordinary words [T] of sequences as long as LENGTHS."""
    known = [number for number in range(len(backbone.tokenizer)) if number not in backbone.tokenizer.all_special_ids]
    return torch.from_numpy(np.random.default_rng(1).choice(known, sum(LENGTHS)))
