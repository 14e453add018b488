"""The packed ticket: its entries as one flat vector with one flat gradient, trained by one fused optimizer call.

The model keeps its own tensors for the forward pass. As soon as a dense gradient is ready, a hook adds its ticket
entries to the flat gradient and frees the rest; after each optimizer step the new values are scattered back. So
optimizer state and snapshots exist for the ticket's entries alone, and everything outside the ticket cannot move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from ltprompt.backbone.changes import Change, changed
from ltprompt.backbone.model import Backbone
from ltprompt.tickets.ticket import Ticket


@dataclass(frozen=True)
class Slot:
    """Where one tensor's ticket entries stand: tensor[index] is flat[start:end]; index None means the whole tensor."""

    tensor: nn.Parameter
    index: Tensor | None
    start: int
    end: int

    def gather(self, values: Tensor) -> Tensor:
        """Return the ticket's entries of a tensor shaped like this slot's."""
        flat = values.reshape(-1)
        return flat if self.index is None else flat.index_select(0, self.index)

    @torch.no_grad()
    def scatter(self, flat: Tensor) -> None:
        """Write this slot's part of the flat vector into its tensor."""
        values = flat[self.start : self.end].to(self.tensor.dtype)
        if self.index is None:
            self.tensor.copy_(values.view_as(self.tensor))
        else:
            self.tensor.view(-1).index_copy_(0, self.index.long(), values)


class PackedWeights:
    """A ticket's entries in training.

    flat: the entries' values, one trainable vector [K'] in `master` dtype, with a gradient that hooks fill. K' leaves
    out the embedding rows of words that are not in training: without a gradient they would not move.
    original: the same entries of θ, in the weights' dtype; what is written back at the end is these, bit for bit.

    Word embeddings: only the rows of `token_ids` (training tokens) are looked up in training, from a compact table. The
    model's own matrix stays θ, so that its other use as output matrix is untouched; with a `tied` ticket the output
    rows are the table's too and move with it.
    """

    def __init__(
        self,
        backbone: Backbone,
        ticket: Ticket | None,
        token_ids: Sequence[int],
        label_ids: Sequence[int],
        *,
        master: torch.dtype = torch.float32,
    ) -> None:
        self.backbone = backbone
        self.moves_output = bool(ticket and ticket.tied and backbone.word_name in ticket.bitmaps)
        device, matrix = backbone.device, backbone.word_embeddings.weight.detach()
        known = sorted({*token_ids, *label_ids} if self.moves_output else set(token_ids))
        self.token_ids = torch.tensor(known, dtype=torch.int64, device=device)
        self.place = torch.zeros(len(matrix), dtype=torch.int64, device=device)
        self.place[self.token_ids] = torch.arange(len(known), device=device)
        self.known = torch.zeros(len(matrix), dtype=torch.bool, device=device)
        self.known[self.token_ids] = True
        self.table = nn.Parameter(matrix[self.token_ids], requires_grad=False)
        self.label_ids = torch.tensor(list(label_ids), dtype=torch.int64, device=device)
        self._output_rows = backbone.output_rows(self.label_ids)
        self.slots = self._slots(ticket)
        size = max((slot.end for slot in self.slots.values()), default=0)
        self.original = torch.empty(size, dtype=matrix.dtype, device=device)
        for slot in self.slots.values():
            self.original[slot.start : slot.end] = slot.gather(slot.tensor.detach())
        self.flat = nn.Parameter(self.original.to(master, copy=True))
        self.flat.grad = torch.zeros_like(self.flat)
        self._hooks = [self._train(slot) for slot in self.slots.values()]

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return the flat vector, where it holds anything."""
        return {"flat": self.flat} if len(self.flat) else {}

    def embed(self, ids: Tensor) -> Tensor:
        """Return embeddings [..., w]: with gradients on, of training words, differentiable; without, of any words."""
        trained = functional.embedding(self.place[ids], self.table)
        if torch.is_grad_enabled():
            return trained
        return torch.where(self.known[ids].unsqueeze(-1), trained, self.backbone.word_embeddings(ids))

    def output_rows(self) -> tuple[Tensor, Tensor | None]:
        """Return the label words' rows [n, w] of the output matrix and its bias: θ's, or the table's if tied."""
        rows, bias = self._output_rows
        return (self.table[self.place[self.label_ids]], bias) if self.moves_output else (rows, bias)

    def step_done(self) -> None:
        """Scatter the values that an optimizer step has changed back into the tensors."""
        for slot in self.slots.values():
            slot.scatter(self.flat.detach())

    def snapshot(self) -> Tensor:
        """Return a copy of the trained values."""
        return self.flat.detach().clone()

    @torch.no_grad()
    def load(self, snapshot: Tensor) -> None:
        """Take up a copy that `snapshot` returned."""
        self.flat.copy_(snapshot)
        self.step_done()

    def changes(self) -> list[Change]:
        """Return the entries that differ from θ, as they would be applied to the backbone."""
        found = []
        for name, slot in self.slots.items():
            old = self.original[slot.start : slot.end]
            new = self.flat.detach()[slot.start : slot.end].to(old.dtype)
            index = torch.arange(len(old), device=old.device) if slot.index is None else slot.index
            change = changed(name, old, new, self._global(name, index))
            if change is not None:
                found.append(change)
        return found

    def close(self) -> None:
        """Set every tensor back to θ and take the hooks off. The training ends with this, whatever happens."""
        for handle in self._hooks:
            handle.remove()
        for slot in self.slots.values():
            slot.scatter(self.original)
            slot.tensor.requires_grad_(False)
            slot.tensor.grad = None

    def _slots(self, ticket: Ticket | None) -> dict[str, Slot]:
        slots: dict[str, Slot] = {}
        start = 0
        if ticket is None:
            return slots
        # In parameter order: a ticket's file sorts its bitmaps, and the gradient's norm, summed in another order, would
        # be rounded otherwise than that of the ticket before it was saved.
        for name in (parameter.name for parameter in ticket.parameters if parameter.name in ticket.bitmaps):
            words = name == self.backbone.word_name
            tensor = self.table if words else self.backbone.parameters[name]
            index = self._table_index(ticket.bitmaps[name]) if words else ticket.indices(name)
            if not len(index):
                continue
            whole = len(index) == tensor.numel()
            place = None if whole else index.to(tensor.device, torch.int32)
            slots[name] = Slot(tensor, place, start, start + len(index))
            start += len(index)
        return slots

    def _table_index(self, bitmap: np.ndarray) -> Tensor:
        """Return the flat indices within the table of the entries that a bitmap over the whole matrix selects."""
        width = self.table.shape[1]
        places = self.token_ids.cpu().numpy()[:, None] * width + np.arange(width)
        selected = (bitmap[places >> 3] >> (places & 7).astype(np.uint8)) & 1
        return torch.from_numpy(np.flatnonzero(selected))

    def _global(self, name: str, index: Tensor) -> Tensor:
        """Return flat indices within the backbone's tensor for flat indices within the slot's tensor."""
        if name != self.backbone.word_name:
            return index.long()
        width = self.table.shape[1]
        row = torch.div(index, width, rounding_mode="floor")
        return self.token_ids[row.long()] * width + index % width

    def _train(self, slot: Slot) -> RemovableHandle:
        gradient = self.flat.grad

        def collect(tensor: Tensor) -> None:
            assert tensor.grad is not None
            assert gradient is not None
            gradient[slot.start : slot.end] += slot.gather(tensor.grad)
            tensor.grad = None

        slot.tensor.requires_grad_(True)
        return slot.tensor.register_post_accumulate_grad_hook(collect)  # type: ignore[no-any-return]
