from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from helpers.stage2 import (
    DISCRETE,
    MIXED,
    SEED,
    Toy,
    assert_equal,
    ltp_recipe,
    plain_training,
    random_ticket,
    sp_recipe,
    train_method,
)
from helpers.toys import KINDS
from torch import nn

from ltprompt.errors import InputError
from ltprompt.stage2.fit import fit
from ltprompt.stage2.methods import METHODS, choose_method, find_method, resolved_rank
from ltprompt.stage2.weights import build_optimizer, trained_tensors


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


@pytest.mark.parametrize("name", ["dp", "mp"])
def test_dp_and_mp_are_optimised_as_sp(name: str) -> None:
    assert find_method(name).recipe == find_method("sp").recipe


@pytest.mark.parametrize("name", ["bitfit", "lora", "shira", "super-tuning"])
def test_the_modern_rivals_share_the_paper_s_recipe_but_the_rate(name: str) -> None:
    assert dataclasses.replace(find_method(name).recipe, lr=2e-5) == find_method("ltp").recipe


def everything(toy: Toy, prompt: nn.Module | None, names: set[str], kind: str) -> dict[str, torch.Tensor]:
    """The parameters after training those named, plainly: Adam with L2 or AdamW without decay."""
    norms = {f"{n}.weight" for n, m in toy.backbone.model.named_modules() if isinstance(m, nn.LayerNorm)}

    def optimizer(trained: dict[str, nn.Parameter], beside: nn.Module) -> torch.optim.Optimizer:
        named = trained | {f"prompt.{n}": p for n, p in beside.named_parameters()}
        if kind == "adamw":
            return torch.optim.AdamW([*named.values()], lr=1e-3, weight_decay=0.0, foreach=False, fused=False)
        groups = [{"params": [p], "weight_decay": 0.0 if "bias" in n or n in norms else 0.01} for n, p in named.items()]
        return torch.optim.Adam(groups, lr=1e-3, foreach=False, fused=False)

    masks = {name: torch.ones_like(toy.theta[name]) for name in names}
    recipe = sp_recipe() if kind == "adam" else ltp_recipe()
    plain = plain_training(toy, recipe, masks, optimizer, decouple=False, prompt=prompt)
    assert len(plain.norms) == 20
    return plain.state | {f"prompt.{n}": p for n, p in plain.prompt.state_dict().items()}


