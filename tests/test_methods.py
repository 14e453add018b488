from __future__ import annotations

import dataclasses

import pytest
import torch
from stage2 import Toy, random_ticket
from toys import KINDS

from ltprompt.errors import InputError
from ltprompt.methods import METHODS, build_optimizer, find_method, trained_tensors


@pytest.mark.parametrize("name", ["ltp", "prompt-only"])
def test_ltp_and_prompt_only_are_optimised_as_in_the_paper(name: str) -> None:
    recipe = find_method(name).recipe
    assert (recipe.optimizer, recipe.lr, recipe.prompt_lr) == ("adamw", 2e-5, 2e-5)
    assert (recipe.batch_size, recipe.epochs) == (32, 70)
    assert (recipe.weight_decay, recipe.clip, recipe.schedule) == (0.0, 1.0, "constant")


def test_sp_is_optimised_as_published() -> None:
    recipe = find_method("sp").recipe
    assert (recipe.optimizer, recipe.lr, recipe.prompt_lr) == ("adam", 1e-5, 1e-5)
    assert (recipe.batch_size, recipe.epochs) == (12, 50)
    assert (recipe.weight_decay, recipe.clip, recipe.schedule) == (0.01, 1.0, "constant")


def test_what_each_method_trains() -> None:
    found = {name: (method.name, method.style, method.trains) for name, method in METHODS.items()}
    assert found["ltp"] == ("ltp", "soft", "ticket")
    assert found["prompt-only"] == ("prompt-only", "soft", "nothing")
    assert found["sp"] == ("sp", "soft", "everything")


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown method 'ltpp': did you mean 'ltp'.*prompt-only"):
        find_method("ltpp")


def test_adamw_for_a_ticket_never_decays() -> None:
    toy = Toy.of("bert", double=False)
    weights, prompt = toy.packed(random_ticket(toy.backbone, 0.2)), toy.prompt()
    recipe = dataclasses.replace(METHODS["ltp"].recipe, prompt_lr=1e-3)
    optimizer = build_optimizer(recipe, weights, prompt)
    weights.close()
    assert type(optimizer) is torch.optim.AdamW
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates == {id(weights.flat): 2e-5} | {id(p): 1e-3 for p in prompt.parameters()}
    assert all(group["weight_decay"] == 0 for group in optimizer.param_groups)


@pytest.mark.parametrize("kind", KINDS)
def test_adam_for_sp_decays_all_but_biases_and_norms(kind: str) -> None:
    toy = Toy.of(kind, double=False)
    weights, prompt = toy.dense(), toy.prompt()
    optimizer = build_optimizer(METHODS["sp"].recipe, weights, prompt)
    weights.close()
    assert type(optimizer) is torch.optim.Adam
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(toy.backbone.model.named_parameters()) | dict(prompt.named_parameters())
    assert decays.keys() == {id(p) for p in named.values()}
    for name, parameter in named.items():
        plain = "bias" in name or "layernorm" in name.lower().replace("_", "")
        assert decays[id(parameter)] == (0.0 if plain else 0.01), name


def test_prompt_only_trains_the_prompt_alone() -> None:
    toy = Toy.of("bert", double=False)
    weights, prompt = toy.packed(None), toy.prompt()
    found = trained_tensors(build_optimizer(METHODS["prompt-only"].recipe, weights, prompt))
    weights.close()
    assert {id(p) for p in found} == {id(p) for p in prompt.parameters()}
    assert len(found) == len(list(prompt.parameters()))
