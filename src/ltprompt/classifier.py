"""The few calls a user makes of a classifier: fit it, evaluate it, use it, keep it, merge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltprompt.adapter import Adapter
from ltprompt.backbone.model import Backbone
from ltprompt.device import Compute, resolve
from ltprompt.errors import InputError
from ltprompt.merge import merge
from ltprompt.settings import TrainSettings
from ltprompt.stage2.fit import Fitted, fit
from ltprompt.stage2.forward import Reader
from ltprompt.stage2.measures import Evaluation, measure, softmax
from ltprompt.stage2.methods import Method, Recipe, choose_method, resolved_rank
from ltprompt.stage2.readout import lay_out
from ltprompt.stage2.training import Epoch, LabelledExamples
from ltprompt.tasks import Rows, Task, check_balance, load_task, parse_task, rows_from
from ltprompt.tickets.ticket import Ticket

Table = Rows | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Fit:
    """What a training did: all epochs, the one that was kept, warnings about the data, and the changed entries."""

    epochs: tuple[Epoch, ...]
    kept_epoch: int
    warnings: tuple[str, ...]
    changed_entries: int


class PromptClassifier:
    """A task on a backbone: trained with `fit` or loaded, then evaluated, used, saved and merged.

    task: a name (``xnli``, ``americasnli``), a YAML file or a `Task`. method: a name of `methods.METHODS` or
    ``TEMPLATE+TRAINS``; instead of it, or agreeing with it, template and trains, its two axes (see `methods.TEMPLATES`
    and `methods.TRAINS`); `ltp` without any. ticket: what a method that trains one may train. Settings are those of
    `settings.TrainSettings`, as keywords.
    Raises `InputError` for unknown names and bad settings, `MismatchError` for another backbone's ticket.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: str | Path | Task = "xnli",
        method: str | None = None,
        ticket: Ticket | None = None,
        *,
        template: str | None = None,
        trains: str | None = None,
        compute: Compute | None = None,
        settings: TrainSettings | None = None,
        **given: Any,
    ) -> None:
        self.backbone = backbone
        self.task = task if isinstance(task, Task) else load_task(task)
        self.method = choose_method(method, template, trains)
        if settings is not None and given:
            raise InputError(f"give settings=, or {', '.join(given)} as keywords, not both")
        self.settings = settings or TrainSettings.of(**given)
        self.compute = compute or resolve(str(backbone.device))
        self.ticket = _checked_ticket(self.method, ticket, backbone)
        backbone.check_length(self.settings.max_length)
        self.rank = resolved_rank(self.method, self.settings.size)
        self.language = self.settings.language or self.task.default_language
        self.template, readout = lay_out(
            self.method.template, self.task, self.language, backbone.tokenizer,
            prompt_length=self.settings.prompt_length, max_length=self.settings.max_length,
        )  # fmt: skip
        self.reader = Reader(backbone, readout, self.compute)
        self.adapter: Adapter | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for every label word that is not a single piece of the vocabulary."""
        return self.reader.readout.notes

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
        fitted = fit(
            self.reader, examples, held, trains=self.method.trains, recipe=self.recipe, ticket=self.ticket,
            rank=self.rank, seed=self.settings.seed, on_epoch=on_epoch,
        )  # fmt: skip
        self.adapter = self._adapter(fitted, fingerprint)
        warnings = tuple(text for text in (warning,) if text)
        return Fit(fitted.tuned.epochs, fitted.tuned.kept_epoch, warnings, self.adapter.size)

    def evaluate(self, data: Mapping[str, Table], *, on_examples: Callable[[int], None] | None = None) -> Evaluation:
        """Evaluate on labelled rows by language."""
        tables = {language: rows_from(rows, self.task) for language, rows in data.items()}
        gold = {language: np.array(rows.labels) for language, rows in tables.items()}
        found = {language: self._probabilities(rows, on_examples) for language, rows in tables.items()}
        classes = len(self.task.labels)
        measures = {name: measure(gold[name], p.argmax(1), classes) for name, p in found.items()}
        return Evaluation(self.task.labels, measures, found, gold, self.compute.dtype_name)

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
        adapter, verbaliser = self._trained(), self.reader.readout.verbaliser
        if verbaliser is None:
            raise InputError(
                f"an adapter of method {self.method.name!r} has a classifier of its own, which a masked language "
                "model cannot hold; use it with `ltprompt predict`, or train with a prompting method"
            )
        parts = self.task.template_for(self.method.template, self.language)
        merge(
            self.backbone, adapter, out,
            task=self.task, parts=parts, verbaliser=verbaliser, max_length=self.settings.max_length,
        )  # fmt: skip

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, backbone: Backbone | None = None, *, compute: Compute | None = None
    ) -> PromptClassifier:
        """Load an adapter, and its backbone where none is given. compute: as `of` takes it."""
        return cls.of(Adapter.load(Path(directory)), backbone, compute=compute)

    @classmethod
    def of(
        cls, adapter: Adapter, backbone: Backbone | None = None, *, compute: Compute | None = None
    ) -> PromptClassifier:
        """Build the classifier that an adapter describes.

        compute: without it the backbone's device, in the dtype that the adapter was trained in (see `device.resolve`).
        """
        saved = adapter.settings
        if backbone is None:
            backbone = Backbone.from_pretrained(
                adapter.backbone, revision=adapter.revision, device=compute.device if compute else "cpu"
            )
        adapter.check(backbone)
        compute = compute or resolve(str(backbone.device), trained=adapter.dtype)
        classifier = cls(
            backbone, parse_task(saved["task"], "the adapter"), saved["method"], None,
            compute=compute, settings=TrainSettings.of(**saved["train"]),
        )  # fmt: skip
        classifier.adapter = adapter
        return classifier

    def _labelled(self, rows: Rows) -> LabelledExamples:
        assert rows.labels is not None
        return LabelledExamples(self.template.encode(rows.texts), np.array(rows.labels))

    def _adapter(self, fitted: Fitted, fingerprint: str) -> Adapter:
        backbone, folded = self.backbone, fitted.folded
        return Adapter(
            changes=fitted.changes,
            shapes={change.name: tuple(backbone.parameters[change.name].shape) for change in fitted.changes},
            folded=torch.zeros(0, backbone.width) if folded is None else folded.cpu(),
            moves_output=fitted.moves_output,
            fingerprint=fingerprint,
            backbone=backbone.name,
            revision=backbone.revision,
            settings={
                "task": self.task.model_dump(mode="json"),
                "method": self.method.name,
                "train": self.settings.model_dump(),
            },
            record={
                "recipe": asdict(self.recipe),
                "dtype": self.compute.dtype_name,
                "ticket": _ticket_record(self.ticket),
                "epochs": [asdict(epoch) for epoch in fitted.tuned.epochs],
                "kept_epoch": fitted.tuned.kept_epoch,
            },
            state=fitted.state if self.settings.keep_prompt_encoder else {},
        )

    def _trained(self) -> Adapter:
        if self.adapter is None:
            raise InputError("this classifier is not trained yet; call fit first or load one with from_pretrained")
        return self.adapter

    def _probabilities(self, rows: Rows, on_examples: Callable[[int], None] | None) -> np.ndarray:
        adapter = self._trained()
        examples = self.template.encode(rows.texts)
        folded = adapter.folded.to(self.backbone.device) if len(adapter.folded) else None
        with self.backbone.applied(adapter):
            return softmax(self.reader.predict(examples, folded, on_batch=on_examples))


def merge_adapter(adapter: str | Path, out: str | Path, backbone: Backbone | None = None) -> None:
    """Write an adapter's folder and its backbone as one plain Hugging Face folder, as `PromptClassifier.merge` does.

    adapter: what `save_pretrained` wrote. out: must not exist. backbone: loaded by the adapter's record where none is
    given. The errors are those of `PromptClassifier.from_pretrained` and `merge`.
    """
    PromptClassifier.from_pretrained(adapter, backbone).merge(out)


def resolved_recipe(method: Method, settings: TrainSettings) -> Recipe:
    """Return a method's recipe with the user's settings over it."""
    names = ("epochs", "batch_size", "lr", "prompt_lr", "schedule")
    return method.recipe.overridden(**{name: getattr(settings, name) for name in names})


def check_ticket_given(method: Method, ticket: object) -> None:
    """Raise `InputError` where a method that trains a ticket has none."""
    if method.trains == "ticket" and ticket is None:
        raise InputError(f"method {method.name!r} trains a ticket; give one as `ticket`, or use method 'prompt-only'")


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
