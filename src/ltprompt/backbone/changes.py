"""Changed entries of tensors: what training leaves of a backbone, and how it is put on and taken off, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ltprompt.backbone.turns import Turns

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
    def standing(self, tensor: Tensor) -> Change:
        """Return the change that undoes this one: the values that now stand in `tensor`, with an index beside them."""
        index = self.index.to(tensor.device)
        return Change(self.name, index, tensor.view(-1).index_select(0, index))

    @torch.no_grad()
    def write(self, tensor: Tensor) -> None:
        """Write the values into `tensor`."""
        index, values = self.index.to(tensor.device), self.values.to(tensor.device, tensor.dtype)
        tensor.view(-1).index_copy_(0, index.long(), values)


def changed(name: str, old: Tensor, new: Tensor, index: Tensor | None = None) -> Change | None:
    """Return the entries whose bits differ between two vectors, or None where none does.

    index: the flat index in the parameter of each entry of the vectors; None where they are the whole parameter.
    """
    places = (old.view(_BITS[old.dtype]) != new.view(_BITS[new.dtype])).nonzero().squeeze(1)
    if not len(places):
        return None
    return Change(name, (places if index is None else index[places]).to("cpu", torch.int32), new[places].cpu())


class Changes(Protocol):
    """What can be put on a backbone, such as an adapter.

    moves_output: whether changes to a tied embedding matrix move the output side too.
    """

    @property
    def changes(self) -> Sequence[Change]:
        """New values of entries, each parameter once."""

    @property
    def moves_output(self) -> bool:
        """See the class."""

    def check(self, backbone: Any) -> None:
        """Raise `MismatchError` unless the changes are of this backbone."""


class Overlay:
    """What is on the weights of one backbone beside θ, what undoes it, and whose turn with the weights it is.

    parameters: of the backbone, by name. tied: the name of the matrix that is both input and output embeddings, if one
    is. on: what is on. kept_output: rows of the output matrix that changes to the input side alone have overwritten in
    a tied matrix, as (sorted row numbers, the original rows); logits are computed from the original rows.
    """

    def __init__(self, parameters: Mapping[str, Tensor], tied: str | None) -> None:
        self.on: Changes | None = None
        self.kept_output: tuple[Tensor, Tensor] | None = None
        self._parameters, self._tied = parameters, tied
        self._undo: list[Change] = []
        self._turns = Turns()

    @contextmanager
    def shared(self, changes: Changes | None) -> Iterator[None]:
        """Have `changes`, or with None θ, on the weights within the block; they stay on until others are wanted."""
        with self._turns.shared(lambda: self._is_on(changes), lambda: self._put_on(changes)):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the weights, which are θ, for this thread alone within the block."""
        with self._turns.alone():
            self._take_off()
            yield

    def take_off(self, changes: Changes | None = None) -> None:
        """Take `changes`, or with None whatever is on, off; where they are not on, nothing happens."""
        if self._is_on(None) or (changes is not None and self.on is not changes):
            return
        with self._turns.alone():
            if changes is None or self.on is changes:
                self._take_off()

    def _is_on(self, changes: Changes | None) -> bool:
        return self.on is changes and (changes is not None or not self._undo)

    def _put_on(self, changes: Changes | None) -> None:
        self._take_off()
        if changes is None:
            return
        try:
            self.kept_output = self._overwritten(changes)
            for change in changes.changes:
                tensor = self._parameters[change.name]
                self._undo.append(change.standing(tensor))  # before it is written: an interrupt may come in between
                change.write(tensor)
            self.on = changes
        except BaseException:  # an interrupt too must leave the backbone at θ
            self._take_off()
            raise

    def _take_off(self) -> None:
        self.on = None
        for before in self._undo:
            before.write(self._parameters[before.name])
        self._undo.clear()  # not one by one: what an interrupt broke off is done again, whole
        self.kept_output = None

    def _overwritten(self, changes: Changes) -> tuple[Tensor, Tensor] | None:
        """Return the rows of a tied matrix to be kept for the output side, where the changes move the input's alone."""
        words = next((change for change in changes.changes if change.name == self._tied), None)
        if words is None or changes.moves_output:
            return None
        matrix = self._parameters[words.name].detach()
        rows = torch.div(words.index.long(), matrix.shape[1], rounding_mode="floor").unique().to(matrix.device)
        return rows, matrix[rows].clone()
