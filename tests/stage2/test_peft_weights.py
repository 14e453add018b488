"""PEFT's adapters against the same arithmetic written plainly on dense matrices."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.stage2 import Plain, Toy, assert_equal, ltp_recipe, plain_training, theta_of, train_method
from helpers.toys import KINDS
from torch import Tensor, nn
from torch.nn import functional

from ltprompt.errors import InputError
from ltprompt.stage2.peft_weights import PeftWeights, linear_layers

pytest.importorskip("peft")
each_kind = pytest.mark.parametrize("kind", KINDS)
SIZES = {"lora": 2, "shira": 3, "super-tuning": 0.9}
each_rival = pytest.mark.parametrize("name", SIZES)


class Shifted(nn.Module):
    """A linear layer with a trained difference added to its frozen matrix."""

    def __init__(self, layer: nn.Linear, parts: list[Tensor], difference: Callable[..., Tensor]) -> None:
        super().__init__()
        self.layer, self.difference = layer, difference
        self.parts = nn.ParameterList([nn.Parameter(part.clone()) for part in parts])

    def matrix(self) -> Tensor:
        return self.layer.weight + self.difference(*self.parts)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.matrix(), self.layer.bias)


def start_of(toy: Toy, name: str) -> dict[str, list[Tensor]]:
    """The adapter's values before training, by the name of the linear layer."""
    weights = PeftWeights(toy.backbone, name, SIZES[name], toy.reader.readout.label_ids, seed=3)
    found: dict[str, list[Tensor]] = {}
    for path, module in toy.backbone.base.named_modules():
        if hasattr(module, "lora_A"):
            found[path] = [module.lora_A["default"].weight.clone(), module.lora_B["default"].weight.clone()]
        elif hasattr(module, "shira_indices"):
            found[path] = [module.shira_weight["default"].clone(), module.shira_indices["default"]]
    weights.close()
    return found


def difference_of(name: str, start: list[Tensor] | None, matrix: Tensor) -> tuple[list[Tensor], Callable[..., Tensor]]:
    """What is trained of a layer, and the difference it makes to the matrix."""
    if name == "lora":
        assert start is not None
        assert start[0].any()
        assert not start[1].any()
        return start, lambda a, b: 2.0 * (b @ a)  # alpha over rank is 2
    if name == "shira":
        assert start is not None
        places = start[1][0].long() * matrix.shape[1] + start[1][1]
    else:
        places = matrix.abs().flatten().argsort(descending=True)[: int(matrix.numel() * (1 - 0.9))]

    def scattered(values: Tensor) -> Tensor:
        return torch.zeros(matrix.numel(), dtype=matrix.dtype).index_put((places,), values).view_as(matrix)

    return [torch.zeros(len(places), dtype=matrix.dtype)], scattered


def plainly(toy: Toy, name: str) -> tuple[Plain, dict[str, Shifted]]:
    start, shifted = start_of(toy, name), {}

    def surgery(model: Any) -> dict[str, nn.Parameter]:
        prefix = model.base_model_prefix
        for path in linear_layers(toy.backbone):
            parent, _, last = path.rpartition(".")
            owner = model.get_submodule(f"{prefix}.{parent}")
            layer = getattr(owner, last)
            shifted[f"{prefix}.{path}.weight"] = Shifted(layer, *difference_of(name, start.get(path), layer.weight))
            setattr(owner, last, shifted[f"{prefix}.{path}.weight"])
        return {f"{n}.{i}": part for n, module in shifted.items() for i, part in enumerate(module.parts)}

    def adamw(trained: dict[str, nn.Parameter], prompt: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            [*trained.values(), *prompt.parameters()], lr=1e-3, weight_decay=0.0, foreach=False, fused=False
        )

    return plain_training(toy, ltp_recipe(), {}, adamw, decouple=True, surgery=surgery), shifted


@each_kind
@each_rival
def test_twenty_steps_are_those_of_a_dense_difference(kind: str, name: str) -> None:
    toy = Toy.of(kind)
    found = train_method(toy, name, ltp_recipe(), toy.prompt(), rank=SIZES[name])
    plain, shifted = plainly(toy, name)
    assert len(plain.norms) == 20
    assert found.changes.keys() == shifted.keys()
    assert len(shifted) >= 12, "query, key, value, two outputs and the intermediate of two layers"
    with torch.no_grad():
        expected = toy.theta | {n: module.matrix() for n, module in shifted.items()}
    assert_equal(found.state, expected, 1e-10)
    assert_equal(found.prompt.state_dict(), plain.prompt.state_dict(), 1e-10)


@each_kind
@each_rival
def test_only_matrices_of_linear_layers_move_and_the_model_is_as_it_was(kind: str, name: str) -> None:
    toy = Toy.of(kind, double=False)
    before = [(path, type(module)) for path, module in toy.backbone.model.named_modules()]
    found = train_method(toy, name, ltp_recipe(epochs=1), toy.prompt(), rank=SIZES[name])
    prefix = toy.backbone.model.base_model_prefix
    assert set(found.changes) == {f"{prefix}.{path}.weight" for path in linear_layers(toy.backbone)}
    assert [(path, type(module)) for path, module in toy.backbone.model.named_modules()] == before
    for path, tensor in theta_of(toy.backbone).items():
        assert torch.equal(tensor.view(torch.int32), toy.theta[path].view(torch.int32)), path
    again = train_method(toy, name, ltp_recipe(epochs=1), toy.prompt(), rank=SIZES[name])
    assert_equal(again.state, found.state, 0.0)


def test_entries_outside_a_sparse_mask_do_not_move() -> None:
    toy = Toy.of("xlm-roberta", double=False)
    found = train_method(toy, "shira", ltp_recipe(epochs=2), toy.prompt(), rank=3)
    for name, change in found.changes.items():
        assert len(change.index) <= 3 * sum(toy.theta[name].shape)


def test_a_rank_that_does_not_fit_is_refused() -> None:
    toy = Toy.of("bert", double=False)
    with pytest.raises(InputError, match="shira of size 5000 does not fit this backbone"):
        PeftWeights(toy.backbone, "shira", 5000, toy.reader.readout.label_ids, seed=0)
    assert not any("shira" in type(module).__module__ for module in toy.backbone.base.modules())


def test_without_the_library_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "peft":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    toy = Toy.of("bert", double=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"needs the peft library: pip install peft$"):
        PeftWeights(toy.backbone, "lora", 8, toy.reader.readout.label_ids, seed=0)
