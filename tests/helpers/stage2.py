"""A toy stage 2, and the same training written plainly: stock model, whole tensors, dense optimizer, no shortcut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers import toys
from ltprompt.backbone.model import Backbone
from ltprompt.device import Compute
from ltprompt.stage2.forward import Reader
from ltprompt.stage2.methods import METHODS, Recipe
from ltprompt.stage2.prompt import PromptEncoder
from ltprompt.stage2.readout import TokenReadout, WordReadout
from ltprompt.stage2.ticket_weights import PackedWeights
from ltprompt.stage2.training import Epoch, LabelledExamples, Learner, tune
from ltprompt.stage2.weights import training_weights
from ltprompt.stage2.whole_weights import DenseWeights
from ltprompt.tasks.template import Encoded, Template
from ltprompt.tasks.verbaliser import Verbaliser
from ltprompt.tickets.scores import Scores
from ltprompt.tickets.ticket import Ticket

torch.set_num_threads(1)  # toys have nothing to share out, and on a busy machine threads wait for each other

CPU = Compute(torch.device("cpu"))
# One word of several pieces in both tokenizers, none of whose pieces stands in a text.
WORDS = {"yes": "right", "perhaps": "zqz", "no": "wrong"}
TEMPLATE = ("{premise}", ".", "{hypothesis}", "?", "{prompt}", "{mask}", ".")
DISCRETE = ("{premise}", ".", "good", "{hypothesis}", "?", "the", "{mask}", ".")
MIXED = ("{premise}", ".", "good", "{hypothesis}", "?", "{prompt}", "the", "{mask}", ".")
TEXT = ("good", "bad", "the", "cat", "sat", "on", "a", "mat")
SEED = 3


def texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of very different lengths, so that a batch falls into several micro-batches."""
    random = np.random.default_rng(seed)

    def words(longest: int) -> str:
        return " ".join(random.choice(TEXT, random.integers(1, longest + 1)))

    return [(words(12), words(6)) for _ in range(count)]


def labelled(template: Template, count: int, seed: int = 0) -> LabelledExamples:
    """Examples that the template encoded, with labels at random."""
    labels = np.random.default_rng([seed, 1]).integers(0, len(WORDS), count)
    return LabelledExamples(template.encode(texts(count, seed)), labels)


def random_ticket(backbone: Backbone, ratio: float, strategy: str = "decoupled") -> Ticket:
    """A ticket of entries at random over every tensor that its strategy makes eligible."""
    generator = torch.Generator().manual_seed(11)
    eligible = tuple(p for p in backbone.eligible if p.layer > 0 or strategy != "frozen-embeddings")
    scores = {p.name: torch.rand(p.shape, generator=generator) for p in eligible}
    return Scores(eligible, scores, strategy, backbone.fingerprint).select(ratio)


def theta_of(backbone: Backbone) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in backbone.parameters.items()}


@dataclass
class Toy:
    """A backbone with everything that stage 2 needs around it; `stock` makes its model anew, without the package."""

    backbone: Backbone
    template: Template
    reader: Reader
    train: LabelledExamples
    theta: dict[str, Tensor]
    stock: Callable[[], Any]

    @classmethod
    def of(
        cls,
        kind: str,
        *,
        double: bool = True,
        examples: int = 27,
        parts: tuple[str, ...] | None = TEMPLATE,
        **options: Any,
    ) -> Toy:
        """Build a toy; parts: of its template, None for the bare texts and a classifier on the first token."""
        options.setdefault("layers", 2)
        backbone = toys.toy_backbone(kind, double=double, **options)
        columns, tokenizer = ("premise", "hypothesis"), backbone.tokenizer
        if parts is None:
            template = Template.plain(columns, tokenizer, max_length=48)
        else:
            template = Template.build(
                parts, columns, tokenizer, prompt_length=4, max_length=48, strip_punctuation=True
            )  # fmt: skip
        readout: Any = TokenReadout(len(WORDS))
        if parts is not None:
            readout = WordReadout(Verbaliser.build(WORDS, tokenizer), template.prompt_length)
        reader = Reader(backbone, readout, CPU)

        def stock() -> Any:
            model = toys.toy_model(kind, **options).requires_grad_(False)
            return model.double() if double else model

        return cls(backbone, template, reader, labelled(template, examples), theta_of(backbone), stock)

    def prompt(self) -> PromptEncoder:
        dtype = self.backbone.word_embeddings.weight.dtype
        return PromptEncoder.seeded(4, self.backbone.width, SEED, device=CPU.device, dtype=dtype)

    def words(self) -> list[int]:
        """The words that training looks up, as `PackedWeights` wants them."""
        found = {0, self.backbone.tokenizer.pad_token_id}
        for example in self.train.examples:
            found |= {int(id_) for id_ in example.ids if id_ >= 0}
        return sorted(found)

    def packed(self, ticket: Ticket | None) -> PackedWeights:
        master = self.backbone.word_embeddings.weight.dtype
        return PackedWeights(self.backbone, ticket, self.words(), self.reader.readout.label_ids, master=master)

    def dense(self) -> DenseWeights:
        return DenseWeights(self.backbone, self.theta, self.reader.readout.label_ids)


