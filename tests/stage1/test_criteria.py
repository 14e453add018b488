"""Rivals of the movement, against references written plainly: numpy draws, full sorts, dense float64 autograd."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.toy_classifiers import toy_adapter
from helpers.toys import KINDS, toy_backbone, toy_model
from torch import Tensor, nn

from ltprompt.backbone.model import Backbone
from ltprompt.backbone.parameters import EligibleParameter, total
from ltprompt.device import Compute
from ltprompt.errors import InputError, MismatchError, TrainingError
from ltprompt.stage1.criteria import find_criterion
from ltprompt.stage1.masking import Masking
from ltprompt.stage1.weights import trainable
from ltprompt.tickets.distribution import compare
from ltprompt.tickets.header import CRITERIA, STRATEGIES
from ltprompt.tickets.scores import Scores
from ltprompt.tickets.ticket import Ticket

CPU = Compute(torch.device("cpu"))
WORDS = ("the", "cat", "sat", "on", "a", "mat", "good", "bad")
Batch = tuple[list[np.ndarray], list[np.ndarray]]


def toy_texts(size: int = 14) -> list[str]:
    """Lines of 1 to 12 of a few words: most of the vocabulary never occurs."""
    draw = np.random.default_rng(4)
    return [" ".join(draw.choice(WORDS, size=length)) for length in draw.integers(1, 13, size=size)]


def toy_scores(backbone: Backbone, strategy: str = "decoupled") -> Scores:
    """Stand-ins for the movement: uniform random numbers."""
    generator = torch.Generator().manual_seed(9)
    parameters = trainable(backbone, strategy)
    tensors = {p.name: torch.rand(p.shape, generator=generator) for p in parameters}
    return Scores(parameters, tensors, strategy, backbone.fingerprint)


def by(criterion: str, scores: Scores, own: Backbone, **changes: Any) -> Scores:
    """The scores by any criterion, given what it needs."""
    given: dict[str, Any] = {} if criterion in ("delta", "random") else {"backbone": own}
    if criterion in ("gradient", "fisher"):
        given |= {"texts": toy_texts(), "batch_size": 4, "compute": CPU}
    return find_criterion(scores, criterion, **given | changes)


def flat(scores: Scores) -> np.ndarray:
    return np.concatenate([scores.tensor(p.name).flatten().numpy() for p in scores.parameters])


def chosen(ticket: Ticket) -> set[int]:
    """The ticket's entries as numbers in the order of parameters and flat indices."""
    whole = torch.cat([ticket.mask(p.name).flatten() for p in ticket.parameters])
    return set(whole.nonzero().flatten().tolist())


# What every criterion has in common.


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_chooses_exactly_as_many_entries_of_the_same_set(criterion: str) -> None:
    backbone = toy_backbone("bert")
    scores = toy_scores(backbone)
    found = by(criterion, scores, backbone)
    assert (found.parameters, found.strategy, found.fingerprint) == (
        scores.parameters, scores.strategy, scores.fingerprint,
    )  # fmt: skip
    for parameter in found.parameters:
        tensor = found.tensor(parameter.name)
        assert (tensor.dtype, tuple(tensor.shape), bool((tensor >= 0).all())) == (torch.float32, parameter.shape, True)
    eligible = total(scores.parameters)
    for ratio in (0, 0.2, 0.75, 1):
        ticket = found.select(ratio)
        assert ticket.size == math.floor(ratio * eligible + 0.5)
        assert (ticket.criterion, ticket.seed) == (criterion, 0 if criterion == "random" else None)
        assert ticket.scores_sha256 == found.sha256
    by_layer = found.select(0.3, "layer")
    for layer in range(4):
        group = [p for p in scores.parameters if p.layer == layer]
        assert sum(by_layer.count(p.name) for p in group) == math.floor(0.3 * total(group) + 0.5)
    upper = found.select(0.3, layers="2-3")
    assert {p.layer for p in upper.parameters if upper.count(p.name)} == {2, 3}
    assert upper.size == math.floor(0.3 * total([p for p in scores.parameters if p.layer > 1]) + 0.5)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_equal_input_gives_equal_bytes_and_criteria_differ(criterion: str, tmp_path: Path) -> None:
    backbone = toy_backbone("bert")
    scores = toy_scores(backbone)
    for name in ("a", "b"):
        by(criterion, scores, backbone).select(0.2).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    other = CRITERIA[CRITERIA.index(criterion) - 1]
    assert chosen(by(criterion, scores, backbone).select(0.2)) != chosen(by(other, scores, backbone).select(0.2))


