from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers.stage2 import (
    CPU,
    Toy,
    Trained,
    label_logits,
    labelled,
    ltp_recipe,
    plain_ltp,
    plain_pieces,
    plain_sp,
    random_ticket,
    sp_recipe,
    texts,
    theta_of,
    train,
)
from helpers.toys import KINDS, toy_backbone

from ltprompt.classifier import PromptClassifier
from ltprompt.errors import TrainingError
from ltprompt.stage2 import training
from ltprompt.stage2.methods import Recipe
from ltprompt.stage2.readout import fold
from ltprompt.stage2.training import Epoch

each_kind = pytest.mark.parametrize("kind", KINDS)
RATES = ltp_recipe().lr


def tuned(recipe: Recipe, method: str = "ltp", dev: bool = False, **options: object) -> Trained:
    toy = Toy.of("xlm-roberta", double=False, **options)
    weights = toy.dense() if method == "sp" else toy.packed(random_ticket(toy.backbone, 0.3))
    return train(toy, weights, recipe, dev=labelled(toy.template, 12, seed=9) if dev else None)


def assert_left_the_same(first: Trained, second: Trained) -> None:
    for one, two in ((first.state, second.state), (first.prompt.state_dict(), second.prompt.state_dict())):
        assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def moves(first: Trained, second: Trained) -> bool:
    return any((tensor != second.state[name]).any() for name, tensor in first.state.items())


def script(monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> None:
    """Let the epochs have these dev accuracies."""
    left: Iterator[float] = iter(accuracies)
    monkeypatch.setattr(training.Learner, "accuracy", lambda *_: next(left))


@pytest.mark.parametrize("method", ["ltp", "sp"])
@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.3, 0.6, 0.6, 0.5], 2), ([0.5, 0.5, 0.5, 0.5], 1), ([0.1, 0.2, 0.2, 0.3], 4), ([0.0, 0.0, 0.0, 0.0], 1)],
)
def test_the_best_epoch_is_left_the_earliest_of_equals(
    monkeypatch: pytest.MonkeyPatch, method: str, accuracies: list[float], best: int
) -> None:
    make = {"ltp": ltp_recipe, "sp": sp_recipe}[method]
    script(monkeypatch, accuracies)
    found = tuned(make(epochs=4), method, dev=True, dropout=0.2)
    stopped = tuned(make(epochs=best), method, dropout=0.2)
    assert found.kept == best
    assert [epoch.dev_accuracy for epoch in found.epochs] == accuracies
    assert_left_the_same(found, stopped)
    if best < 4:
        assert moves(found, tuned(make(epochs=4), method, dropout=0.2)), "the last epoch must differ from the best"


def test_without_a_dev_set_the_last_epoch_is_left() -> None:
    found = tuned(ltp_recipe(epochs=3))
    assert found.kept == 3
    assert [epoch.number for epoch in found.epochs] == [1, 2, 3]
    assert [epoch.dev_accuracy for epoch in found.epochs] == [None] * 3


@each_kind
@pytest.mark.parametrize("strategy", ["decoupled", "tied"])
def test_dev_accuracy_is_that_of_the_stock_model(kind: str, strategy: str) -> None:
    toy = Toy.of(kind, double=False)
    recipe = ltp_recipe(epochs=1, lr=0.02, prompt_lr=0.02)
    dev = labelled(toy.template, 60, seed=9)
    dev.examples[0].ids[1] = toy.backbone.tokenizer.convert_tokens_to_ids("w")  # a word that training did not see
    ticket = random_ticket(toy.backbone, 0.3, strategy)
    found = train(toy, toy.packed(ticket), recipe, dev=dev)
    plain = plain_ltp(toy, recipe, ticket)
    pieces, pad_id = plain_pieces(toy.backbone.tokenizer), toy.backbone.tokenizer.pad_token_id
    with torch.no_grad():
        logits = label_logits(plain.model.eval(), fold(plain.prompt), dev.examples, pieces, pad_id)
    assert found.epochs[0].dev_accuracy == pytest.approx((logits.argmax(1).numpy() == dev.labels).mean())


def test_evaluating_does_not_change_the_training() -> None:
    with_dev = tuned(ltp_recipe(epochs=3), dev=True, dropout=0.2)
    assert_left_the_same(with_dev, tuned(ltp_recipe(epochs=with_dev.kept), dropout=0.2))


