"""PEFT's adapters on the encoder's linear layers: what a user would weigh against a ticket (extra `peft`).

LoRA, SHiRA with its random mask and Super-Tuning train what the `peft` library puts into the linear layers of the
Transformer layers; prompt, template and head are those of every other method. What they leave is kept merged: new
values of the matrices' entries, as for any other method.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from ltprompt.backbone.changes import Change, changed
from ltprompt.backbone.model import Backbone
from ltprompt.device import seeded
from ltprompt.errors import InputError
from ltprompt.stage2.whole_weights import InPlaceWeights

Kind = Literal["lora", "shira", "super-tuning"]
_NAME = "default"  # of the one adapter that PEFT holds


class PeftWeights(InPlaceWeights):
    """An adapter of the `peft` library in training; the backbone's own tensors stay θ.

    kind: ``lora``, ``shira`` or ``super-tuning``. rank: of the first two (SHiRA: rank × (rows + columns)
    entries a matrix), the sparsity of the third. seed: of the initial values and of SHiRA's mask.
    Raises `InputError` where `peft` is not installed or the size does not fit the layers.
    """

    moves_output = False

    def __init__(self, backbone: Backbone, kind: Kind, rank: float, label_ids: Sequence[int], *, seed: int) -> None:
        self.names = {id(parameter): name for name, parameter in backbone.parameters.items()}
        targets = {name: backbone.base.get_submodule(name) for name in linear_layers(backbone)}
        get_peft_model, config = _config(kind, rank, list(targets), seed)
        with seeded(seed, backbone.device), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers; no user can mend them
            try:
                self.model = get_peft_model(backbone.base, config, autocast_adapter_dtype=False)
            except ValueError as error:
                for name, module in targets.items():  # it may have come as far as some layer
                    backbone.base.set_submodule(name, module)
                raise InputError(f"{kind} of size {rank:g} does not fit this backbone: {error}") from error
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        super().__init__(backbone, trained, label_ids)

    @torch.no_grad()
    def changes(self) -> list[Change]:
        """Return the entries of the matrices that merging the adapter changes."""
        found = []
        for module in self.model.modules():
            if not hasattr(module, "get_delta_weight"):
                continue
            weight = module.base_layer.weight
            delta = module.get_delta_weight(_NAME)
            new = weight + (delta.to_dense() if delta.is_sparse else delta)
            change = changed(self.names[id(weight)], weight.reshape(-1), new.to(weight.dtype).reshape(-1))
            if change is not None:
                found.append(change)
        return found

    def close(self) -> None:
        """Take the adapter out of the model, whose own tensors were never written."""
        self.model.unload()


def linear_layers(backbone: Backbone) -> list[str]:
    """Return the names, seen from the encoder, of the linear modules in the Transformer layers."""
    inside = {id(module) for layer in backbone.layers for module in layer.modules()}
    return [
        name for name, module in backbone.base.named_modules() if isinstance(module, nn.Linear) and id(module) in inside
    ]


def _config(kind: Kind, rank: float, targets: list[str], seed: int) -> tuple[Any, Any]:
    """Return PEFT's entry point and a configuration."""
    try:
        import peft
    except ImportError as error:
        raise InputError(f"method {kind!r} needs the peft library: pip install peft") from error
    if kind == "lora":
        config: Any = peft.LoraConfig(r=int(rank), lora_alpha=2 * int(rank), target_modules=targets)
    elif kind == "shira":
        config = peft.ShiraConfig(r=int(rank), random_seed=seed, target_modules=targets)
    else:
        config = peft.SupertuningConfig(sparsity=rank, target_modules=targets)
    return peft.get_peft_model, config