def test_delta_is_what_it_was() -> None:
    backbone = toy_backbone("bert")
    scores = toy_scores(backbone)
    assert find_criterion(scores, "delta") is scores


# Chance.


def random_reference(scores: Scores, seed: int) -> np.ndarray:
    drawn = []
    for order, parameter in enumerate(scores.parameters):
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, order])))
        drawn.append(generator.random(parameter.numel, np.float32))
    return np.concatenate(drawn)


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_random_scores_are_those_of_numpy(seed: int) -> None:
    scores = toy_scores(toy_backbone("bert"))
    found, expected = find_criterion(scores, "random", seed=seed), random_reference(scores, seed)
    assert flat(found).tobytes() == expected.tobytes()
    assert found.seed == seed
    order = np.argsort(-expected, kind="stable")[: math.floor(0.2 * len(expected) + 0.5)]
    assert chosen(found.select(0.2)) == set(order.tolist())


def test_random_scores_are_the_same_on_every_machine() -> None:
    parameters = (EligibleParameter("a", (3,), 0, "x"), EligibleParameter("b", (1, 2), 1, "x"))
    scores = Scores(parameters, {"a": torch.ones(3), "b": torch.ones(1, 2)}, "tied", "f")
    found = flat(find_criterion(scores, "random", seed=7)).tolist()
    assert [value * 2**24 for value in found] == [15852874, 10487361, 11478634, 14600540, 12920821]


def test_random_tickets_overlap_as_by_chance() -> None:
    scores = toy_scores(toy_backbone("bert"))
    first, second = (find_criterion(scores, "random", seed=seed).select(0.4) for seed in (1, 2))
    for pair in ((first, second), (first, scores.select(0.4)), (second, scores.select(0.4))):
        overall = compare(*pair).overall
        assert overall.a == overall.b
        # The overlap of random sets is hypergeometric; five standard deviations.
        deviation = 0.4 * 0.6 * math.sqrt(overall.parameters)
        assert abs(overall.intersection - overall.chance_intersection) < 5 * deviation
    assert compare(first, find_criterion(scores, "random", seed=1).select(0.4)).overall.iou == 1


def test_a_draw_needs_the_memory_of_its_scores_alone() -> None:
    parameters = tuple(EligibleParameter(str(i), (1000, 1000), i, "x") for i in range(2))
    scores = Scores(parameters, {p.name: torch.ones(1).expand(1000, 1000) for p in parameters}, "tied", "f", "0" * 64)
    tracemalloc.start()
    find_criterion(scores, "random")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * 4 * total(parameters)


# Magnitude.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_magnitude_chooses_as_a_full_sort_does(kind: str, strategy: str) -> None:
    backbone = toy_backbone(kind)
    ticket = by("magnitude", toy_scores(backbone, strategy), backbone).select(0.3)
    state = toy_model(kind).state_dict()
    entries = np.concatenate([np.abs(state[p.name].flatten().numpy()) for p in ticket.parameters])
    order = sorted(range(len(entries)), key=lambda i: (-float(entries[i]), i))
    assert chosen(ticket) == set(order[: math.floor(0.3 * len(entries) + 0.5)])
    assert (ticket.strategy, ticket.tied) == (strategy, strategy == "tied")


def test_an_adapter_is_taken_off_first() -> None:
    backbone = toy_backbone("bert")
    before = by("magnitude", toy_scores(backbone), backbone)
    toy_adapter(backbone).apply(backbone)
    assert by("magnitude", toy_scores(backbone), backbone).sha256 == before.sha256


# Gradients.


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """A list that fills with the masked batches."""
    batches: list[Batch] = []
    apply = Masking.apply

    def record(self: Masking, lines: Any, generator: Any) -> Batch:
        batches.append(apply(self, lines, generator))
        return batches[-1]

    monkeypatch.setattr(Masking, "apply", record)
    return batches


