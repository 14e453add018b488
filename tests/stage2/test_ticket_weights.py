from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from helpers.stage2 import (
    Plain,
    Toy,
    Trained,
    assert_equal,
    batches,
    ltp_recipe,
    plain_ltp,
    random_ticket,
    theta_of,
    train,
)
from helpers.toys import KINDS
from torch import Tensor

from ltprompt.backbone.model import Backbone
from ltprompt.packing.batching import TRAINING_TOKENS
from ltprompt.packing.sequences import Sequences
from ltprompt.stage2 import training
from ltprompt.tickets.ticket import Ticket

# Whether the backbone ties its embeddings, and the strategy that found the ticket.
PAIRS = [(True, "decoupled"), (True, "tied"), (True, "frozen-embeddings"), (False, "decoupled")]
EXACT = 1e-10
each_pair = pytest.mark.parametrize(("tied", "strategy"), PAIRS)
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def small_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that toy batches fall into several."""
    monkeypatch.setitem(TRAINING_TOKENS, "fp32", 64)


def both_ways(toy: Toy, ticket: Ticket | None, clip: float = 0.05) -> tuple[Trained, Plain]:
    recipe = ltp_recipe(clip=clip)
    return train(toy, toy.packed(ticket), recipe), plain_ltp(toy, recipe, ticket)


def assert_same(found: Trained, plain: Plain, tolerance: float, key_bias: float | None = None) -> None:
    assert len(plain.norms) == 20
    assert_equal(found.state, plain.state, tolerance, key_bias=key_bias)
    assert_equal(found.prompt.state_dict(), plain.prompt.state_dict(), tolerance)


@cache
def trained_once(kind: str, tied: bool, strategy: str) -> tuple[Toy, Ticket, Trained]:
    """A training in single precision that several tests look at."""
    toy = Toy.of(kind, tied=tied, double=False)
    ticket = random_ticket(toy.backbone, 0.3, strategy)
    return toy, ticket, train(toy, toy.packed(ticket), ltp_recipe())


def same_bits(a: Tensor, b: Tensor) -> bool:
    bits = {torch.float32: torch.int32, torch.float64: torch.int64}[a.dtype]
    return torch.equal(a.view(bits), b.view(bits))


@each_kind
@each_pair
def test_a_ticket_trains_as_a_whole_model_under_a_mask(kind: str, tied: bool, strategy: str) -> None:
    toy = Toy.of(kind, tied=tied)
    found, plain = both_ways(toy, random_ticket(toy.backbone, 0.3, strategy))
    assert min(plain.norms) > 0.05, "clipping must be active"
    assert_same(found, plain, EXACT)


@each_kind
def test_the_same_without_clipping(kind: str) -> None:
    toy = Toy.of(kind)
    found, plain = both_ways(toy, random_ticket(toy.backbone, 0.3), clip=100.0)
    assert max(plain.norms) < 100.0
    assert_same(found, plain, EXACT)


@each_kind
@pytest.mark.parametrize("strategy", ["decoupled", "tied"])
def test_the_same_in_single_precision(kind: str, strategy: str) -> None:
    toy = Toy.of(kind, double=False)
    found, plain = both_ways(toy, random_ticket(toy.backbone, 0.3, strategy))
    # Adam makes steps of the rounding in a key bias's gradient: allow the length of one step (rate 1e-3) of the twenty.
    assert_same(found, plain, 1e-6, key_bias=1e-3)


@each_kind
@pytest.mark.parametrize("strategy", ["decoupled", "tied"])
def test_ratio_1_is_tuning_of_prompt_and_all_eligible_parameters(kind: str, strategy: str) -> None:
    toy = Toy.of(kind)
    ticket = random_ticket(toy.backbone, 1.0, strategy)
    assert all(ticket.mask(p.name).all() for p in toy.backbone.eligible)
    assert_same(*both_ways(toy, ticket), EXACT)


@each_kind
@pytest.mark.parametrize("strategy", ["decoupled", "tied"])
def test_ratio_0_is_prompt_only(kind: str, strategy: str) -> None:
    toy = Toy.of(kind, double=False)
    empty = train(toy, toy.packed(random_ticket(toy.backbone, 0.0, strategy)), ltp_recipe())
    alone = train(toy, toy.packed(None), ltp_recipe())
    assert not empty.changes
    assert not alone.changes
    for name, tensor in alone.prompt.state_dict().items():
        assert same_bits(tensor, empty.prompt.state_dict()[name])


@each_kind
def test_prompt_only_is_a_prompt_on_a_frozen_model(kind: str) -> None:
    toy = Toy.of(kind)
    found, plain = both_ways(toy, None)
    assert_same(found, plain, EXACT)
    start = toy.prompt().state_dict()
    assert all((tensor != start[name]).any() for name, tensor in found.prompt.state_dict().items())


@each_kind
def test_padded_as_on_a_gpu_it_is_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backbone, "packs", False)
    monkeypatch.setattr(training, "PADDED_TOKENS", 64)
    toy = Toy.of(kind)
    found, plain = both_ways(toy, random_ticket(toy.backbone, 0.3))
    assert_same(found, plain, EXACT)


@each_kind
def test_the_batches_of_these_tests_fall_into_micro_batches(kind: str) -> None:
    toy = Toy.of(kind)
    for batch in list(batches(len(toy.train), ltp_recipe()))[:3]:
        assert len(toy.reader.micro_batches([toy.train.examples[i] for i in batch], TRAINING_TOKENS["fp32"])) > 1


@each_kind
@each_pair
def test_nothing_outside_the_ticket_moves(kind: str, tied: bool, strategy: str) -> None:
    toy, ticket, found = trained_once(kind, tied, strategy)
    eligible = {p.name for p in ticket.parameters}
    for name, tensor in found.state.items():
        outside = ~ticket.mask(name) if name in eligible else torch.ones_like(tensor, dtype=torch.bool)
        assert same_bits(tensor[outside], toy.theta[name][outside]), name


@each_kind
@each_pair
def test_the_tickets_entries_do_move(kind: str, tied: bool, strategy: str) -> None:
    toy, ticket, found = trained_once(kind, tied, strategy)
    for parameter in ticket.parameters:
        moved = found.state[parameter.name] != toy.theta[parameter.name]
        if parameter.layer > 0 and not parameter.name.endswith("key.bias"):
            assert torch.equal(moved, ticket.mask(parameter.name)), parameter.name
        elif parameter.layer == 0:
            assert moved.any(), parameter.name


@each_kind
@pytest.mark.parametrize("strategy", ["decoupled", "tied"])
def test_exactly_the_word_rows_with_a_gradient_move(kind: str, strategy: str) -> None:
    toy, ticket, found = trained_once(kind, True, strategy)
    name = toy.backbone.word_name
    words = {int(id_) for example in toy.train.examples for id_ in example.ids if id_ >= 0}
    if strategy == "tied":
        words |= set(toy.reader.readout.verbaliser.flat_ids)
    mask = ticket.mask(name)
    used = torch.zeros(len(mask), 1, dtype=torch.bool)
    used[sorted(words)] = True
    assert (mask & ~used).any(), "the ticket must hold entries of rows that training does not use"
    assert torch.equal(found.state[name] != toy.theta[name], mask & used)


@each_kind
@each_pair
def test_close_sets_every_weight_back_bit_for_bit(kind: str, tied: bool, strategy: str) -> None:
    toy, _, found = trained_once(kind, tied, strategy)
    assert found.changes
    for name, tensor in theta_of(toy.backbone).items():
        assert same_bits(tensor, toy.theta[name]), name


def assert_untouched(toy: Toy) -> None:
    for name, parameter in toy.backbone.parameters.items():
        assert same_bits(parameter.detach(), toy.theta[name]), name
        assert not parameter.requires_grad
        assert parameter.grad is None
        assert not parameter._post_accumulate_grad_hooks


@each_kind
def test_close_takes_everything_back_after_an_error_too(kind: str) -> None:
    toy = Toy.of(kind, double=False)
    ticket = random_ticket(toy.backbone, 0.3)
    seen = []

    def stop(epoch: object) -> None:
        moved = [n for n, p in toy.backbone.parameters.items() if not same_bits(p.detach(), toy.theta[n])]
        seen.append(len(moved))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toy, toy.packed(ticket), ltp_recipe(), on_epoch=stop)
    assert seen[0] > 10, "the weights must have moved when the error came"
    assert_untouched(toy)
    fresh = Toy.of(kind, double=False)
    again, first = train(toy, toy.packed(ticket), ltp_recipe()), train(fresh, fresh.packed(ticket), ltp_recipe())
    assert all(same_bits(again.state[name], tensor) for name, tensor in first.state.items())


def test_only_the_trained_entries_have_values_gradients_and_optimizer_state() -> None:
    toy = Toy.of("bert", double=False)
    ticket = random_ticket(toy.backbone, 0.3)
    weights = toy.packed(ticket)
    name = toy.backbone.word_name
    rows = int(ticket.mask(name)[toy.words()].sum())
    assert len(weights.flat) == ticket.size - ticket.count(name) + rows
    assert sum(p.numel() for p in weights.named_parameters().values()) == len(weights.flat)
    weights.close()


def test_gradients_add_up_over_micro_batches_and_dense_ones_are_freed() -> None:
    toy = Toy.of("xlm-roberta")
    ticket = random_ticket(toy.backbone, 0.3)
    weights = toy.packed(ticket)
    ids, sequences = torch.tensor(toy.words()[:6]), Sequences((6,))
    sums = []
    for _ in range(2):
        toy.backbone.encode(weights.embed(ids), sequences).square().sum().backward()
        sums.append(weights.flat.grad.clone())
        assert all(parameter.grad is None for parameter in toy.backbone.parameters.values())
        assert weights.table.grad is None
    assert sums[0].abs().max() > 0
    torch.testing.assert_close(sums[1], 2 * sums[0])
    weights.close()


@each_kind
def test_words_outside_training_are_read_as_pretrained(kind: str) -> None:
    toy = Toy.of(kind, double=False)
    weights = toy.packed(random_ticket(toy.backbone, 1.0))
    with torch.no_grad():
        weights.flat.add_(1)
        weights.step_done()
        every = torch.arange(toy.backbone.word_embeddings.num_embeddings)
        found = weights.embed(every)
    weights.close()
    expected = toy.theta[toy.backbone.word_name].clone()
    expected[toy.words()] += 1
    assert same_bits(found, expected)


@each_kind
@each_pair
def test_the_output_rows_move_with_a_tied_ticket_only(kind: str, tied: bool, strategy: str) -> None:
    toy = Toy.of(kind, tied=tied, double=False)
    weights = toy.packed(random_ticket(toy.backbone, 0.3, strategy))
    ids = list(toy.reader.readout.verbaliser.flat_ids)
    before, _ = weights.output_rows()
    assert same_bits(before.detach(), toy.backbone.decoder.weight[ids])
    with torch.no_grad():
        weights.flat.add_(1)
        weights.step_done()
    after, _ = weights.output_rows()
    assert weights.moves_output == (strategy == "tied")
    assert bool((after != before).any()) == (strategy == "tied")
    weights.close()


def test_a_snapshot_brings_weights_back() -> None:
    toy = Toy.of("bert", double=False)
    weights = toy.packed(random_ticket(toy.backbone, 0.3))
    with torch.no_grad():
        weights.flat.mul_(1.5)
    weights.step_done()
    kept, state = weights.snapshot(), theta_of(toy.backbone)
    with torch.no_grad():
        weights.flat.mul_(1.5)
    weights.step_done()
    weights.load(kept)
    assert all(same_bits(tensor, state[name]) for name, tensor in theta_of(toy.backbone).items())
    assert same_bits(weights.flat.detach(), kept)
    weights.close()


def test_a_ticket_read_from_its_file_trains_to_the_same_bits(tmp_path: Path) -> None:
    toy = Toy.of("xlm-roberta", double=False)
    ticket = random_ticket(toy.backbone, 0.3)
    ticket.save(tmp_path / "t.safetensors")
    read = Ticket.load(tmp_path / "t.safetensors")
    assert list(read.bitmaps) != list(ticket.bitmaps), "a file has an order of its own"
    found, other = (toy.packed(each) for each in (ticket, read))
    assert found.slots.keys() == other.slots.keys()
    assert list(found.slots) == list(other.slots) == [p.name for p in ticket.parameters if p.name in found.slots]
    assert torch.equal(found.original, other.original)
    found.close()
    other.close()
