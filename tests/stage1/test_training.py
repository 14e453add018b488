"""Stage 1 against a dense reference: stock model, stock loss, autograd L1, plain AdamW over every row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.toys import KINDS, toy_backbone, toy_model
from torch import Tensor, nn

from ltprompt.backbone.model import Backbone
from ltprompt.device import Compute
from ltprompt.errors import InputError, TrainingError
from ltprompt.packing.batching import TRAINING_TOKENS
from ltprompt.packing.sequences import Sequences
from ltprompt.stage1 import training as mlm
from ltprompt.stage1.masking import IGNORED, Lines, Masking, batch_indices, hold_out
from ltprompt.stage1.training import Movement, Step, Watcher, find_movement, masked_loss, mlm_step
from ltprompt.stage1.weights import Trainee
from ltprompt.tickets.header import STRATEGIES

CPU = Compute(torch.device("cpu"))
STEPS, LR, L1 = 20, 1e-3, 0.1
Batch = tuple[list[np.ndarray], list[np.ndarray]]


@pytest.fixture(autouse=True)
def small_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that toy batches fall into several."""
    monkeypatch.setitem(TRAINING_TOKENS, "fp32", 60)


def toy_lines(backbone: Backbone, *, lines: int = 24, words: int = 20, seed: int = 5) -> list[np.ndarray]:
    """Lines of 1 to 45 words from the vocabulary's first few, with special tokens around: most words never occur."""
    generator = np.random.default_rng(seed)
    tokenizer = backbone.tokenizer
    known = [word for word in range(len(tokenizer)) if word not in tokenizer.all_special_ids][:words]
    texts = [generator.choice(known, size=size) for size in generator.integers(1, 46, size=lines)]
    return [np.array([tokenizer.cls_token_id, *text, tokenizer.sep_token_id], np.int32) for text in texts]


def run(backbone: Backbone, lines: Lines, **changes: Any) -> Movement:
    settings: dict[str, Any] = {
        "strategy": "decoupled",
        "steps": STEPS,
        "batch_size": 6,
        "lr": LR,
        "l1": L1,
        "clip": 1.0,
        "held_out": 0.0,
        "evaluate_every": 5,
        "keep": "final",
        "seed": 1,
        "compute": CPU,
    }
    return find_movement(backbone, lines, **settings | changes)


def weights_of(trainee: Trainee) -> dict[str, Tensor]:
    """All weights under way, the word embeddings as the input side sees them."""
    weights = {name: parameter.detach().clone() for name, parameter in trainee.backbone.parameters.items()}
    if trainee.rows is not None:
        everything = torch.arange(len(trainee.rows.matrix))
        weights[trainee.backbone.word_name] = trainee.rows.current(everything).clone()
    return weights


@dataclass
class Recorder:
    """The masked batches of a stage 1 and its weights after the last step."""

    batches: list[Batch] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def on(cls, monkeypatch: pytest.MonkeyPatch) -> Recorder:
        recorder = cls()

        def recorded(trainee: Trainee, inputs: Any, targets: Any, theta: Any, **settings: Any) -> float:
            recorder.batches.append((inputs, targets))
            loss = mlm_step(trainee, inputs, targets, theta, **settings)
            recorder.weights = weights_of(trainee)
            return loss

        monkeypatch.setattr(mlm, "mlm_step", recorded)
        return recorder


def padded(lines: Sequence[np.ndarray], filler: int) -> Tensor:
    table = torch.full((len(lines), max(map(len, lines))), filler)
    for row, line in zip(table, lines, strict=True):
        row[: len(line)] = torch.from_numpy(np.asarray(line, np.int64))
    return table


def stock_loss(model: Any, batch: Batch, pad_id: int) -> Tensor:
    inputs, targets = batch
    attention = padded([np.ones(len(line)) for line in inputs], 0)
    found: Tensor = model(input_ids=padded(inputs, pad_id), attention_mask=attention, labels=padded(targets, -100)).loss
    return found


