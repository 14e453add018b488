"""The fingerprint: which weights, which behaviour and which tokenizer a backbone is."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn

from ltprompt.files.artifacts import canonical_json, update_digest

# Settings that name a model, or say how it was first made or how to run it, but do not change what it computes.
INERT_SETTINGS = (
    "_name_or_path",
    "architectures",
    "dtype",
    "initializer_range",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)


def fingerprint(model: Any, tokenizer: Any) -> str:
    """Return SHA-256 over a model's fp32 weights, the settings that change behaviour and the tokenizer."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_unique_state(model).items()):
        update_digest(digest, name, tensor.detach().to("cpu", torch.float32).contiguous())
    digest.update(canonical_json(_behaviour(model.config)).encode())
    digest.update(canonical_json(_tokenizer_state(tokenizer)).encode())
    return digest.hexdigest()


def _unique_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters by name, a tied one once, under the first of its names in order."""
    unique: dict[int, tuple[str, Tensor]] = {}
    for name, parameter in sorted(model.named_parameters(remove_duplicate=False)):
        unique.setdefault(id(parameter), (name, parameter))
    return dict(unique.values())


def _behaviour(config: Any) -> dict[str, Any]:
    """Return the settings that differ from their defaults: a field that a later release adds changes nothing."""
    defaults = type(config)().to_dict()
    settings = {key: value for key, value in config.to_dict().items() if value != defaults.get(key)}
    chosen = {key: value for key, value in settings.items() if key not in INERT_SETTINGS}
    plain: dict[str, Any] = json.loads(json.dumps({**chosen, "model_type": config.model_type}, default=str))
    return plain


def _tokenizer_state(tokenizer: Any) -> dict[str, Any]:
    """Return the serialised tokenizer without its padding and truncation, which calls leave behind in it."""
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return {key: value for key, value in state.items() if key not in ("padding", "truncation")}
