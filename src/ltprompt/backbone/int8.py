"""Row-wise int8 weights: how the embedded backbone is small enough to ship."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ltprompt.files.artifacts import TensorFile, write_tensors

KIND = "int8 weights"
SCALE = "scale/"
LEVELS = 127


def quantise(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return matrices as int8 [r, c] with an fp32 scale [r] a row, under ``scale/NAME``; vectors stay fp32."""
    small: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.ndim != 2:
            small[name] = tensor.float()
            continue
        scale = (tensor.float().abs().amax(dim=1) / LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
        small[name] = (tensor.float() / scale[:, None]).round().to(torch.int8)
        small[SCALE + name] = scale
    return small


def dequantise(small: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the fp32 state that `quantise` made small."""
    return {
        name: tensor * small[SCALE + name][:, None] if tensor.dtype == torch.int8 else tensor.clone()
        for name, tensor in small.items()
        if not name.startswith(SCALE)
    }


def save_small(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict as row-wise int8."""
    write_tensors(path, KIND, quantise(state), {})


def load_small(path: Path) -> dict[str, Tensor]:
    """Read and check what `save_small` wrote, as an fp32 state dict."""
    with TensorFile(path, KIND) as file:
        file.verify()
        return dequantise({name: file.get(name) for name in file.names})