class NoPrompt(nn.Module):
    def forward(self) -> torch.Tensor:
        return torch.empty(0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_dp_trains_everything_and_no_prompt(kind: str, tied: bool) -> None:
    toy = Toy.of(kind, parts=DISCRETE, tied=tied)
    assert all((example.ids >= 0).all() for example in toy.train.examples)
    found = train_method(toy, "dp", sp_recipe(), None)
    assert_equal(found.state, everything(toy, NoPrompt(), set(toy.theta), "adam"), 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_mp_trains_everything_and_a_prompt_between_words(kind: str) -> None:
    toy = Toy.of(kind, parts=MIXED)
    found = train_method(toy, "mp", sp_recipe(), toy.prompt())
    state = found.state | {f"prompt.{n}": p for n, p in found.prompt.state_dict().items()}
    assert_equal(state, everything(toy, toy.prompt(), set(toy.theta), "adam"), 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_bitfit_trains_the_encoder_s_biases_alone(kind: str) -> None:
    toy = Toy.of(kind)
    prefix = toy.backbone.model.base_model_prefix
    biases = {name for name in toy.theta if name.startswith(f"{prefix}.") and name.endswith("bias")}
    assert len(biases) == 2 * 8 + 1, "six linear layers and two norms a layer, and the embeddings' norm"
    found = train_method(toy, "bitfit", ltp_recipe(), toy.prompt())
    assert found.changes.keys() == biases
    state = found.state | {f"prompt.{n}": p for n, p in found.prompt.state_dict().items()}
    assert_equal(state, everything(toy, toy.prompt(), biases, "adamw"), 1e-10)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [("ltp", None, None), ("lora", None, 8), ("lora", 4.0, 4), ("shira", None, 32), ("super-tuning", 0.5, 0.5)],
)
def test_the_size_is_the_user_s_or_the_method_s(name: str, given: float | None, expected: float | None) -> None:
    assert resolved_rank(find_method(name), given) == expected


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("sp", 8.0, "'sp' takes no `size`"),
        ("lora", 2.5, "`size` 2.5 does not suit method 'lora'; give a rank, a whole number from 1, such as 8"),
        ("super-tuning", 8.0, "give a sparsity between 0 and 1, such as 0.99"),
    ],
)
def test_a_size_that_makes_no_sense_is_refused(name: str, given: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolved_rank(find_method(name), given)


def test_what_each_method_trains() -> None:
    found = {name: (method.name, method.template, method.trains) for name, method in METHODS.items()}
    assert found["ltp"] == ("ltp", "soft", "ticket")
    assert found["prompt-only"] == ("prompt-only", "soft", "nothing")
    assert found["sp"] == ("sp", "soft", "everything")
    assert found["dp"] == ("dp", "discrete", "everything")
    assert found["mp"] == ("mp", "mixed", "everything")
    assert found["ft"] == ("ft", "plain", "encoder")


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown method 'ltpp': did you mean 'ltp'.*prompt-only"):
        find_method("ltpp")


@pytest.mark.parametrize("name", METHODS)
def test_a_pair_that_has_a_name_is_called_by_it(name: str) -> None:
    template, trains = METHODS[name].template, METHODS[name].trains
    assert choose_method(None, template, trains) == choose_method(name) == find_method(f"{template}+{trains}")
    assert choose_method(name, template, trains).name == name


def test_another_pair_takes_the_recipe_of_what_it_trains() -> None:
    assert find_method("discrete+ticket").name == "discrete+ticket"
    assert find_method("discrete+ticket").recipe == METHODS["ltp"].recipe
    assert find_method("plain+everything").recipe == METHODS["sp"].recipe
    assert (find_method("mixed+lora").recipe, find_method("mixed+lora").rank) == (METHODS["lora"].recipe, 8)


def test_an_axis_that_is_not_given_is_that_of_ltp() -> None:
    assert choose_method().name == "ltp"
    assert choose_method(template="mixed").name == "mixed+ticket"
    assert choose_method(trains="lora").name == "lora"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"method": "sp", "template": "mixed"},
            "has template 'soft', not 'mixed'; leave out `method` or `template`",
        ),
        (
            {"method": "ltp", "trains": "nothing"},
            "has trains 'ticket', not 'nothing'; leave out `method` or `trains`",
        ),
        ({"template": "discrete", "trains": "nothing"}, "nothing to train"),
        ({"template": "sofd"}, "unknown template 'sofd': did you mean 'soft'?"),
        ({"trains": "tickets"}, "unknown trains 'tickets': did you mean 'ticket'?"),
        ({"method": "discrete+tickets"}, "unknown trains 'tickets'"),
    ],
)
def test_axes_that_contradict_or_train_nothing_are_refused(given: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        choose_method(**given)


@pytest.mark.parametrize(
    ("trains", "rank"),
    [
        ("ticket", None),
        ("nothing", None),
        ("biases", None),
        ("everything", None),
        ("lora", 2),
        ("shira", 3),
        ("super-tuning", 0.5),
    ],
)
def test_a_classifier_on_a_token_trains_with_whatever_trains(trains: str, rank: float | None) -> None:
    toy = Toy.of("xlm-roberta", double=False, parts=None)
    ticket = random_ticket(toy.backbone, 0.2) if trains == "ticket" else None
    fitted = fit(
        toy.reader, toy.train, None, trains=trains, recipe=ltp_recipe(epochs=8, lr=5e-3, prompt_lr=5e-3), ticket=ticket,
        rank=rank, seed=SEED,
    )  # fmt: skip
    assert fitted.tuned.epochs[-1].loss < fitted.tuned.epochs[0].loss
    assert bool(fitted.changes) == (trains != "nothing")
    assert fitted.folded is not None
    assert all(torch.equal(p, toy.theta[name]) for name, p in toy.backbone.parameters.items())


def test_an_empty_ticket_with_a_discrete_template_has_nothing_to_train() -> None:
    toy = Toy.of("bert", double=False, parts=DISCRETE)
    with pytest.raises(InputError, match="nothing would train: the ticket is empty"):
        fit(
            toy.reader, toy.train, None, trains="ticket", recipe=ltp_recipe(), ticket=random_ticket(toy.backbone, 0.0),
            rank=None, seed=SEED,
        )  # fmt: skip


def test_adamw_for_a_ticket_never_decays() -> None:
    toy = Toy.of("bert", double=False)
    weights, prompt = toy.packed(random_ticket(toy.backbone, 0.2)), toy.prompt()
    recipe = dataclasses.replace(METHODS["ltp"].recipe, prompt_lr=1e-3)
    optimizer = build_optimizer(recipe, weights, prompt, toy.backbone.norms)
    weights.close()
    assert type(optimizer) is torch.optim.AdamW
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates == {id(weights.flat): 2e-5} | {id(p): 1e-3 for p in prompt.parameters()}
    assert all(group["weight_decay"] == 0 for group in optimizer.param_groups)


@pytest.mark.parametrize("kind", KINDS)
def test_adam_for_sp_decays_all_but_biases_and_norms(kind: str) -> None:
    toy = Toy.of(kind, double=False)
    weights, prompt = toy.dense(), toy.prompt()
    optimizer = build_optimizer(METHODS["sp"].recipe, weights, prompt, toy.backbone.norms)
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
    found = trained_tensors(build_optimizer(METHODS["prompt-only"].recipe, weights, prompt, toy.backbone.norms))
    weights.close()
    assert {id(p) for p in found} == {id(p) for p in prompt.parameters()}
    assert len(found) == len(list(prompt.parameters()))
