"""Changed entries of a tensor: what training leaves of a tensor, and how it is put on and taken off, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


@dataclass(frozen=True)
class Change:
    """New values of some entries of one parameter.

    name: the parameter's name in the backbone. index: flat indices [k], int32 or int64, ascending. values: [k], in the
    weights' dtype.
    """

    name: str
    index: Tensor
    values: Tensor

    @torch.no_grad()
    def exchange(self, tensor: Tensor) -> Change:
        """Write the values into `tensor` and return the change that undoes this: the values that stood there."""
        flat = tensor.view(-1)
        index = self.index.to(tensor.device)
        before = flat.index_select(0, index)
        flat.index_copy_(0, index.long(), self.values.to(tensor.device, tensor.dtype))
        return Change(self.name, self.index, before)


def changed(name: str, old: Tensor, new: Tensor, index: Tensor | None = None) -> Change | None:
    """Return the entries whose bits differ between two vectors, or None where none does.

    index: the flat index in the parameter of each entry of the vectors; None where they are the whole parameter.
    """
    places = (old.view(_BITS[old.dtype]) != new.view(_BITS[new.dtype])).nonzero().squeeze(1)
    if not len(places):
        return None
    return Change(name, (places if index is None else index[places]).to("cpu", torch.int32), new[places].cpu())
