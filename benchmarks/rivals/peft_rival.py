"""PEFT's LoRA and SHiRA on the stock masked language model, trained with the Trainer: as their users run them."""

from __future__ import annotations

from typing import Any

import peft
import torch
from torch import nn

from benchmarks.job import Job, Outcome
from benchmarks.rivals.trainer import prompted
from benchmarks.shapes import SEED
from ltprompt.stage2.methods import METHODS


def stage_two(job: Job, *, kind: str) -> Outcome:
    """Train a prompt and an adapter of the same size, on the same layers, from the same values as ltprompt's method."""
    stock = job.place.stock(dropout=job.dropout)
    inside = f"{stock.base_model_prefix}.encoder.layer."
    targets = [n for n, module in stock.named_modules() if isinstance(module, nn.Linear) and n.startswith(inside)]
    size = METHODS[kind].rank
    assert size is not None
    torch.manual_seed(SEED)
    model = peft.get_peft_model(stock, _configuration(kind, int(size), targets), autocast_adapter_dtype=False)
    # The names that ltprompt's method gives them, which starts from the encoder.
    trained = {
        name.replace(f".{stock.base_model_prefix}.", ".", 1): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return prompted(job, model, trained, {})


def _configuration(kind: str, rank: int, targets: list[str]) -> Any:
    if kind == "lora":
        return peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    return peft.ShiraConfig(r=rank, random_seed=SEED, target_modules=targets)
