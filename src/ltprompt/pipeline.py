"""The few calls a user makes: find scores, fit a classifier, evaluate it, keep it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltprompt.adapter import Adapter, revert
from ltprompt.backbone import Backbone
from ltprompt.changes import Change
from ltprompt.config import ScoresSettings, TrainSettings
from ltprompt.corpus import TokenizedCorpus, text_sha256
from ltprompt.dense import DenseWeights
from ltprompt.device import Compute, resolve
from ltprompt.errors import InputError
from ltprompt.evaluation import Measures, Reader, mean_measures, measure, softmax
from ltprompt.files import SCORES_CHECKPOINT, canonical_json, sha256
from ltprompt.masking import split_lines
from ltprompt.methods import Method, Recipe, build_optimizer, find_method
from ltprompt.mlm import Movement, Watcher, find_movement
from ltprompt.originals import originals
from ltprompt.packed import PackedWeights
from ltprompt.prompt import PromptEncoder
from ltprompt.scores import Scores
from ltprompt.tasks import Rows, Task, check_balance, load_task, parse_task, rows_from
from ltprompt.template import Encoded, Template
from ltprompt.ticket import Ticket
from ltprompt.training import Epoch, LabelledExamples, fold, tune
from ltprompt.verbaliser import Verbaliser

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
    revert(backbone)
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

    task: a name (``xnli``, ``americasnli``), a YAML file or a `Task`. method: ``ltp``, ``sp`` or ``prompt-only``.
    ticket: what ``ltp`` may train. Settings are those of `config.TrainSettings`, as keywords.
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
        self.language = self.settings.language or self.task.default_language
        words = self.task.words_for(self.language)
        self.reader = Reader(backbone, Verbaliser.build(words, backbone.tokenizer), self.compute)
        self.template = Template.build(
            self.task.template_for(self.method.style, self.language),
            self.task.columns,
            backbone.tokenizer,
            prompt_length=self.settings.prompt_length,
            max_length=self.settings.max_length,
            strip_punctuation=self.task.strip_punctuation,
        )
        self.adapter: Adapter | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for every label word that is not a single piece of the vocabulary."""
        return self.reader.verbaliser.notes

    @property
    def recipe(self) -> Recipe:
        """The method's recipe with the user's settings over it."""
        given = {name: getattr(self.settings, name) for name in ("epochs", "batch_size", "lr", "schedule")}
        chosen = {name: value for name, value in given.items() if value is not None}
        # A user who sets one rate means both, as the paper has one for everything.
        prompt_lr = self.settings.prompt_lr or self.settings.lr or self.method.recipe.prompt_lr
        return replace(self.method.recipe, **chosen, prompt_lr=prompt_lr)

    def fit(self, train: Table, dev: Table | None = None, *, on_epoch: Callable[[Epoch], None] | None = None) -> Fit:
        """Run stage 2 on labelled rows; the epoch with the best accuracy on `dev` is kept, without dev the last one.

        The backbone's weights are θ again afterwards; what was learnt is in `adapter`.
        """
        check_ticket_given(self.method, self.ticket)
        rows = rows_from(train, self.task)
        warning = check_balance(rows, self.task)
        examples, held = self._labelled(rows), None if dev is None else self._labelled(rows_from(dev, self.task))
        revert(self.backbone)
        fingerprint, device = self.backbone.fingerprint, self.backbone.device
        master = self.backbone.word_embeddings.weight.dtype
        prompt = PromptEncoder.seeded(
            self.settings.prompt_length, self.backbone.width, self.settings.seed, device=device, dtype=master
        )
        with ExitStack() as stack:
            stack.callback(self.backbone.model.eval)
            weights = self._weights(examples.examples, stack, master)
            optimizer = build_optimizer(self.recipe, weights, prompt)
            epochs, kept = tune(
                self.reader, weights, prompt, optimizer, examples, held, self.recipe,
                seed=self.settings.seed, on_epoch=on_epoch,
            )  # fmt: skip
            changes = tuple(weights.changes())
        self.adapter = self._adapter(changes, prompt, weights.moves_output, fingerprint, epochs, kept)
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

    def _weights(
        self, examples: Sequence[Encoded], stack: ExitStack, master: torch.dtype
    ) -> PackedWeights | DenseWeights:
        outputs = self.reader.verbaliser.flat_ids
        if self.method.trains == "everything":
            theta = stack.enter_context(originals(self.backbone, self.backbone.parameters))
            dense = DenseWeights(self.backbone, theta, outputs)
            stack.callback(dense.close)
            return dense
        # Row 0 and padding are looked up at prompt slots and behind short examples, where no gradient arrives.
        words = {0, self.backbone.tokenizer.pad_token_id}
        for example in examples:
            words.update(example.ids[example.ids >= 0].tolist())
        packed = PackedWeights(self.backbone, self.ticket, sorted(words), outputs, master=master)
        stack.callback(packed.close)
        return packed

    def _adapter(
        self, changes: tuple[Change, ...], prompt: PromptEncoder, moves_output: bool, fingerprint: str,
        epochs: Sequence[Epoch], kept: int,
    ) -> Adapter:  # fmt: skip
        encoder = {name: value.detach().cpu().clone() for name, value in prompt.state_dict().items()}
        return Adapter(
            changes=changes,
            shapes={change.name: tuple(self.backbone.parameters[change.name].shape) for change in changes},
            prompt=fold(prompt).cpu(),
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
            prompt_encoder=encoder if self.settings.keep_prompt_encoder else {},
        )

    def _trained(self) -> Adapter:
        if self.adapter is None:
            raise InputError("this classifier is not trained yet; call fit first or load one with from_pretrained")
        return self.adapter

    def _probabilities(self, rows: Rows, on_examples: Callable[[int], None] | None) -> np.ndarray:
        adapter = self._trained()
        adapter.apply(self.backbone)
        prompt = adapter.prompt.to(self.backbone.device)
        return softmax(self.reader.predict(self.template.encode(rows.texts), prompt, on_batch=on_examples))


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
    names = ("strategy", "ratio", "scope", "layers", "size", "scores_sha256")
    return {name: getattr(ticket, name) for name in names}
