"""Toy backbones: every architecture in a size that trains in milliseconds, with nothing at its default value."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, XLMRobertaConfig, XLMRobertaForMaskedLM

from helpers import toy_tokenizers
from ltprompt.backbone.model import Backbone

KINDS = ("xlm-roberta", "bert")


def toy_model(
    kind: str, *, dropout: float = 0.0, layers: int = 3, tied: bool = True, seed: int = 0, positions: int = 64
) -> Any:
    """A stock model of random weights: no bias is zero and no norm the identity. positions: tokens that it can read."""
    tokenizer = toy_tokenizer(kind)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": tied,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "bert":
            model: Any = BertForMaskedLM(BertConfig(max_position_embeddings=positions, **sizes))
        else:
            config = XLMRobertaConfig(max_position_embeddings=positions + 2, type_vocab_size=1, **sizes)
            model = XLMRobertaForMaskedLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def toy_tokenizer(kind: str) -> Any:
    """A tokenizer of the kind's family, a copy of its own."""
    made = toy_tokenizers.wordpiece() if kind == "bert" else toy_tokenizers.unigram()
    return copy.deepcopy(made)


def toy_backbone(kind: str, *, double: bool = False, **options: Any) -> Backbone:
    """A backbone around `toy_model`; `double` makes its masters float64."""
    model = toy_model(kind, **options)
    return Backbone(model.double() if double else model, toy_tokenizer(kind), name=f"toy-{kind}")


def toy_folder(kind: str, folder: Path, *, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """Save a toy as the hub lays a model out: config.json, model.safetensors, tokenizer.json."""
    toy_model(kind, **options).to(dtype).save_pretrained(folder)
    toy_tokenizer(kind).save_pretrained(folder)
    return folder


def example(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows of ids of different lengths and their attention mask."""
    pad = toy_tokenizer(kind).pad_token_id
    ids = torch.tensor([[7, 9, 12, 5, 11, 20], [13, 6, 8, pad, pad, pad]])
    return ids, torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change what a JSON file holds."""
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