def stock(kind: str, strategy: str, tied: bool = True) -> tuple[Any, dict[str, nn.Parameter], int]:
    """A stock model in float64, what the strategy trains of it, and N, the size of the untied model."""
    model = toy_model(kind, tied=tied).double()
    words = model.get_input_embeddings()
    tied_size = sum(parameter.numel() for parameter in model.parameters())
    if strategy == "decoupled":
        words.weight = nn.Parameter(words.weight.detach().clone())
    model.requires_grad_(False)
    eligible = "encoder.layer." if strategy == "frozen-embeddings" else ("embeddings.", "encoder.layer.")
    trained = {
        f"{model.base_model_prefix}.{name}": parameter.requires_grad_()
        for name, parameter in model.base_model.named_parameters()
        if name.startswith(eligible) and "LayerNorm" not in name
    }
    return model, trained, tied_size + (words.weight.numel() if tied else 0)


def plain_clip(parameters: Sequence[nn.Parameter], limit: float) -> float:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
    for gradient in gradients:
        gradient.mul_(min(1.0, limit / (norm + 1e-6)))
    return norm


@dataclass
class Dense:
    """The reference: what it trained, where that started, the losses and the gradient norms before clipping."""

    trained: dict[str, Tensor]
    theta: dict[str, Tensor]
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)


def train_densely(kind: str, strategy: str, batches: list[Batch], pad_id: int, clip: float, tied: bool) -> Dense:
    model, trained, size = stock(kind, strategy, tied)
    found = Dense({}, {name: parameter.detach().clone() for name, parameter in trained.items()})
    optimizer = torch.optim.AdamW(trained.values(), lr=LR, weight_decay=0.0, fused=False, foreach=False)
    model.train()
    for number, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = LR * (1 - number / len(batches))
        optimizer.zero_grad()
        loss = stock_loss(model, batch, pad_id)
        distance = sum((parameter - found.theta[name]).abs().sum() for name, parameter in trained.items())
        (loss + L1 * distance / size).backward()
        found.losses.append(loss.item())
        found.norms.append(plain_clip(list(trained.values()), clip))
        optimizer.step()
    found.trained = {name: parameter.detach() for name, parameter in trained.items()}
    return found


def bound(name: str, weights: Tensor) -> float:
    """How far a tensor may lie from the reference; key biases have no true gradient, and Adam amplifies rounding."""
    return LR if "key.bias" in name else 1e-10 * weights.abs().max().item()


CASES = [(kind, strategy, True, clip) for kind in KINDS for strategy in STRATEGIES for clip in (0.25, 100.0)] + [
    (kind, "decoupled", False, 1.0) for kind in KINDS
]