def padded(lines: list[np.ndarray], filler: int) -> Tensor:
    table = torch.full((len(lines), max(map(len, lines))), filler)
    for row, line in zip(table, lines, strict=True):
        row[: len(line)] = torch.from_numpy(np.asarray(line, np.int64))
    return table


def dense_gradients(kind: str, strategy: str, tied: bool, batches: list[Batch], pad_id: int) -> list[dict[str, Tensor]]:
    """The gradient of every batch's stock loss, by autograd over the stock model in float64."""
    model = toy_model(kind, tied=tied).double().eval()
    words = model.get_input_embeddings()
    if strategy == "decoupled":
        words.weight = nn.Parameter(words.weight.detach().clone())
    skipped = ("embeddings.",) if strategy == "frozen-embeddings" else ()
    trained = {
        f"{model.base_model_prefix}.{name}": parameter
        for name, parameter in model.base_model.named_parameters()
        if "LayerNorm" not in name and not name.startswith(skipped)
    }
    found = []
    for inputs, targets in batches:
        attention = padded([np.ones(len(line)) for line in inputs], 0)
        loss = model(input_ids=padded(inputs, pad_id), attention_mask=attention, labels=padded(targets, -100)).loss
        found.append(dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True)))
    return found


MOMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "gradient": lambda gradients: gradients.mean(0).abs(),
    "fisher": lambda gradients: gradients.square().mean(0),
}
CASES = [(kind, strategy, True) for kind in KINDS for strategy in STRATEGIES] + [(k, "decoupled", False) for k in KINDS]


