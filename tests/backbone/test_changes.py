from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ltprompt.backbone.changes import Change, changed

BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
TINY = 2.0**-149  # the smallest denormal of fp32
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def bits(tensor: Tensor) -> list[int]:
    return tensor.reshape(-1).view(BITS[tensor.dtype]).tolist()


def awkward(dtype: torch.dtype) -> Tensor:
    smallest = TINY if dtype == torch.float32 else 5e-324
    values = [0.0, -0.0, smallest, -smallest, 3 * smallest, 1.0, 0.1, -1e30, 3.4e38]
    return torch.tensor(values, dtype=dtype).reshape(3, 3)


def exchange(change: Change, tensor: Tensor) -> Change:
    """Write a change and return the one that undoes it."""
    undo = change.standing(tensor)
    change.write(tensor)
    return undo


@each_dtype
def test_exchanging_twice_is_the_identity_bit_for_bit(dtype: torch.dtype) -> None:
    tensor = awkward(dtype)
    index, values = torch.tensor([0, 1, 2, 3, 6, 8], dtype=torch.int32), awkward(dtype).reshape(-1)[[1, 0, 3, 4, 2, 7]]
    change = Change("w", index, values)
    for _ in range(3):
        undo = exchange(change, tensor)
        expected = bits(awkward(dtype))
        for place, bit in zip(index.tolist(), bits(values), strict=True):
            expected[place] = bit
        assert bits(tensor) == expected
        assert bits(undo.values) == [bits(awkward(dtype))[place] for place in index.tolist()]
        redo = exchange(undo, tensor)
        assert bits(tensor) == bits(awkward(dtype))
        assert bits(redo.values) == bits(values)
        assert (redo.name, redo.index.tolist()) == ("w", index.tolist())


def test_a_change_is_written_into_a_trainable_tensor() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    Change("w", torch.tensor([3]), torch.tensor([2.0])).write(parameter)
    assert parameter.tolist() == [[0, 0], [0, 2]]
    assert parameter.grad_fn is None


@each_dtype
def test_changed_finds_every_entry_whose_bits_differ(dtype: torch.dtype) -> None:
    old = awkward(dtype).reshape(-1)
    new = old.clone()
    new[0], new[1], new[2], new[6] = -0.0, 0.0, 0.0, torch.nextafter(old[6], old[5])
    index = torch.arange(10, 19)
    change = changed("w", old, new, index)
    assert change is not None
    assert change.name == "w"
    assert change.index.tolist() == [10, 11, 12, 16]
    assert change.index.dtype == torch.int32
    assert bits(change.values) == bits(new[[0, 1, 2, 6]])


@each_dtype
def test_changed_is_none_where_nothing_differs(dtype: torch.dtype) -> None:
    assert changed("w", awkward(dtype).reshape(-1), awkward(dtype).reshape(-1), torch.arange(9)) is None
    assert changed("w", torch.empty(0, dtype=dtype), torch.empty(0, dtype=dtype), torch.arange(0)) is None


@each_dtype
def test_what_changed_finds_turns_old_into_new(dtype: torch.dtype) -> None:
    old = awkward(dtype)
    new = old.flip(0).contiguous()
    change = changed("w", old.reshape(-1), new.reshape(-1), torch.arange(9))
    assert change is not None
    undo = exchange(change, old)
    assert bits(old) == bits(new)
    undo.write(old)
    assert bits(old) == bits(awkward(dtype))
