"""The few calls a user makes of a classifier: fit it, evaluate it, use it, keep it, merge it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ltprompt.adapter import Adapter
from ltprompt.backbone.model import Backbone, shared_backbone
from ltprompt.device import Compute, resolve
from ltprompt.errors import InputError, choices
from ltprompt.merge import merge
from ltprompt.settings import TrainSettings
from ltprompt.stage2.fit import Fitted, fit, training_bar
from ltprompt.stage2.forward import Reader
from ltprompt.stage2.measures import Evaluation, measure, softmax
from ltprompt.stage2.methods import Method, Recipe, choose_method, resolved_rank
from ltprompt.stage2.readout import lay_out
from ltprompt.stage2.training import Epoch, LabelledExamples
from ltprompt.tasks import Rows, Table, Task, check_balance, load_task, parse_task, rows_from
from ltprompt.tasks.template import Template
from ltprompt.terminal import bar
from ltprompt.tickets.ticket import Ticket


@dataclass(frozen=True)
class Fit:
    """What a training did: all epochs, the one that was kept, warnings about the data, and the changed entries."""

    epochs: tuple[Epoch, ...]
    kept_epoch: int
    warnings: tuple[str, ...]
    changed_entries: int


@dataclass(frozen=True, eq=False)
class Resolved:
    """What a classifier's parameters stand for, checked against each other.

    given: the parameters. rank: of what the method adds to the backbone; None where it adds nothing. template: fills in
    the rows that `reader` runs.
    """

    given: Mapping[str, Any]
    backbone: Backbone
    task: Task
    method: Method
    ticket: Ticket | None
    settings: TrainSettings
    compute: Compute
    rank: float | None
    language: str
    template: Template
    reader: Reader

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Find out and check; what needs no backbone comes first, so that a slip is told before one is loaded."""
        task = given["task"] if isinstance(given["task"], Task) else load_task(given["task"])
        method = choose_method(given["method"], given["template"], given["trains"])
        settings = _settings(given)
        rank = resolved_rank(method, settings.size)
        ticket = _taken_ticket(method, given["ticket"])
        compute = _computing(given["device"], given["dtype"], given["compute"], given["backbone"])
        backbone = given["backbone"]
        if not isinstance(backbone, Backbone):
            backbone = shared_backbone(backbone, device=compute.device)
        if ticket is not None:
            ticket.check(backbone.fingerprint)
        backbone.check_length(settings.max_length)
        language = settings.language or task.default_language
        template, readout = lay_out(
            method.template, task, language, backbone.tokenizer,
            prompt_length=settings.prompt_length, max_length=settings.max_length,
        )  # fmt: skip
        reader = Reader(backbone, readout, compute)
        return cls(given, backbone, task, method, ticket, settings, compute, rank, language, template, reader)

    @property
    def recipe(self) -> Recipe:
        """The method's recipe with the user's settings over it."""
        return resolved_recipe(self.method, self.settings)

    def labelled(self, rows: Rows) -> LabelledExamples:
        """Fill in labelled rows."""
        assert rows.labels is not None
        return LabelledExamples(self.template.encode(rows.texts), np.array(rows.labels))


