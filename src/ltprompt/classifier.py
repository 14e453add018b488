"""The few calls a user makes: find scores, fit a classifier, evaluate it, keep it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ltprompt.adapter import Adapter
from ltprompt.backbone.changes import Change
from ltprompt.backbone.model import Backbone
from ltprompt.device import Compute, resolve, seeded
from ltprompt.errors import InputError
from ltprompt.files.artifacts import SCORES_CHECKPOINT, canonical_json, sha256
from ltprompt.merge import merge
from ltprompt.settings import ScoresSettings, TrainSettings
from ltprompt.stage1.corpus import TokenizedCorpus, text_sha256
from ltprompt.stage1.masking import split_lines
from ltprompt.stage1.training import Movement, Watcher, find_movement
from ltprompt.stage2.classifier_head import PooledClassifier
from ltprompt.stage2.forward import Measures, Reader, mean_measures, measure, softmax
from ltprompt.stage2.methods import Method, Recipe, build_optimizer, find_method, resolved_size, training_weights
from ltprompt.stage2.prompt import PromptEncoder
from ltprompt.stage2.training import Epoch, LabelledExamples, fold, tune
from ltprompt.tasks import Rows, Task, check_balance, load_task, parse_task, rows_from
from ltprompt.tasks.template import Template
from ltprompt.tasks.verbaliser import Verbaliser
from ltprompt.tickets.scores import Scores
from ltprompt.tickets.ticket import Ticket

Table = Rows | Sequence[Mapping[str, Any]]


def find_scores(
    backbone: Backbone,
    texts: Sequence[str],
    out: str | Path | None = None,
    *,
    settings: ScoresSettings | None = None,
    compute: Compute | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> Scores:
    """Run stage 1: fine-tune on `texts` with masked language modelling and score every eligible parameter.

    texts: lines, as `corpus.read_lines` gives them. out: folder for scores.safetensors and scores.json; a checkpoint is
    kept there at every evaluation, and `resume` goes on from it. watcher: hears of every step. The backbone is
    unchanged afterwards. Raises `InputError` for bad settings or text, `TrainingError` where the loss diverges.
    """
    settings, compute = settings or ScoresSettings(), compute or resolve(str(backbone.device))
    backbone.check_length(settings.max_length)
    fingerprint, text_hash = backbone.fingerprint, text_sha256(texts)
    corpus = TokenizedCorpus.build(texts, backbone.tokenizer, max_length=settings.max_length)
    trained, held = split_lines(len(corpus), settings.held_out, settings.seed)
    steps = settings.steps or settings.epochs * math.ceil(len(trained) / settings.batch_size)
    plain = settings.model_dump(exclude={"epochs", "max_length"}) | {"steps": steps}
    identity = sha256(canonical_json([settings.model_dump(), compute.dtype_name, fingerprint, text_hash]))
    checkpoint = Path(out) / SCORES_CHECKPOINT if out is not None else None
    if checkpoint is not None and checkpoint.exists() and not resume:
        raise InputError(
            f"{out} holds the checkpoint of an unfinished run; add --resume to go on, or delete {checkpoint}"
        )
    movement = find_movement(
        backbone,
        corpus,
        compute=compute,
        checkpoint=checkpoint,
        identity=identity,
        watcher=watcher,
        **plain,
    )
    scores = Scores(movement.parameters, movement.tensors, settings.strategy, fingerprint)
    if out is not None and checkpoint is not None:
        settled = settings.model_dump() | {"steps": steps, "epochs": None if settings.steps else settings.epochs}
        record = {
            "backbone": backbone.name,
            "revision": backbone.revision,
            "settings": settled,
            "dtype": compute.dtype_name,
            "text_sha256": text_hash,
            "text": _text_counts(corpus, len(held)),
            **movement.history.to_json(),
            **movement_shares(movement, backbone.word_name),
        }
        scores.save(out, record)
        checkpoint.unlink(missing_ok=True)
    return scores


def _text_counts(corpus: TokenizedCorpus, held_out: int) -> dict[str, int]:
    return {
        "lines": len(corpus),
        "lines_dropped": corpus.dropped,
        "lines_held_out": held_out,
        "tokens": int(corpus.lengths.sum()),
    }


def movement_shares(movement: Movement, word_name: str) -> dict[str, Any]:
    """Return the shares of Σ|θ^l − θ| by layer (0 = embeddings) and by kind of module, and the word rows that moved."""
    sums = {
        parameter: float(movement.tensors[parameter.name].sum(dtype=torch.float64)) for parameter in movement.parameters
    }
    whole = sum(sums.values()) or 1.0
    layers: dict[str, float] = {}
    kinds: dict[str, float] = {}
    for parameter, moved in sums.items():
        layers[str(parameter.layer)] = layers.get(str(parameter.layer), 0.0) + moved / whole
        kinds[parameter.kind] = kinds.get(parameter.kind, 0.0) + moved / whole
    words = movement.tensors.get(word_name)
    rows = 0 if words is None else int((words != 0).any(dim=1).sum())
    return {"movement_by_layer": layers, "movement_by_kind": kinds, "word_rows_moved": rows}


@dataclass(frozen=True)
class Fit:
    """What a training did: all epochs, the one that was kept, warnings about the data, and the changed entries."""

    epochs: tuple[Epoch, ...]
    kept_epoch: int
    warnings: tuple[str, ...]
    changed_entries: int


@dataclass(frozen=True)
class Evaluation:
    """Measures by language, their means, and for every language gold labels and probabilities [N, labels]."""

    labels: tuple[str, ...]
    by_language: dict[str, Measures]
    probabilities: dict[str, np.ndarray]
    gold: dict[str, np.ndarray]

    @property
    def mean(self) -> dict[str, float]:
        """Plain means over the languages."""
        return mean_measures(self.by_language)

    def to_json(self) -> dict[str, Any]:
        """Return labels, measures and means as plain JSON."""
        languages = {language: found.to_json() for language, found in self.by_language.items()}
        return {"labels": list(self.labels), "languages": languages, "mean": self.mean}


class PromptClassifier:
    """A task on a backbone: trained with `fit` or loaded, then evaluated, used and saved.

    task: a name (``xnli``, ``americasnli``), a YAML file or a `Task`. method: a name of `methods.METHODS`. ticket: what
    ``ltp`` may train. Settings are those of `config.TrainSettings`, as keywords.
    Raises `InputError` for unknown names and bad settings, `MismatchError` for another backbone's ticket.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: str | Path | Task = "xnli",
        method: str = "ltp",
        ticket: Ticket | None = None,
        *,
        compute: Compute | None = None,
        settings: TrainSettings | None = None,
        **given: Any,
    ) -> None:
        self.backbone = backbone
        self.task = task if isinstance(task, Task) else load_task(task)
        self.method = find_method(method)
        if settings is not None and given:
            raise InputError(f"give settings=, or {', '.join(given)} as keywords, not both")
        self.settings = settings or TrainSettings.of(**given)
        self.compute = compute or resolve(str(backbone.device))
        self.ticket = _checked_ticket(self.method, ticket, backbone)
        backbone.check_length(self.settings.max_length)
        self.size = resolved_size(self.method, self.settings.size)
        self.language = self.settings.language or self.task.default_language
        self.template = self._template()
        self.reader = Reader(backbone, self._verbaliser(), self.compute)
        self.adapter: Adapter | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for every label word that is not a single piece of the vocabulary."""
        return () if self.reader.verbaliser is None else self.reader.verbaliser.notes

    @property
    def recipe(self) -> Recipe:
        """The method's recipe with the user's settings over it."""
        return resolved_recipe(self.method, self.settings)

    def fit(self, train: Table, dev: Table | None = None, *, on_epoch: Callable[[Epoch], None] | None = None) -> Fit:
        """Run stage 2 on labelled rows; the epoch with the best accuracy on `dev` is kept, without dev the last one.

        The backbone's weights are θ again afterwards; what was learnt is in `adapter`.
        """
        check_ticket_given(self.method, self.ticket)
        rows = rows_from(train, self.task)
        warning = check_balance(rows, self.task)
        examples, held = self._labelled(rows), None if dev is None else self._labelled(rows_from(dev, self.task))
        fingerprint = self.backbone.fingerprint  # before training
        weights_of_method = training_weights(
            self.method, self.backbone, ticket=self.ticket, words=self._words(examples), outputs=self.reader.outputs,
            size=self.size, seed=self.settings.seed,
        )  # fmt: skip
        with weights_of_method as weights:
            beside = self._beside()
            optimizer = build_optimizer(self.recipe, weights, beside, self.backbone.norms)
            epochs, kept = tune(
                self.reader, weights, beside, optimizer, examples, held, self.recipe,
                seed=self.settings.seed, on_epoch=on_epoch,
            )  # fmt: skip
            changes = tuple(weights.changes())
        self.adapter = self._adapter(changes, beside, weights.moves_output, fingerprint, epochs, kept)
        warnings = tuple(text for text in (warning,) if text)
        return Fit(tuple(epochs), kept, warnings, self.adapter.size)

    def evaluate(self, data: Mapping[str, Table], *, on_examples: Callable[[int], None] | None = None) -> Evaluation:
        """Evaluate on labelled rows by language."""
        tables = {language: rows_from(rows, self.task) for language, rows in data.items()}
        gold = {language: np.array(rows.labels) for language, rows in tables.items()}
        found = {language: self._probabilities(rows, on_examples) for language, rows in tables.items()}
        classes = len(self.task.labels)
        measures = {name: measure(gold[name], p.argmax(1), classes) for name, p in found.items()}
        return Evaluation(self.task.labels, measures, found, gold)

    def predict_proba(self, rows: Table, *, on_examples: Callable[[int], None] | None = None) -> np.ndarray:
        """Return probabilities [N, labels], fp32, of rows that need no labels."""
        return self._probabilities(rows_from(rows, self.task, labelled=False), on_examples)

    def predict(self, rows: Table) -> list[str]:
        """Return the most probable label of each row."""
        return [self.task.labels[i] for i in self.predict_proba(rows).argmax(1)]

    def save_pretrained(self, directory: str | Path) -> None:
        """Save the adapter; `from_pretrained` loads it again."""
        self._trained().save(Path(directory))

    def merge(self, out: str | Path) -> None:
        """Write adapter and backbone as one plain Hugging Face folder (see `merge.merge`).

        Raises `InputError` for a classifier that is not trained, and for a method with a classifier of its own.
        """
        adapter, verbaliser = self._trained(), self.reader.verbaliser
        if verbaliser is None:
            raise InputError(
                f"an adapter of method {self.method.name!r} has a classifier of its own, which a masked language "
                "model cannot hold; use it with `ltprompt predict`, or train with a prompting method"
            )
        parts = self.task.template_for(self.method.style, self.language)
        merge(
            self.backbone, adapter, out,
            task=self.task, parts=parts, verbaliser=verbaliser, max_length=self.settings.max_length,
        )  # fmt: skip

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, backbone: Backbone | None = None, *, compute: Compute | None = None
    ) -> PromptClassifier:
        """Load an adapter, and its backbone where none is given."""
        return cls.of(Adapter.load(Path(directory)), backbone, compute=compute)

    @classmethod
    def of(
        cls, adapter: Adapter, backbone: Backbone | None = None, *, compute: Compute | None = None
    ) -> PromptClassifier:
        """Build the classifier that an adapter describes."""
        saved = adapter.settings
        if backbone is None:
            backbone = Backbone.from_pretrained(
                adapter.backbone, revision=adapter.revision, device=compute.device if compute else "cpu"
            )
        adapter.check(backbone)
        classifier = cls(
            backbone, parse_task(saved["task"], "the adapter"), saved["method"], None,
            compute=compute, settings=TrainSettings.of(**saved["train"]),
        )  # fmt: skip
        classifier.adapter = adapter
        return classifier

    def _labelled(self, rows: Rows) -> LabelledExamples:
        assert rows.labels is not None
        return LabelledExamples(self.template.encode(rows.texts), np.array(rows.labels))

    def _template(self) -> Template:
        tokenizer, max_length = self.backbone.tokenizer, self.settings.max_length
        if self.method.style == "plain":
            return Template.plain(self.task.columns, tokenizer, max_length=max_length)
        return Template.build(
            self.task.template_for(self.method.style, self.language),
            self.task.columns,
            tokenizer,
            prompt_length=self.settings.prompt_length,
            max_length=max_length,
            strip_punctuation=self.task.strip_punctuation,
        )

    def _verbaliser(self) -> Verbaliser | None:
        if self.method.style == "plain":
            return None
        return Verbaliser.build(self.task.words_for(self.language), self.backbone.tokenizer)

    def _beside(self) -> nn.Module | None:
        """Return what is trained beside the backbone: the prompt, for plain fine-tuning the classifier, or nothing."""
        backbone, seed = self.backbone, self.settings.seed
        device, dtype = backbone.device, backbone.word_embeddings.weight.dtype
        if self.method.style == "plain":
            with seeded(seed):
                head = PooledClassifier(backbone.hidden_size, len(self.task.labels), backbone.init_std)
            return head.to(device, dtype)
        if not self.template.prompt_length:
            return None
        return PromptEncoder.seeded(self.template.prompt_length, backbone.width, seed, device=device, dtype=dtype)

    def _words(self, examples: LabelledExamples) -> list[int]:
        """Return the ids that training looks up, row 0 at prompt slots too."""
        words = {0}
        for example in examples.examples:
            words.update(example.ids[example.ids >= 0].tolist())
        return sorted(words)

    def _adapter(
        self, changes: tuple[Change, ...], beside: nn.Module | None, moves_output: bool, fingerprint: str,
        epochs: Sequence[Epoch], kept: int,
    ) -> Adapter:  # fmt: skip
        state = {} if beside is None else beside.state_dict()
        folded = fold(beside)
        return Adapter(
            changes=changes,
            shapes={change.name: tuple(self.backbone.parameters[change.name].shape) for change in changes},
            prompt=torch.zeros(0, self.backbone.width) if folded is None else folded.cpu(),
            moves_output=moves_output,
            fingerprint=fingerprint,
            backbone=self.backbone.name,
            revision=self.backbone.revision,
            settings={
                "task": self.task.model_dump(mode="json"),
                "method": self.method.name,
                "train": self.settings.model_dump(),
            },
            record={
                "recipe": asdict(self.recipe),
                "dtype": self.compute.dtype_name,
                "ticket": _ticket_record(self.ticket),
                "epochs": [asdict(epoch) for epoch in epochs],
                "kept_epoch": kept,
            },
            prompt_encoder={name: value.detach().cpu().clone() for name, value in state.items()}
            if self.settings.keep_prompt_encoder
            else {},
        )

    def _trained(self) -> Adapter:
        if self.adapter is None:
            raise InputError("this classifier is not trained yet; call fit first or load one with from_pretrained")
        return self.adapter

    def _probabilities(self, rows: Rows, on_examples: Callable[[int], None] | None) -> np.ndarray:
        adapter = self._trained()
        examples = self.template.encode(rows.texts)
        prompt = adapter.prompt.to(self.backbone.device) if len(adapter.prompt) else None
        with self.backbone.applied(adapter):
            return softmax(self.reader.predict(examples, prompt, on_batch=on_examples))


def resolved_recipe(method: Method, settings: TrainSettings) -> Recipe:
    """Return a method's recipe with the user's settings over it; one rate given means both, as the paper has one."""
    names = ("epochs", "batch_size", "lr", "schedule")
    chosen = {name: value for name in names if (value := getattr(settings, name)) is not None}
    return replace(method.recipe, **chosen, prompt_lr=settings.prompt_lr or settings.lr or method.recipe.prompt_lr)


def check_place(out: str | Path, file: str, what: str) -> None:
    """Raise `InputError` where `out` holds a finished result or cannot be made; commands ask before their long work."""
    out = Path(out)
    if (out / file).exists():
        raise InputError(f"{out} already holds {what}; use it, choose another --out, or delete it")
    nearest = next(place for place in (out, *out.parents) if place.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise InputError(f"{out} cannot be written: {nearest} is not a folder that lets you; choose another --out")


def check_ticket_given(method: Method, ticket: object) -> None:
    """Raise `InputError` where a method that trains a ticket has none."""
    if method.trains == "ticket" and ticket is None:
        raise InputError(f"method {method.name!r} trains a ticket; give one with --ticket, or use method 'prompt-only'")


def _checked_ticket(method: Method, ticket: Ticket | None, backbone: Backbone) -> Ticket | None:
    if method.trains != "ticket":
        if ticket is not None:
            raise InputError(f"method {method.name!r} takes no ticket; leave it out or use method 'ltp'")
        return None
    if ticket is not None:
        ticket.check(backbone.fingerprint)
    return ticket


def _ticket_record(ticket: Ticket | None) -> dict[str, Any] | None:
    if ticket is None:
        return None
    names = ("criterion", "seed", "strategy", "ratio", "scope", "layers", "size", "scores_sha256")
    return {name: getattr(ticket, name) for name in names}
