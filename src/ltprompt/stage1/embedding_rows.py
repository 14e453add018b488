"""Embedding rows that join training when first touched: a row that never had a gradient never moves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class GrowingRows:
    """The rows of an embedding matrix that training has touched so far, as one compact trainable table.

    With weight decay 0, Adam leaves a row alone until its first gradient and moves it on every step from then on. So
    only touched rows are kept, each joining with zero optimizer state: the same result as dense AdamW over the whole
    matrix. The matrix itself, θ, is never written; looked-up rows come from the table.

    table: [capacity, width] parameter whose first `count` rows are in use; unused rows have no gradient and stay put.
    ids: [capacity] word id of each row of the table.
    """

    def __init__(self, matrix: Tensor, capacity: int = 1024) -> None:
        self.matrix = matrix
        self.count = 0
        self.slots = torch.full((len(matrix),), -1, dtype=torch.int64, device=matrix.device)
        self.ids = torch.zeros(capacity, dtype=torch.int64, device=matrix.device)
        self.table = nn.Parameter(matrix.new_zeros(capacity, matrix.shape[1]))
        self.zero_grad()

    def zero_grad(self) -> None:
        """Set the table's gradient to zero, allocating it where the table has grown."""
        if self.table.grad is None or self.table.grad.shape != self.table.shape:
            self.table.grad = torch.zeros_like(self.table)
        else:
            self.table.grad.zero_()

    @torch.no_grad()
    def join(self, words: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Take in the rows of `words` that are not in the table yet, with zero optimizer state."""
        unique = words.unique()
        new = unique[self.slots[unique] < 0]
        if not len(new):
            return
        end = self.count + len(new)
        if end > len(self.table):
            self._grow(min(max(end, 2 * len(self.table)), len(self.matrix)), optimizer)
        self.slots[new] = torch.arange(self.count, end, device=new.device)
        self.ids[self.count : end] = new
        self.table[self.count : end] = self.matrix[new]
        self.count = end

    def lookup(self, ids: Tensor) -> Tensor:
        """Return embeddings [..., width] of word ids that have joined.

        Backward touches only the rows in `ids`: they become a leaf of their own, whose gradient is added to the
        table's and freed at once.
        """
        unique, inverse = self.slots[ids].unique(return_inverse=True)
        leaf = self.table.detach()[unique].requires_grad_()

        def collect(used: Tensor) -> None:
            assert self.table.grad is not None
            assert used.grad is not None
            self.table.grad.index_add_(0, unique, used.grad)
            used.grad = None

        leaf.register_post_accumulate_grad_hook(collect)
        return functional.embedding(inverse, leaf)

    def current(self, ids: Tensor) -> Tensor:
        """Return embeddings [..., width] of any word ids without a gradient: trained rows where joined, θ elsewhere."""
        slots = self.slots[ids]
        trained = self.table.detach()[slots.clamp_min(0)]
        return torch.where((slots >= 0).unsqueeze(-1), trained, self.matrix[ids])

    @torch.no_grad()
    def pull_back(self, weight: float, block: int) -> None:
        """Add the subgradient of weight × Σ|row − θ| to the gradient, `block` rows at a time."""
        assert self.table.grad is not None
        for start in range(0, self.count, block):
            used = slice(start, min(start + block, self.count))
            self.table.grad[used].add_((self.table[used] - self.matrix[self.ids[used]]).sign_(), alpha=weight)

    def difference(self) -> tuple[Tensor, Tensor]:
        """Return the joined word ids [n] and their rows' difference from θ [n, width]."""
        ids = self.ids[: self.count]
        return ids, self.table.detach()[: self.count] - self.matrix[ids]

    def state(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Return the whole table with its ids, count and optimizer moments, for a checkpoint."""
        moments = optimizer.state[self.table]
        return {"ids": self.ids, "count": torch.tensor(self.count), "table": self.table.detach(), **moments}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Take up the table and moments of a checkpoint, in the same order, so that sums round the same."""
        device = self.matrix.device
        self.count = int(state["count"])
        self.ids = state["ids"].to(device, copy=True)
        self.slots.fill_(-1)
        self.slots[self.ids[: self.count]] = torch.arange(self.count, device=device)
        self.table.grad = None
        self.table.data = state["table"].to(device, copy=True)
        self.zero_grad()
        moments = {key: state[key] for key in state if key not in ("ids", "count", "table")}
        optimizer.state[self.table] = {key: _moment(value, device) for key, value in moments.items()}

    def _grow(self, capacity: int, optimizer: torch.optim.Optimizer) -> None:
        extra = capacity - len(self.table)
        moments = optimizer.state.get(self.table, {})
        for key, value in moments.items():
            if value.ndim:
                moments[key] = functional.pad(value, (0, 0, 0, extra))
        gradient = self.table.grad
        self.table.grad = None
        self.table.data = functional.pad(self.table.data, (0, 0, 0, extra))
        self.table.grad = None if gradient is None else functional.pad(gradient, (0, 0, 0, extra))
        self.ids = functional.pad(self.ids, (0, extra))


def _moment(value: Tensor, device: torch.device) -> Tensor:
    # The fused AdamW wants the step count of a CPU parameter on the CPU and of a GPU parameter on the GPU.
    return value.to(device, copy=True)