@pytest.mark.parametrize("criterion", MOMENTS)
@pytest.mark.parametrize(("kind", "strategy", "tied"), CASES)
def test_gradients_are_those_of_dense_autograd(
    kind: str, strategy: str, tied: bool, criterion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With dropout in the settings, to see that it is off.
    backbone = toy_backbone(kind, double=True, dropout=0.3, tied=tied)
    for batch_size, count in ((4, 4), (1, 14)):
        with monkeypatch.context() as patch:
            batches = recorded(patch)
            found = by(criterion, toy_scores(backbone, strategy), backbone, batch_size=batch_size)
        assert len(batches) == count
        dense = dense_gradients(kind, strategy, tied, batches, backbone.tokenizer.pad_token_id)
        assert found.tensors.keys() == dense[0].keys()
        for name in dense[0]:
            expected = MOMENTS[criterion](torch.stack([gradients[name] for gradients in dense]))
            # fp32 keeps 24 bits; key biases have a true gradient of zero
            limit = 1e-7 * expected + (1e-12 if "key.bias" in name else 1e-10 * expected.max())
            assert ((found.tensor(name).double() - expected).abs() <= limit).all(), name
            assert "key.bias" in name or expected.any()


@pytest.mark.parametrize("criterion", MOMENTS)
def test_words_that_never_occur_score_zero_and_others_do_not(criterion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy_backbone("xlm-roberta")
    batches = recorded(monkeypatch)
    found = by(criterion, toy_scores(backbone), backbone)
    seen = set(np.unique(np.concatenate([line for inputs, _ in batches for line in inputs])).tolist())
    rows = found.tensor(backbone.word_name).any(dim=1).nonzero().flatten().tolist()
    assert set(rows) == seen
    assert len(seen) < len(backbone.tokenizer)
    assert found.select(1).zero_entries > 0


def bits(backbone: Backbone) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in backbone.model.state_dict().items()}


def assert_untouched(backbone: Backbone, before: dict[str, bytes]) -> None:
    assert bits(backbone) == before
    assert not any(module.training for module in backbone.model.modules())
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in backbone.parameters.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_backbone_is_bit_for_bit_the_same_afterwards(kind: str, strategy: str) -> None:
    backbone = toy_backbone(kind, dropout=0.1)
    before, generator, scores = bits(backbone), torch.get_rng_state(), toy_scores(backbone, strategy)
    for criterion in CRITERIA:
        by(criterion, scores, backbone)
        assert_untouched(backbone, before)

    def stop(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        by("fisher", scores, backbone, on_lines=stop)
    assert_untouched(backbone, before)
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    backbone = toy_backbone("bert")
    scores = toy_scores(backbone)
    with torch.no_grad():
        backbone.decoder.bias.fill_(torch.nan)
    before = bits(backbone)
    with pytest.raises(TrainingError, match="the loss is nan, so it has no gradient; try `dtype` fp32"):
        by("gradient", scores, backbone)
    assert_untouched(backbone, before)


def test_lines_are_drawn_from_all_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy_backbone("xlm-roberta")
    scores, texts = toy_scores(backbone), toy_texts(60)
    batches = recorded(monkeypatch)

    def lines_of(lines: int | None) -> list[tuple[int, ...]]:
        batches.clear()
        by("gradient", scores, backbone, texts=texts, lines=lines)
        return [
            tuple(np.where(target == -100, line, target))
            for inputs, targets in batches
            for line, target in zip(inputs, targets, strict=True)
        ]

    few, all_ = lines_of(10), lines_of(None)
    assert (len(few), len(all_)) == (10, 60)
    assert few == all_[:10], "a larger draw only adds lines"
    encoded = [tuple(backbone.tokenizer(text)["input_ids"]) for text in texts]
    assert sorted(all_) == sorted(encoded)
    assert set(few) - set(encoded[:20]), "not the first lines alone"
    assert lines_of(100) == all_


def test_every_batch_has_masks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy_backbone("bert")
    batches = recorded(monkeypatch)
    by("fisher", toy_scores(backbone), backbone, texts=["the cat sat on a good mat"] * 8, batch_size=2)
    assert len({tuple(np.concatenate(targets).tolist()) for _, targets in batches}) == 4


def test_long_lines_are_cut_and_lines_without_a_token_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy_backbone("bert")
    texts = [*toy_texts(), "猫", "the " * 100]
    batches = recorded(monkeypatch)
    for max_length, longest in ((8, 8), (None, backbone.max_length)):
        done: list[int] = []
        batches.clear()
        by("fisher", toy_scores(backbone), backbone, texts=texts, max_length=max_length, on_lines=done.append)
        assert sum(done) == len(texts)
        assert max(len(line) for inputs, _ in batches for line in inputs) == longest
        assert sum(len(inputs) for inputs, _ in batches) == len(texts) - 1


# Bad input.


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown": ("magnitud", {}, "unknown criterion 'magnitud'; did you mean 'magnitude'.*choose from delta, random"),
    "a seed for delta": ("delta", {"seed": 0}, "'delta' takes no seed; leave `seed` out, or choose random"),
    "a seed for gradient": ("gradient", {"seed": 1}, "'gradient' takes no seed"),
    "a backbone for random": ("random", {"backbone": "it"}, "takes no backbone; .* choose magnitude or gradient or"),
    "text for magnitude": (
        "magnitude",
        {"texts": ["a"]},
        "no texts; leave `texts` out, or choose gradient or fisher",
    ),
    "lines for delta": ("delta", {"lines": 5}, "'delta' takes no lines"),
    "no text": ("fisher", {"texts": None}, "'fisher' needs text to take gradients on; give some as `texts`"),
    "no backbone": ("magnitude", {"backbone": None}, "'magnitude' needs the backbone that the scores were found with"),
    "a negative seed": ("random", {"seed": -1}, "the seed -1 is negative; give 0 or more"),
    "no lines": ("gradient", {"lines": 0}, "`lines` 0 is not a positive number; leave it out for 2,048"),
    "an empty text": ("gradient", {"texts": []}, "none of 0 lines gives a token"),
    "no batch": ("gradient", {"batch_size": 0}, "`batch_size` 0 is not a positive number; leave it out for 8"),
    "too long": ("gradient", {"max_length": 1000}, "`max_length` 1000 is outside 8 to "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_the_mend(name: str) -> None:
    backbone = toy_backbone("bert")
    criterion, given, message = BAD[name]
    with pytest.raises(InputError, match=message):
        by(criterion, toy_scores(backbone), backbone, **given)


@pytest.mark.parametrize("criterion", ["magnitude", "gradient", "fisher"])
def test_another_backbone_is_refused(criterion: str) -> None:
    backbone, other = toy_backbone("bert"), toy_backbone("bert", seed=1)
    message = f"scores are of the backbone {backbone.fingerprint[:12]}, this backbone is {other.fingerprint[:12]}; give"
    with pytest.raises(MismatchError, match=message):
        by(criterion, toy_scores(backbone), other)