@dataclass
class Trained:
    """What a training of the package left: prompt or classifier, kept epoch, every parameter with the changes on."""

    prompt: Any
    epochs: list[Epoch]
    kept: int
    changes: dict[str, Any]
    state: dict[str, Tensor]
    rates: list[list[float]]


def train_method(toy: Toy, name: str, recipe: Recipe, beside: Any, *, rank: float | None = None) -> Trained:
    """Train as a method does, through its own weights, and lay the changes over θ."""
    builder = training_weights(
        METHODS[name].trains,
        toy.backbone,
        ticket=None,
        token_ids=toy.words(),
        label_ids=toy.reader.readout.label_ids,
        rank=rank,
        seed=SEED,
    )
    with builder as weights:
        tuned = tune(Learner.of(toy.reader, weights, beside, recipe), toy.train, None, recipe, seed=SEED)
        changes = {change.name: change for change in weights.changes()}
    return Trained(beside, list(tuned.epochs), tuned.kept_epoch, changes, changed_state(toy, changes), [])


def changed_state(toy: Toy, changes: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every parameter with the changes on."""
    state = {name: tensor.clone() for name, tensor in toy.theta.items()}
    for name, change in changes.items():
        state[name].view(-1)[change.index.long()] = change.values
    return state


def train(
    toy: Toy,
    weights: PackedWeights | DenseWeights,
    recipe: Recipe,
    *,
    dev: LabelledExamples | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train with the package, close the weights and lay the changes over θ."""
    prompt, rates = toy.prompt(), []
    try:
        learner = Learner.of(toy.reader, weights, prompt, recipe)
        learner.optimizer.register_step_pre_hook(lambda o, *_: rates.append([group["lr"] for group in o.param_groups]))
        tuned = tune(learner, toy.train, dev, recipe, seed=SEED, on_epoch=on_epoch)
        changes = {change.name: change for change in weights.changes()}
    finally:
        weights.close()
    return Trained(prompt, list(tuned.epochs), tuned.kept_epoch, changes, changed_state(toy, changes), rates)


def ltp_recipe(**given: Any) -> Recipe:
    settings: dict[str, Any] = {"lr": 1e-3, "prompt_lr": 1e-3, "batch_size": 8, "epochs": 5, "clip": 0.5}
    return Recipe("adamw", **(settings | given))


def sp_recipe(**given: Any) -> Recipe:
    settings: dict[str, Any] = {"lr": 1e-3, "prompt_lr": 1e-3, "batch_size": 8, "epochs": 5, "clip": 0.5}
    return Recipe("adam", **(settings | given), weight_decay=METHODS["sp"].recipe.weight_decay)


def batches(size: int, recipe: Recipe) -> Iterator[list[int]]:
    """The examples of each step: the order is a permutation by seed and epoch."""
    for epoch in range(1, recipe.epochs + 1):
        order = np.random.default_rng([SEED, epoch]).permutation(size).tolist()
        for start in range(0, size, recipe.batch_size):
            yield order[start : start + recipe.batch_size]


@dataclass
class Plain:
    """The reference's model and prompt, and the gradient norm before clipping at every step."""

    model: Any
    prompt: Any
    norms: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def state(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.model.named_parameters(remove_duplicate=False)}


def label_logits(
    model: Any, prompt: Tensor, examples: Sequence[Encoded], pieces: Sequence[Sequence[int]], pad_id: int
) -> Tensor:
    """One padded forward of the stock model, logits over the whole vocabulary, the pieces of each label averaged."""
    matrix = model.get_input_embeddings().weight
    longest = max(len(example.ids) for example in examples)
    rows, attention = [], torch.zeros(len(examples), longest, dtype=torch.long)
    for number, example in enumerate(examples):
        row = [prompt[-id_ - 1] if id_ < 0 else matrix[id_] for id_ in example.ids.tolist()]
        rows.append(torch.stack(row + [matrix[pad_id]] * (longest - len(row))))
        attention[number, : len(row)] = 1
    logits = model(inputs_embeds=torch.stack(rows), attention_mask=attention).logits
    at_mask = torch.stack([logits[number, example.read_at] for number, example in enumerate(examples)])
    return torch.stack([sum(at_mask[:, piece] for piece in word) / len(word) for word in pieces], dim=1)


def plain_pieces(tokenizer: Any) -> list[list[int]]:
    """The pieces of each label word, without a lone ▁ before them."""
    found = []
    for word in WORDS.values():
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        lone = len(ids) > 1 and tokenizer.convert_ids_to_tokens(ids[0]) == "▁"
        found.append(ids[1:] if lone else ids)
    return found


def plain_training(
    toy: Toy,
    recipe: Recipe,
    masks: Mapping[str, Tensor],
    make_optimizer: Callable[[dict[str, nn.Parameter], nn.Module], torch.optim.Optimizer],
    *,
    decouple: bool,
    prompt: nn.Module | None = None,
    surgery: Callable[[Any], dict[str, nn.Parameter]] | None = None,
) -> Plain:
    """Train whole tensors, gradient times mask, on whole batches with one forward each.

    decouple: the output matrix becomes a frozen clone of the input matrix. prompt: a module that gives vectors, the
    soft prompt where it is None. surgery: changes the model before training and returns more to train.
    """
    model = toy.stock().train()
    if decouple:
        output = model.get_output_embeddings()
        output.weight = nn.Parameter(output.weight.detach().clone(), requires_grad=False)
    trained = {n: p for n, p in model.named_parameters(remove_duplicate=False) if n in masks}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    if surgery:
        trained |= surgery(model)
    found = Plain(model, prompt or toy.prompt())
    optimizer = make_optimizer(trained, found.prompt)
    pieces, pad_id = plain_pieces(toy.backbone.tokenizer), toy.backbone.tokenizer.pad_token_id
    for batch in batches(len(toy.train), recipe):
        optimizer.zero_grad()
        examples = [toy.train.examples[i] for i in batch]
        logits = label_logits(model, found.prompt(), examples, pieces, pad_id)
        loss = functional.cross_entropy(logits, torch.tensor(toy.train.labels[batch]))
        loss.backward()
        for name, parameter in trained.items():
            if parameter.grad is not None and name in masks:  # an untied head owns a bias that nothing uses
                parameter.grad *= masks[name]
        found.losses.append(loss.item())
        everything = [*trained.values(), *found.prompt.parameters()]
        found.norms.append(float(torch.nn.utils.clip_grad_norm_(everything, recipe.clip, foreach=False)))
        optimizer.step()
    return found


def plain_ltp(toy: Toy, recipe: Recipe, ticket: Ticket | None) -> Plain:
    """The ticket by dense masks and dense AdamW without decay."""
    masks = {} if ticket is None else {p.name: ticket.mask(p.name) for p in ticket.parameters}

    def adamw(trained: dict[str, nn.Parameter], prompt: PromptEncoder) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            [
                {"params": [*trained.values()], "lr": recipe.lr},
                {"params": [*prompt.parameters()], "lr": recipe.prompt_lr},
            ],
            weight_decay=0.0,
            foreach=False,
            fused=False,
        )

    return plain_training(toy, recipe, masks, adamw, decouple=ticket is None or not ticket.tied)


