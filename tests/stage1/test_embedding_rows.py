"""Growing rows against a dense embedding matrix under dense AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ltprompt.stage1.embedding_rows import GrowingRows

WORDS, WIDTH, LR = 40, 6, 1e-2
# Words by step: many join late, some in one step only, 30 to 39 never.
STEPS = [[0, 1, 1, 0], [2, 0, 0], [3, 4, 5, 6, 7], [1], [8, 9, 10, 11, 12, 13, 14, 15, 16, 17], [2], [29, 0], [18, 1]]


def matrix() -> Tensor:
    return torch.randn(WORDS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def loss(embeddings: Tensor, number: int) -> Tensor:
    goal = torch.randn(WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(number))
    return ((embeddings - goal) ** 3).sum() + (embeddings.sin().sum(0) ** 2).sum()


def adam(parameter: nn.Parameter, fused: bool) -> torch.optim.AdamW:
    return torch.optim.AdamW([parameter], lr=LR, weight_decay=0.0, fused=fused)


def dense_training() -> list[Tensor]:
    """The matrix after every step of dense AdamW over all rows."""
    embedding = nn.Embedding.from_pretrained(matrix(), freeze=False)
    optimizer = torch.optim.AdamW(embedding.parameters(), lr=LR, weight_decay=0.0, fused=False, foreach=False)
    found = []
    for number, words in enumerate(STEPS):
        optimizer.zero_grad()
        loss(embedding(torch.tensor(words)), number).backward()
        optimizer.step()
        found.append(embedding.weight.detach().clone())
    return found


def step(rows: GrowingRows, optimizer: torch.optim.Optimizer, number: int) -> None:
    words = torch.tensor(STEPS[number])
    rows.join(words, optimizer)
    rows.zero_grad()
    loss(rows.lookup(words), number).backward()
    optimizer.step()


def everything(rows: GrowingRows) -> Tensor:
    return rows.current(torch.arange(WORDS))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("capacity", [1, 3, 8, 100])
def test_growing_rows_equal_dense_adamw(capacity: int, fused: bool) -> None:
    theta = matrix()
    rows = GrowingRows(theta, capacity)
    optimizer = adam(rows.table, fused)
    for number, expected in enumerate(dense_training()):
        step(rows, optimizer, number)
        assert (everything(rows) - expected).abs().max() <= 1e-13
    joined = sorted({word for words in STEPS for word in words})
    assert rows.count == len(joined)
    assert torch.equal(theta, matrix()), "θ itself is never written"
    ids, difference = rows.difference()
    assert sorted(ids.tolist()) == joined
    assert torch.equal(difference, everything(rows)[ids] - theta[ids])
    others = sorted(set(range(WORDS)) - set(joined))
    assert torch.equal(everything(rows)[others], theta[others])


def test_rows_that_are_joined_but_not_looked_up_go_on_by_their_momentum() -> None:
    rows = GrowingRows(matrix(), 4)
    optimizer = adam(rows.table, fused=True)
    step(rows, optimizer, 0)
    before = rows.current(torch.tensor([0, 1]))
    step(rows, optimizer, 2)  # words 3 to 7 only
    assert (rows.current(torch.tensor([0, 1])) != before).all()


def test_lookups_before_a_step_add_up() -> None:
    rows = GrowingRows(matrix(), 2)
    optimizer = adam(rows.table, fused=True)
    words = torch.tensor([[5, 6, 5], [7, 5, 9]])
    rows.join(words, optimizer)
    rows.zero_grad()
    weight = matrix().requires_grad_()
    for part in words:
        loss(rows.lookup(part), 1).backward()
        loss(functional.embedding(part, weight), 1).backward()
    assert rows.table.grad is not None
    assert weight.grad is not None
    torch.testing.assert_close(rows.table.grad[: rows.count], weight.grad[rows.ids[: rows.count]], rtol=1e-13, atol=0)
    assert not rows.table.grad[rows.count :].any()
    rows.zero_grad()
    assert not rows.table.grad.any()


def test_lookup_keeps_the_shape_and_current_takes_any_word() -> None:
    rows = GrowingRows(matrix(), 2)
    optimizer = adam(rows.table, fused=True)
    ids = torch.tensor([[3, 4], [4, 30]])
    assert torch.equal(rows.current(ids), matrix()[ids])
    rows.join(ids, optimizer)
    assert rows.count == 3
    assert torch.equal(rows.lookup(ids), matrix()[ids])
    rows.join(ids, optimizer)
    assert rows.count == 3, "a word joins once"


@pytest.mark.parametrize("after", [2, 4, 6])
def test_a_saved_table_goes_on_bit_for_bit(after: int) -> None:
    rows = GrowingRows(matrix(), 3)
    optimizer = adam(rows.table, fused=True)
    for number in range(after):
        step(rows, optimizer, number)
    saved = {key: value.clone() for key, value in rows.state(optimizer).items()}
    again = GrowingRows(matrix(), 64)  # another capacity than the saved one
    resumed = adam(again.table, fused=True)
    again.load(saved, resumed)
    for number in range(after, len(STEPS)):
        step(rows, optimizer, number)
        step(again, resumed, number)
    assert torch.equal(everything(again), everything(rows))
    assert torch.equal(again.ids[: again.count], rows.ids[: rows.count])