@pytest.mark.parametrize(("kind", "strategy", "tied", "clip"), CASES)
def test_stage_one_equals_a_dense_reference(
    kind: str, strategy: str, tied: bool, clip: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = toy_backbone(kind, double=True, tied=tied)
    recorder = Recorder.on(monkeypatch)
    movement = run(backbone, toy_lines(backbone), strategy=strategy, clip=clip)
    dense = train_densely(kind, strategy, recorder.batches, backbone.tokenizer.pad_token_id, clip, tied)
    assert min(dense.norms) > 0.25, "clipping at 0.25 must always be active"
    assert max(dense.norms) < 100, "and clipping at 100 never"
    assert set(movement.tensors) == set(dense.trained)
    for name, expected in dense.trained.items():
        moved, limit = (expected - dense.theta[name]).abs(), bound(name, expected)
        assert (recorder.weights[name] - expected).abs().max() <= limit, name
        assert (movement.tensors[name] - moved).abs().max() <= limit, name
    assert [step for step, _ in movement.history.training] == list(range(1, STEPS + 1))
    assert [loss for _, loss in movement.history.training] == pytest.approx(dense.losses, rel=1e-10)
    assert (
        min(len(list(mlm.masked_batches(backbone, *batch, Compute(torch.device("cpu"))))) for batch in recorder.batches)
        > 1
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_eligible_parameters_move(kind: str, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy_backbone(kind)
    theta = {name: parameter.clone() for name, parameter in backbone.parameters.items()}
    recorder = Recorder.on(monkeypatch)
    movement = run(backbone, toy_lines(backbone), strategy=strategy, steps=3)
    _, trained, _ = stock(kind, strategy)
    assert {parameter.name for parameter in movement.parameters} == set(trained)
    for name, original in theta.items():
        assert torch.equal(recorder.weights[name], original) == (name not in trained), name
        if name in trained:
            moved = (recorder.weights[name] - original).abs()
            assert torch.equal(movement.tensors[name], moved)
            assert movement.tensors[name].dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_rows_join_late_and_untouched_rows_never_move(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy_backbone(kind, double=True)
    lines = toy_lines(backbone)
    recorder = Recorder.on(monkeypatch)
    movement = run(backbone, lines)
    first: dict[int, int] = {}
    for number, (inputs, _) in enumerate(recorder.batches):
        for word in np.unique(np.concatenate(inputs)).tolist():
            first.setdefault(word, number)
    late = {word for word, number in first.items() if number >= STEPS // 2} - set(np.concatenate(lines).tolist())
    assert len(late) >= 3, "the text must leave words that only random replacement brings in, late"
    moved = set(movement.tensors[backbone.word_name].any(dim=1).nonzero().flatten().tolist())
    assert moved == set(first)
    assert len(first) < len(backbone.tokenizer) - 1, "some words must never be touched"


@pytest.mark.parametrize("kind", KINDS)
def test_masked_position_loss_equals_the_stock_loss(kind: str) -> None:
    backbone = toy_backbone(kind)
    pad_id = backbone.tokenizer.pad_token_id
    batch = Masking.of(backbone).apply(toy_lines(backbone), np.random.default_rng(0))
    ids, targets = (torch.from_numpy(np.concatenate(lines)) for lines in batch)
    with torch.no_grad():
        found = masked_loss(backbone, backbone.word_embeddings(ids), Sequences.of(batch[0]), targets)
        found /= (targets != IGNORED).sum()
        expected = stock_loss(toy_model(kind).eval(), batch, pad_id)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_held_out_loss_equals_the_stock_loss(kind: str, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy_backbone(kind, dropout=0.1)
    masked: list[Batch] = []
    apply = Masking.apply

    def recorded(self: Masking, lines: Any, generator: Any) -> Batch:
        masked.append(apply(self, lines, generator))
        return masked[-1]

    monkeypatch.setattr(Masking, "apply", recorded)
    recorder = Recorder.on(monkeypatch)
    movement = run(backbone, toy_lines(backbone), strategy=strategy, steps=4, held_out=0.5, evaluate_every=4)
    model, _, _ = stock(kind, strategy)
    model.float().eval().load_state_dict({**model.state_dict(), **inputs_only(backbone, recorder.weights, strategy)})
    with torch.no_grad():
        expected = stock_loss(model, masked[-1], backbone.tokenizer.pad_token_id)
    ((step, found),) = movement.history.held_out
    assert step == 4
    assert len(masked[-1][0]) == 12
    assert found == pytest.approx(expected.item(), abs=1e-5)


def inputs_only(backbone: Backbone, weights: dict[str, Tensor], strategy: str) -> dict[str, Tensor]:
    """Weights for a stock model's state dict, whose output matrix follows the input's where it is tied."""
    if strategy != "tied":
        return weights
    return weights | {f"{backbone.decoder_path}.weight": weights[backbone.word_name]}


def test_held_out_masks_are_the_same_at_every_evaluation() -> None:
    backbone = toy_backbone("bert")
    movement = run(backbone, toy_lines(backbone), steps=4, lr=1e-30, held_out=0.3, evaluate_every=1)
    assert [step for step, _ in movement.history.held_out] == [1, 2, 3, 4]
    assert len({loss for _, loss in movement.history.held_out}) == 1


class Collector(Watcher):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.started: tuple[int, int] | None = None
        self.steps: list[Step] = []
        self.evaluations: list[tuple[int, float]] = []

    def start(self, first: int, steps: int) -> None:
        self.started = (first, steps)

    def step(self, step: Step) -> None:
        self.steps.append(step)

    def evaluation(self, number: int, loss: float) -> None:
        self.evaluations.append((number, loss))


def test_a_watcher_hears_of_steps_and_evaluations() -> None:
    backbone = toy_backbone("bert")
    lines = toy_lines(backbone)
    heard = Collector()
    history = run(backbone, lines, steps=7, held_out=0.25, evaluate_every=3, watcher=heard).history
    assert heard.started == (0, 7)
    assert [(step.number, step.loss) for step in heard.steps] == history.training
    assert heard.evaluations == history.held_out
    assert [number for number, _ in heard.evaluations] == [3, 6, 7]
    # 24 lines, 6 held out: three steps are one epoch of the rest
    train, _ = hold_out(24, 0.25, 1)
    assert sum(step.tokens for step in heard.steps[:3]) == sum(len(lines[line]) for line in train)
    assert history.tokens == sum(step.tokens for step in heard.steps)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_keep_best_takes_the_weights_of_the_lowest_held_out_loss(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder.on(monkeypatch)
    weights: dict[int, dict[str, Tensor]] = {}

    class Snapshots(Watcher):
        def evaluation(self, number: int, loss: float) -> None:
            weights[number] = recorder.weights

    backbone = toy_backbone("xlm-roberta")
    theta = {name: parameter.clone() for name, parameter in backbone.parameters.items()}
    options: dict[str, Any] = {"strategy": strategy, "lr": 0.02, "held_out": 0.25, "evaluate_every": 2}
    lines = toy_lines(backbone, words=60)
    movement = run(backbone, lines, keep="best", watcher=Snapshots(), **options)
    best, _ = min(movement.history.held_out, key=lambda pair: pair[1])
    assert 2 < best < STEPS, "the lowest loss must lie in the middle for this test to tell"
    assert movement.history.kept_step == best
    for name, tensor in movement.tensors.items():
        assert torch.equal(tensor, (weights[best][name] - theta[name]).abs())
        assert not torch.equal(tensor, (weights[STEPS][name] - theta[name]).abs())
    final = run(backbone, lines, keep="final", **options)
    assert final.history.kept_step == STEPS
    assert all(torch.equal(final.tensors[n], (weights[STEPS][n] - theta[n]).abs()) for n in final.tensors)


class Stop(Exception):
    """What a watcher raises here in the middle of a run."""


class Breaking(Watcher):
    """Raises at one step or evaluation."""

    def __init__(self, step: int = 0, evaluation: int = 0) -> None:
        self.at_step, self.at_evaluation = step, evaluation

    def step(self, step: Step) -> None:
        if step.number == self.at_step:
            raise Stop

    def evaluation(self, number: int, loss: float) -> None:
        if number == self.at_evaluation:
            raise Stop


def bits(backbone: Backbone) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in backbone.model.state_dict().items()}


def assert_untouched(backbone: Backbone, before: dict[str, bytes]) -> None:
    assert bits(backbone) == before
    assert not backbone.model.training
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in backbone.parameters.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_backbone_is_theta_again_bit_for_bit(kind: str, strategy: str) -> None:
    backbone = toy_backbone(kind, dropout=0.1)
    lines, before, generator = toy_lines(backbone), bits(backbone), torch.get_rng_state()
    movement = run(backbone, lines, strategy=strategy, steps=4, held_out=0.3)
    assert all(tensor.any() for tensor in movement.tensors.values())
    assert_untouched(backbone, before)
    for watcher in (Breaking(step=3), Breaking(evaluation=2)):
        with pytest.raises(Stop):
            run(backbone, lines, strategy=strategy, steps=4, held_out=0.3, evaluate_every=2, watcher=watcher)
        assert_untouched(backbone, before)
    with pytest.raises(TrainingError):
        run(backbone, lines, strategy=strategy, lr=1e30)
    assert_untouched(backbone, before)
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(("steps", "held_out"), [(20, 0.0), (20, 0.3), (1, 0.0), (1, 0.3)])
@pytest.mark.parametrize("keep", ["final", "best"])
def test_a_loss_that_is_not_finite_is_an_error(steps: int, held_out: float, keep: str, tmp_path: Path) -> None:
    backbone = toy_backbone("bert")
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) at step [12]; .*Lower `lr` \(now 1e\+38\)"):
        run(
            backbone, toy_lines(backbone), lr=1e38, steps=steps, held_out=held_out, evaluate_every=1, keep=keep,
            checkpoint=None if held_out == 0 else checkpoint,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_micro_batch_without_a_chosen_token_adds_nothing(kind: str) -> None:
    backbone = toy_backbone(kind, double=True)
    lines = sorted(toy_lines(backbone), key=len)
    long, short = lines[-1], lines[0]
    target = np.full(len(long), IGNORED)
    target[3] = long[3]
    losses = []
    for batch in ([long], [long, short]):
        trainee = Trainee(backbone, "decoupled", LR)
        targets = [target, np.full(len(short), IGNORED)][: len(batch)]
        theta = {name: parameter.clone() for name, parameter in trainee.dense.items()}
        backbone.model.requires_grad_(False)
        for parameter in trainee.dense.values():
            parameter.requires_grad_()
        losses.append(mlm_step(trainee, batch, targets, theta, l1=0.0, clip=1.0, compute=CPU))
        mlm.restore(backbone, theta)
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_strategies_are_checked() -> None:
    with pytest.raises(InputError, match=r"unknown strategy 'decouple'.*did you mean 'decoupled'"):
        run(toy_backbone("bert"), [], strategy="decouple")
    with pytest.raises(InputError, match="'tied' needs a backbone whose input and output embeddings are one"):
        run(toy_backbone("bert", tied=False), [], strategy="tied")


# Masking and the order of lines


def masked(pad_id: int = 1, *, lines: int = 400, length: int = 500, vocabulary: int = 30_000) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(3)
    tokens = generator.integers(10, 20_000, size=(lines, length))
    tokens[:, 0], tokens[:, -1], tokens[:, 5] = 0, 2, 3
    masking = Masking(mask_id=4, pad_id=pad_id, special_ids=(0, pad_id, 2, 3, 4), vocabulary=vocabulary)
    inputs, targets = masking.apply(list(tokens), np.random.default_rng(7))
    yield from (tokens.ravel(), np.concatenate(inputs), np.concatenate(targets))


def test_masking_shares() -> None:
    tokens, inputs, targets = masked()
    chosen = targets != IGNORED
    special = np.isin(tokens, (0, 2, 3))
    assert not (chosen & special).any()
    assert (inputs[~chosen] == tokens[~chosen]).all()
    assert (targets[chosen] == tokens[chosen]).all()
    assert chosen.sum() / (~special).sum() == pytest.approx(0.15, abs=0.004)
    mask, same = inputs[chosen] == 4, inputs[chosen] == tokens[chosen]
    assert mask.mean() == pytest.approx(0.8, abs=0.01)
    assert same.mean() == pytest.approx(0.1, abs=0.007)
    assert (~mask & ~same).mean() == pytest.approx(0.1, abs=0.007)


@pytest.mark.parametrize("pad_id", [0, 17, 59])
def test_random_words_are_the_whole_vocabulary_but_padding(pad_id: int) -> None:
    masking = Masking(mask_id=61, pad_id=pad_id, special_ids=(pad_id, 61), vocabulary=60)
    line = np.full(200_000, 30)
    (inputs,), _ = masking.apply([line], np.random.default_rng(0))
    counts = np.bincount(inputs[(inputs != 61) & (inputs != 30)], minlength=60)
    assert set(np.flatnonzero(counts == 0)) == {pad_id, 30}
    drawn = np.delete(counts, [pad_id, 30])
    assert drawn.max() < 1.5 * drawn.mean()  # 50 a word expected, so uniform well within this
    assert drawn.min() > 0.5 * drawn.mean()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_always_has_a_chosen_token(kind: str) -> None:
    backbone = toy_backbone(kind)
    masking = Masking.of(backbone)
    lines = [line[[0, 1, -1]] for line in toy_lines(backbone, lines=3)]
    counts = []
    for seed in range(60):
        inputs, targets = masking.apply(lines, np.random.default_rng(seed))
        assert [len(line) for line in inputs] == [len(line) for line in targets] == [3, 3, 3]
        chosen = np.array(targets) != IGNORED
        assert not chosen[:, [0, 2]].any()
        counts.append(int(chosen.sum()))
    assert min(counts) == 1
    assert {int(place) for s in range(60) for place in forced_places(masking, lines, s)} == {0, 1, 2}


def forced_places(masking: Masking, lines: list[np.ndarray], seed: int) -> np.ndarray:
    never = Masking(masking.mask_id, masking.pad_id, masking.special_ids, masking.vocabulary, probability=0.0)
    _, targets = never.apply(lines, np.random.default_rng(seed))
    places, _ = np.nonzero(np.array(targets) != IGNORED)
    assert len(places) == 1
    return places


def test_masking_of_a_backbone_knows_its_tokenizer() -> None:
    for kind in KINDS:
        backbone = toy_backbone(kind)
        masking = Masking.of(backbone)
        tokenizer = backbone.tokenizer
        assert (masking.mask_id, masking.pad_id) == (tokenizer.mask_token_id, tokenizer.pad_token_id)
        assert set(masking.special_ids) == set(tokenizer.all_special_ids)
        assert masking.vocabulary == len(tokenizer)
        assert masking.probability == 0.15


def test_the_seed_decides_masks_and_order(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy_backbone("bert")
    lines = toy_lines(backbone)
    recorder = Recorder.on(monkeypatch)

    def batches(seed: int) -> list[list[int]]:
        recorder.batches.clear()
        run(backbone, lines, steps=9, batch_size=8, seed=seed)
        return [np.concatenate([*inputs, *targets]).tolist() for inputs, targets in recorder.batches]

    first = batches(1)
    assert batches(1) == first
    assert batches(2) != first
    originals = {originals_of(batch) for batch in recorder.batches}
    assert len(originals) == 9, "every epoch has an order of its own"


def test_a_line_is_masked_anew_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy_backbone("bert")
    recorder = Recorder.on(monkeypatch)
    run(backbone, [max(toy_lines(backbone), key=len)], steps=6)
    assert len({targets[0].tobytes() for _, targets in recorder.batches}) == 6


def originals_of(batch: Batch) -> tuple[bytes, ...]:
    inputs, targets = batch
    return tuple(np.where(t != IGNORED, t, i).tobytes() for i, t in zip(inputs, targets, strict=True))


@pytest.mark.parametrize(("size", "batch_size"), [(10, 3), (12, 4), (2, 32), (1, 1)])
def test_every_epoch_visits_every_line_once(size: int, batch_size: int) -> None:
    per_epoch = math.ceil(size / batch_size)
    for epoch in range(3):
        batches = [batch_indices(size, epoch * per_epoch + place, batch_size, seed=4) for place in range(per_epoch)]
        assert sorted(np.concatenate(batches).tolist()) == list(range(size))
        assert all(len(batch) == batch_size for batch in batches[:-1])


@pytest.mark.parametrize(
    ("size", "share", "expected"), [(100, 0.1, 10), (2, 0.1, 1), (3, 0.95, 2), (7, 0.0, 0), (1, 0.0, 0)]
)
def test_held_out_lines_are_a_share_apart(size: int, share: float, expected: int) -> None:
    train, held = hold_out(size, share, seed=0)
    assert len(held) == expected
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(size))
    again = hold_out(size, share, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip((train, held), again, strict=True))


def test_held_out_lines_depend_on_the_seed() -> None:
    assert not np.array_equal(hold_out(100, 0.1, seed=0)[1], hold_out(100, 0.1, seed=1)[1])


def test_a_single_line_cannot_be_held_out() -> None:
    with pytest.raises(InputError, match=r"the text has 1 usable line.*needs at least 2, one of them held out"):
        hold_out(1, 0.1, seed=0)


def test_held_out_lines_are_never_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy_backbone("bert")
    lines = toy_lines(backbone)
    _, held = hold_out(len(lines), 0.25, 1)
    recorder = Recorder.on(monkeypatch)
    run(backbone, lines, held_out=0.25, steps=9)
    trained = {text for batch in recorder.batches for text in originals_of(batch)}
    everything = {lines[i].astype(np.int64).tobytes() for i in range(len(lines))}
    kept = {lines[i].astype(np.int64).tobytes() for i in held}
    assert trained == everything - kept