def test_the_linear_schedule_falls_to_zero_over_all_steps() -> None:
    found = tuned(ltp_recipe(epochs=5, schedule="linear", prompt_lr=2 * RATES))
    assert len(found.rates) == 20
    for step, (rate, prompt_rate, *_) in enumerate(found.rates):
        assert rate == pytest.approx(RATES * (20 - step) / 20)
        assert prompt_rate == pytest.approx(2 * RATES * (20 - step) / 20)


def test_the_constant_schedule_stays() -> None:
    found = tuned(ltp_recipe(epochs=2, prompt_lr=2 * RATES))
    assert {tuple(rates) for rates in found.rates} == {(RATES, 2 * RATES, 2 * RATES)}


@pytest.mark.parametrize("method", ["ltp", "sp"])
def test_the_reported_loss_is_the_mean_over_the_epoch(method: str) -> None:
    toy = Toy.of("bert")
    ticket = random_ticket(toy.backbone, 0.3)
    if method == "sp":
        found, plain = train(toy, toy.dense(), sp_recipe()), plain_sp(toy, sp_recipe())
    else:
        found, plain = train(toy, toy.packed(ticket), ltp_recipe()), plain_ltp(toy, ltp_recipe(), ticket)
    for epoch in found.epochs:
        expected = np.mean(plain.losses[4 * (epoch.number - 1) : 4 * epoch.number])
        assert epoch.loss == pytest.approx(expected, rel=1e-10)


def test_every_epoch_is_heard_of_when_it_ends() -> None:
    toy, heard = Toy.of("bert", double=False), list[Epoch]()
    found = train(toy, toy.packed(None), ltp_recipe(epochs=3), on_epoch=heard.append)
    assert heard == found.epochs


def test_dropout_depends_on_the_seed_alone_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = tuned(ltp_recipe(epochs=1), dropout=0.3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert_left_the_same(first, tuned(ltp_recipe(epochs=1), dropout=0.3))


def test_dropout_is_active_while_training() -> None:
    assert moves(tuned(ltp_recipe(epochs=1), dropout=0.3), tuned(ltp_recipe(epochs=1), dropout=0.0))


@pytest.mark.parametrize("method", ["ltp", "sp"])
def test_a_loss_that_is_not_finite_stops_with_step_and_mend(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    toy = Toy.of("bert", double=False)
    weights = toy.dense() if method == "sp" else toy.packed(random_ticket(toy.backbone, 0.3))
    taken: list[int] = []
    done = weights.step_done
    monkeypatch.setattr(weights, "step_done", lambda: (taken.append(1), done()))
    recipe = {"ltp": ltp_recipe, "sp": sp_recipe}[method](lr=1e30, prompt_lr=0.125)
    message = r"loss became nan at step 2;.*Lower `lr` \(now 1e\+30\) or `prompt_lr` \(now 0\.125\).*`dtype` fp32"
    with pytest.raises(TrainingError, match=message):
        train(toy, weights, recipe)
    assert len(taken) == 1, "no step may be taken on a loss that is not finite"
    assert all(torch.equal(tensor, toy.theta[name]) for name, tensor in theta_of(toy.backbone).items())


@pytest.mark.parametrize("method", ["ltp", "sp"])
def test_a_last_step_that_overflows_is_noticed_too(method: str) -> None:
    with pytest.raises(
        TrainingError, match=r"trained values became infinite at step 1; nothing was written\. Lower `lr`"
    ):
        tuned({"ltp": ltp_recipe, "sp": sp_recipe}[method](lr=1e39, epochs=1), method, examples=8)


@pytest.mark.parametrize("method", ["ltp", "prompt-only", "sp"])
def test_the_backbone_is_as_pretrained_whatever_happens_while_fitting(method: str) -> None:
    backbone = toy_backbone("bert", layers=2)
    theta = theta_of(backbone)
    ticket = random_ticket(backbone, 0.3) if method == "ltp" else None
    rows = [
        {"premise": premise, "hypothesis": hypothesis, "label": ("entailment", "neutral", "contradiction")[number % 3]}
        for number, (premise, hypothesis) in enumerate(texts(9))
    ]

    def classifier() -> PromptClassifier:
        return PromptClassifier(backbone, "xnli", method, ticket, compute=CPU, max_length=48, epochs=2, lr=1e-3)

    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classifier().fit(rows, on_epoch=stop)
    for _ in range(2):
        assert all(torch.equal(tensor, theta[name]) for name, tensor in theta_of(backbone).items())
        assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters.values())
        classifier().fit(rows)