class _Parameters:
    """A classifier's parameters, each an attribute of its name, as it was given, and scikit-learn's ways with them.

    scikit-learn itself, whose import takes a second, is needed and loaded by no more than `__sklearn_tags__`.
    """

    _current: Resolved | None = None  # of the parameters as they were when last asked for

    def __init__(
        self,
        backbone: Backbone | str | Path,
        task: str | Path | Task = "xnli",
        method: str | None = None,
        ticket: Ticket | str | Path | None = None,
        *,
        template: str | None = None,
        trains: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        compute: Compute | None = None,
        settings: TrainSettings | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        prompt_lr: float | None = None,
        schedule: str | None = None,
        prompt_length: int = 4,
        max_length: int = 256,
        language: str | None = None,
        seed: int = 0,
        keep_prompt_encoder: bool = False,
        size: float | None = None,
        **unknown: Any,
    ) -> None:
        for name in unknown:
            raise InputError(_unknown(name))
        self.backbone = backbone
        self.task = task
        self.method = method
        self.ticket = ticket
        self.template = template
        self.trains = trains
        self.device = device
        self.dtype = dtype
        self.compute = compute
        self.settings = settings
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.prompt_lr = prompt_lr
        self.schedule = schedule
        self.prompt_length = prompt_length
        self.max_length = max_length
        self.language = language
        self.seed = seed
        self.keep_prompt_encoder = keep_prompt_encoder
        self.size = size
        if isinstance(backbone, Backbone):
            self._current = Resolved.of(self.get_params())

    @property
    def resolved(self) -> Resolved:
        """What the parameters, as they are now, stand for; a backbone given by name is loaded."""
        given = self.get_params()
        if self._current is None or any(self._current.given[name] is not value for name, value in given.items()):
            self._current = Resolved.of(given)
        return self._current

    def __repr__(self) -> str:
        defaults = _parameters(type(self))
        given = [f"{name}={value!r}" for name, value in self.get_params().items() if value is not defaults[name]]
        return f"{type(self).__name__}({', '.join(given)})"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return every parameter by name, as it was given. deep: without effect, no parameter being an estimator."""
        return {name: getattr(self, name) for name in _parameters(type(self))}

    def set_params(self, **given: Any) -> Self:
        """Set parameters, which the next `fit` checks and uses. Raises `InputError` for an unknown one."""
        known = _parameters(type(self))
        for name, value in given.items():
            if name not in known:
                raise InputError(_unknown(name))
            setattr(self, name, value)
        return self

    def __getstate__(self) -> dict[str, Any]:
        found = ("_current", "_fitted")  # once more, by who unpickles
        return {name: value for name, value in vars(self).items() if name not in found}

    def __sklearn_clone__(self) -> Self:
        return type(self)(**self.get_params())  # what they hold is shared, for no one changes it

    def __sklearn_tags__(self) -> Any:
        kinds = import_module("sklearn.utils")
        return kinds.Tags(
            estimator_type="classifier",
            target_tags=kinds.TargetTags(required=False),  # rows may carry their labels
            classifier_tags=kinds.ClassifierTags(),
            input_tags=kinds.InputTags(two_d_array=False, string=True),
        )


class PromptClassifier(_Parameters):
    """A task on a backbone: trained with `fit` or loaded, then evaluated, used, saved and merged.

    It keeps to scikit-learn's contract: a parameter is an attribute of its name, as it was given, `fit` returns the
    classifier, and clones share their backbone. What parameters given as names stand for is found in `resolved`.

    backbone: a `Backbone`, or a name that `Backbone.from_pretrained` takes, loaded when first used, once a process.
    task: a name (``xnli``, ``americasnli``), a YAML file or a `Task`. method: a name of `methods.METHODS` or
    ``TEMPLATE+TRAINS``; instead of it, or agreeing with it, template and trains, its two axes (see `methods.TEMPLATES`
    and `methods.TRAINS`); `ltp` without any. ticket: what a method that trains one may train, a `Ticket` or what
    `Ticket.load` takes. device, dtype: as `device.resolve` takes them; the device of a `Backbone` is its own. compute:
    both at once, instead of them. The others are those of `settings.TrainSettings`; settings: all of them at once.

    After `fit`: history_, what it did; adapter, what was learnt; classes_, the task's labels in its own order, which is
    that of the columns of `predict_proba`. scikit-learn's measures of probabilities, such as ``roc_auc`` and
    ``neg_log_loss``, take them to be in alphabetical order: right only for a task that lists its labels so.
    Raises `InputError` for unknown names and bad settings, `MismatchError` for another backbone's ticket: at once with
    a `Backbone`, else when the backbone is first used. A keyword that is no parameter is refused at once.
    """

    adapter: Adapter | None = None
    history_: Fit
    classes_: np.ndarray
    _fitted: Resolved | None = None  # of the parameters that the adapter was trained with

    @property
    def reader(self) -> Reader:
        """What runs filled templates through the backbone."""
        return self.resolved.reader

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for every label word that is not a single piece of the vocabulary."""
        return self.reader.readout.notes

    @property
    def recipe(self) -> Recipe:
        """The method's recipe with the user's settings over it."""
        return self.resolved.recipe

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        dev: Any = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        progress: bool = False,
    ) -> Self:
        """Run stage 2 on labelled rows; the epoch with the best accuracy on `dev` is kept, without dev the last one.

        X: rows with their labels, or, with y, without. y: one label a row; a table of rows here is taken for `dev`.
        dev: rows with labels, or a pair of rows and labels. progress: show a bar, where nothing else hears of the
        epochs. What training did is in `history_`, what was learnt in `adapter`; the backbone's weights are θ again
        afterwards.
        """
        if _is_table(y):
            if dev is not None:
                raise InputError("dev rows are given twice, in second place and as `dev`; give them once")
            y, dev = None, y
        check_ticket_given(choose_method(self.method, self.template, self.trains), self.ticket)
        parts = self.resolved
        rows = rows_from(X, parts.task, labels=y)
        warning = check_balance(rows, parts.task)
        held = None if dev is None else parts.labelled(_dev_rows(dev, parts.task))
        fingerprint = parts.backbone.fingerprint  # before training
        shown = training_bar(parts.recipe.epochs) if progress and on_epoch is None else nullcontext(on_epoch)
        with shown as heard:
            fitted = fit(
                parts.reader, parts.labelled(rows), held, trains=parts.method.trains, recipe=parts.recipe,
                ticket=parts.ticket, rank=parts.rank, seed=parts.settings.seed, on_epoch=heard,
            )  # fmt: skip
        self._keep(_adapter(parts, fitted, fingerprint), parts)
        warnings = tuple(text for text in (warning,) if text)
        self.history_ = Fit(fitted.tuned.epochs, fitted.tuned.kept_epoch, warnings, self._trained()[0].size)
        return self

    def score(self, X: Any, y: Any = None) -> float:
        """Return the accuracy on rows with their labels, or on rows and, in y, one label a row."""
        adapter, parts = self._trained()
        rows = rows_from(X, parts.task, labels=y)
        return float((_probabilities(adapter, parts, rows).argmax(1) == np.array(rows.labels)).mean())

    def evaluate(
        self,
        data: Mapping[str, Table],
        *,
        on_examples: Callable[[int], None] | None = None,
        progress: bool = False,
    ) -> Evaluation:
        """Evaluate on labelled rows by language. progress: show a bar, where nothing else hears of the examples."""
        adapter, parts = self._trained()
        tables = {language: rows_from(rows, parts.task) for language, rows in data.items()}
        gold = {language: np.array(rows.labels) for language, rows in tables.items()}
        with _examples_bar("evaluating", sum(map(len, tables.values())), on_examples, progress) as heard:
            found = {language: _probabilities(adapter, parts, rows, heard) for language, rows in tables.items()}
        labels = parts.task.labels
        measures = {name: measure(gold[name], p.argmax(1), len(labels)) for name, p in found.items()}
        return Evaluation(labels, measures, found, gold, parts.compute.dtype_name)

    def predict_proba(
        self, X: Any, *, on_examples: Callable[[int], None] | None = None, progress: bool = False
    ) -> np.ndarray:
        """Return probabilities [N, labels], fp32, of rows that need no labels; columns are in the order of classes_.

        progress: show a bar, where nothing else hears of the examples.
        """
        adapter, parts = self._trained()
        rows = rows_from(X, parts.task, labelled=False)
        with _examples_bar("predicting", len(rows), on_examples, progress) as heard:
            return _probabilities(adapter, parts, rows, heard)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label [N] of each row, by name."""
        best = self.predict_proba(X).argmax(1)
        labels: np.ndarray = self.classes_[best]
        return labels

    def save_pretrained(self, directory: str | Path) -> None:
        """Save the adapter; `from_pretrained` loads it again."""
        self._trained()[0].save(Path(directory))

    def merge(self, out: str | Path) -> None:
        """Write adapter and backbone as one plain Hugging Face folder (see `merge.merge`).

        Raises `InputError` for a classifier that is not trained, and for a method with a classifier of its own.
        """
        adapter, used = self._trained()
        verbaliser = used.reader.readout.verbaliser
        if verbaliser is None:
            raise InputError(
                f"an adapter of method {used.method.name!r} has a classifier of its own, which a masked language "
                "model cannot hold; use it with `ltprompt predict`, or train with a prompting method"
            )
        parts = used.task.template_for(used.method.template, used.language)
        merge(
            used.backbone, adapter, out,
            task=used.task, parts=parts, verbaliser=verbaliser, max_length=used.settings.max_length,
        )  # fmt: skip

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        backbone: Backbone | str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        compute: Compute | None = None,
    ) -> PromptClassifier:
        """Load an adapter, and its backbone where none is given. device, dtype, compute: as `of` takes them."""
        return cls.of(Adapter.load(Path(directory)), backbone, device=device, dtype=dtype, compute=compute)

    @classmethod
    def of(
        cls,
        adapter: Adapter,
        backbone: Backbone | str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        compute: Compute | None = None,
    ) -> PromptClassifier:
        """Build the classifier that an adapter describes.

        device, dtype, compute: as the constructor takes them, but ``auto`` is the dtype that the adapter was trained in
        (see `device.resolve`), and without any a backbone that none is given for is loaded on the CPU.
        """
        if backbone is None and (device, compute) == ("auto", None):
            device = "cpu"
        compute = _computing(device, dtype, compute, backbone, trained=adapter.dtype)
        if backbone is None:
            backbone = Backbone.from_pretrained(adapter.backbone, revision=adapter.revision, device=compute.device)
        elif not isinstance(backbone, Backbone):
            backbone = shared_backbone(backbone, device=compute.device)
        adapter.check(backbone)
        saved = adapter.settings
        task = parse_task(saved["task"], "the adapter")
        classifier = cls(backbone, task, saved["method"], compute=compute, **saved["train"])
        classifier._keep(adapter, classifier.resolved)
        return classifier

    def _keep(self, adapter: Adapter, parts: Resolved) -> None:
        self.adapter, self._fitted = adapter, parts
        self.classes_ = np.array(parts.task.labels)

    def _trained(self) -> tuple[Adapter, Resolved]:
        if self.adapter is None:
            raise InputError("this classifier is not trained yet; call fit first or load one with from_pretrained")
        if self._fitted is None:
            self._fitted = self.resolved
        return self.adapter, self._fitted

    def __sklearn_is_fitted__(self) -> bool:
        return self.adapter is not None


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


def _taken_ticket(method: Method, ticket: Ticket | str | Path | None) -> Ticket | None:
    """Return the ticket, loaded where it is a name, of a method that takes one."""
    if ticket is not None and method.trains != "ticket":
        raise InputError(f"method {method.name!r} takes no ticket; leave it out or use method 'ltp'")
    return ticket if ticket is None or isinstance(ticket, Ticket) else Ticket.load(ticket)


def _parameters(kind: type) -> dict[str, Any]:
    """Return the names that a constructor takes, with their defaults."""
    found = inspect.signature(kind).parameters.values()
    return {one.name: one.default for one in found if one.kind is not one.VAR_KEYWORD}


def _unknown(name: str) -> str:
    known = _parameters(PromptClassifier)
    return f"{name}: unknown key; {choices(name, known)}"


def _settings(given: Mapping[str, Any]) -> TrainSettings:
    """Return the settings that parameters hold, all at once or one by one."""
    defaults = _parameters(PromptClassifier)
    single = {name: given[name] for name in TrainSettings.model_fields}
    whole: TrainSettings | None = given["settings"]
    if whole is None:
        return TrainSettings.of(**single)
    if changed := [name for name, value in single.items() if value != defaults[name]]:
        raise InputError(f"give settings=, or {', '.join(changed)} as keywords, not both")
    return whole


def _computing(
    device: str,
    dtype: str,
    compute: Compute | None,
    backbone: Backbone | str | Path | None,
    *,
    trained: str | None = None,
) -> Compute:
    """Return where and how to compute. trained: as `device.resolve` takes it."""
    if compute is not None:
        if (device, dtype) != ("auto", "auto"):
            raise InputError("give compute=, or device= and dtype=, not both")
        return compute
    if not isinstance(backbone, Backbone):
        return resolve(device, dtype, trained=trained)
    own = backbone.device
    wanted = own if device == "auto" else resolve(device).device
    if wanted.type != own.type or wanted.index not in (None, own.index):
        raise InputError(
            f"device {device!r} is not where the backbone is, {own}; leave it out, or load the backbone there with "
            f"Backbone.from_pretrained(..., device={device!r})"
        )
    return resolve(str(own), dtype, trained=trained)


def _is_table(y: Any) -> bool:
    """Return whether what stands in the place of labels is a table of rows."""
    if isinstance(y, Rows) or hasattr(y, "columns") or hasattr(y, "column_names"):
        return True
    return isinstance(y, Sequence) and len(y) > 0 and isinstance(y[0], (Mapping, tuple, list))


def _dev_rows(dev: Any, task: Task) -> Rows:
    """Return dev rows, given as a table or as a pair of rows and labels."""
    apart = isinstance(dev, tuple) and len(dev) == 2 and not isinstance(dev[0], (Mapping, tuple, str))
    return rows_from(dev[0], task, labels=dev[1]) if apart else rows_from(dev, task)


def _examples_bar(
    title: str, total: int, on_examples: Callable[[int], None] | None, progress: bool
) -> AbstractContextManager[Callable[[int], None] | None]:
    """Return the context of what hears of examples: a bar where one is asked for and nothing else hears of them."""
    return bar(title, total, "example") if progress and on_examples is None else nullcontext(on_examples)


def _probabilities(
    adapter: Adapter, parts: Resolved, rows: Rows, on_examples: Callable[[int], None] | None = None
) -> np.ndarray:
    examples = parts.template.encode(rows.texts)
    folded = adapter.folded.to(parts.backbone.device) if len(adapter.folded) else None
    with parts.backbone.applied(adapter):
        return softmax(parts.reader.predict(examples, folded, on_batch=on_examples))


def _adapter(parts: Resolved, fitted: Fitted, fingerprint: str) -> Adapter:
    backbone, folded = parts.backbone, fitted.folded
    return Adapter(
        changes=fitted.changes,
        shapes={change.name: tuple(backbone.parameters[change.name].shape) for change in fitted.changes},
        folded=torch.zeros(0, backbone.width) if folded is None else folded.cpu(),
        moves_output=fitted.moves_output,
        fingerprint=fingerprint,
        backbone=backbone.name,
        revision=backbone.revision,
        settings={
            "task": parts.task.model_dump(mode="json"),
            "method": parts.method.name,
            "train": parts.settings.model_dump(),
        },
        record={
            "recipe": asdict(parts.recipe),
            "dtype": parts.compute.dtype_name,
            "ticket": _ticket_record(parts.ticket),
            "epochs": [asdict(epoch) for epoch in fitted.tuned.epochs],
            "kept_epoch": fitted.tuned.kept_epoch,
        },
        state=fitted.state if parts.settings.keep_prompt_encoder else {},
    )


def _ticket_record(ticket: Ticket | None) -> dict[str, Any] | None:
    if ticket is None:
        return None
    names = ("criterion", "seed", "strategy", "ratio", "scope", "layers", "size", "scores_sha256")
    return {name: getattr(ticket, name) for name in names}