def plain_sp(toy: Toy, recipe: Recipe) -> Plain:
    """Everything by dense Adam, L2 0.01 in the gradient on all but biases and norms."""
    masks = {name: torch.ones_like(tensor) for name, tensor in toy.theta.items()}
    norms = {
        f"{path}.weight"
        for path, module in toy.backbone.model.named_modules()
        if isinstance(module, nn.LayerNorm)
    }  # fmt: skip

    def adam(trained: dict[str, nn.Parameter], prompt: PromptEncoder) -> torch.optim.Optimizer:
        named = trained | {f"prompt.{name}": parameter for name, parameter in prompt.named_parameters()}
        groups = [
            {
                "params": [parameter],
                "lr": recipe.prompt_lr if name.startswith("prompt.") else recipe.lr,
                "weight_decay": 0.0 if "bias" in name or name in norms else 0.01,
            }
            for name, parameter in named.items()
        ]
        return torch.optim.Adam(groups, foreach=False, fused=False)

    return plain_training(toy, recipe, masks, adam, decouple=False)


def assert_equal(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float, *, key_bias: float | None = None
) -> None:
    """Every tensor agrees to max|a-b| <= tolerance * max|a|; key biases, whose true gradient is zero, absolutely."""
    for name, tensor in found.items():
        difference = float((tensor - expected[name]).abs().max())
        if name.endswith("key.bias"):
            assert difference <= (tolerance if key_bias is None else key_bias), f"{name}: {difference}"
        else:
            scale = float(expected[name].abs().max())
            assert difference <= tolerance * scale, f"{name}: {difference / scale}"
