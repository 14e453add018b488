"""The pretrained weights θ, kept out of memory while the model trains in place."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from ltprompt.backbone.loading import MINI
from ltprompt.backbone.model import Backbone
from ltprompt.files.artifacts import atomic_path


@contextmanager
def originals(backbone: Backbone, names: Iterable[str]) -> Iterator[Mapping[str, Tensor]]:
    """Yield θ of the named parameters as CPU tensors backed by a file, so that the page cache holds them, not us.

    The file is the checkpoint itself where that is an fp32 safetensors file with equal contents, else a temporary one
    that is deleted afterwards. The weights must be θ when the block is entered.
    """
    wanted = {name: backbone.parameters[name] for name in names}
    mapped = _from_checkpoint(backbone, wanted)
    if mapped is not None:
        yield mapped
        return
    with tempfile.TemporaryDirectory(prefix="ltprompt-") as folder:
        path = Path(folder) / "theta.safetensors"
        with atomic_path(path) as temporary:
            save_file({name: value.detach().cpu().contiguous() for name, value in wanted.items()}, temporary)
        with safe_open(path, framework="pt") as file:
            yield {name: file.get_tensor(name) for name in wanted}


@torch.no_grad()
def restore(backbone: Backbone, theta: Mapping[str, Tensor]) -> None:
    """Set the parameters named in `theta` back to θ, bit for bit."""
    for name, original in theta.items():
        backbone.parameters[name].copy_(original)


def _from_checkpoint(backbone: Backbone, wanted: Mapping[str, nn.Parameter]) -> dict[str, Tensor] | None:
    path = _checkpoint(backbone)
    if path is None or not wanted:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if not set(wanted) <= set(file.keys()):
                return None
            found = {name: file.get_tensor(name) for name in wanted}
    except SafetensorError:
        return None
    same = all(_equal(found[name], parameter) for name, parameter in wanted.items())
    return found if same else None


def _equal(stored: Tensor, parameter: Tensor) -> bool:
    return stored.dtype == parameter.dtype and torch.equal(stored, parameter.detach().cpu())


def _checkpoint(backbone: Backbone) -> str | None:
    """Return the single safetensors file that the backbone was loaded from, if there is one."""
    if not backbone.name or backbone.name == MINI:
        return None
    try:
        path: str | None = cached_file(
            backbone.name,
            "model.safetensors",
            revision=backbone.revision,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError:
        return None
    return path
