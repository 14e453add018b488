"""Where the parts of a masked language model are, found by structure: the only file that knows architectures.

The layers are the largest list of like modules in the encoder, a normalisation layer is a leaf module whose parameters
are all vectors, the head is whatever the stock forward runs after the encoder.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.errors import BackboneError


def find_encoder(model: Any) -> nn.Module:
    """Return the encoder. Raises `BackboneError` where the model has none apart from its head."""
    base = model.base_model
    if base is model:
        raise BackboneError(f"{type(model).__name__} has no encoder apart from its head; use a masked language model")
    encoder: nn.Module = base
    return encoder


def find_decoder(model: Any) -> nn.Linear:
    """Return the output-embedding matrix. Raises `BackboneError` where the model has no plain one."""
    decoder = model.get_output_embeddings()
    if not isinstance(decoder, nn.Linear):
        raise BackboneError(
            f"{type(model).__name__} has no plain output-embedding matrix; use an XLM-R or BERT-like model"
        )
    return decoder


def find_layers(base: nn.Module) -> nn.ModuleList:
    """Return an encoder's layers. Raises `BackboneError` where it has no list of like modules."""
    lists = [module for module in base.modules() if isinstance(module, nn.ModuleList) and len(module)]
    alike = [found for found in lists if len({type(layer) for layer in found}) == 1]
    if not alike:
        raise BackboneError(f"no list of Transformer layers was found in {type(base).__name__}")
    return max(alike, key=lambda found: sum(parameter.numel() for parameter in found.parameters()))


def _is_norm(module: nn.Module) -> bool:
    """A normalisation layer of any class: a leaf that owns parameters, all of them vectors."""
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(module.children()) and all(parameter.ndim <= 1 for parameter in own)


def norm_parameters(module: nn.Module) -> list[str]:
    """Return the names of all parameters of normalisation layers."""
    found = []
    for path, child in module.named_modules():
        if _is_norm(child):
            found += [f"{path}.{name}" for name, _ in child.named_parameters(recurse=False)]
    return found


def _parent(model: nn.Module, child: nn.Module) -> nn.Module:
    path = next(name for name, module in model.named_modules() if module is child)
    return model.get_submodule(path.rpartition(".")[0])


def position_embeddings(model: nn.Module, words: nn.Embedding) -> nn.Embedding | None:
    """Return the embeddings of positions: beside those of words the fewest that are more than any token types."""
    beside = [module for module in _parent(model, words).children() if isinstance(module, nn.Embedding)]
    found = [module for module in beside if module is not words and module.num_embeddings > 16]
    return min(found, key=lambda module: module.num_embeddings, default=None)


def first_position(positions: nn.Embedding) -> int:
    """Return the number of the first position, as these embeddings count."""
    return 0 if positions.padding_idx is None else positions.padding_idx + 1


def all_parameters(model: Any, base: nn.Module) -> dict[str, nn.Parameter]:
    """Return every parameter once, by name; a shared one under its name inside the encoder, which come first."""
    inside = {f"{model.base_model_prefix}.{name}": parameter for name, parameter in base.named_parameters()}
    seen = {id(parameter) for parameter in inside.values()}
    outside = {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in seen}
    return inside | outside


def eligible_parameters(
    model: Any, base: nn.Module, layers: nn.ModuleList, words: nn.Embedding
) -> tuple[EligibleParameter, ...]:
    """List the eligible parameters: all input embeddings, then every layer's weights and biases but its norms."""
    prefix = model.base_model_prefix
    names = {module: name for name, module in base.named_modules()}
    found: dict[str, EligibleParameter] = {}

    def add(module: nn.Module, layer: int, root: str) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{prefix}.{names[module]}.{name}"
            kind = names[module].removeprefix(root).lstrip(".") or name
            found[full] = EligibleParameter(full, tuple(parameter.shape), layer, kind)

    parent = _parent(base, words)
    for module in parent.modules():
        if isinstance(module, nn.Embedding):
            add(module, 0, names[parent])
    for number, layer in enumerate(layers, start=1):
        for module in layer.modules():
            if not _is_norm(module):
                add(module, number, names[layer])
    return tuple(found.values())


class _GivenHidden(nn.Module):
    """Stands where the encoder stood and hands on hidden states that were computed before."""

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=inputs_embeds)


def head_view(model: Any, decoder_path: str) -> Any:
    """Return a shallow copy of the model that runs its head's transform alone.

    The copy shares every module but two: the encoder gives way to hidden states passed in, and the output matrix to
    the identity. So the stock forward itself says how the head works, whatever its modules are called.
    """
    view = _shallow(model)
    view._modules[model.base_model_prefix] = _GivenHidden()
    place = view
    *parents, last = decoder_path.split(".")
    for name in parents:
        place._modules[name] = _shallow(place._modules[name])
        place = place._modules[name]
    place._modules[last] = nn.Identity()
    return view


def _shallow(module: Any) -> Any:
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
