"""A grid: a YAML file whose lists multiply, checked as a whole, and the runs that it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ltprompt.errors import InputError, choices, explain
from ltprompt.experiments.data.settings import DataSettings
from ltprompt.experiments.records import FIGURES, TABLES, Setting
from ltprompt.files.text import read_utf8
from ltprompt.files.yaml import parse_yaml
from ltprompt.settings import ScoresSettings, Settings, TrainSettings
from ltprompt.stage2.methods import TEMPLATES, TRAINS, choose_method, find_method
from ltprompt.tickets.header import CRITERIA, STRATEGIES
from ltprompt.tickets.selection import SCOPES

LAYOUTS = (*TABLES, *FIGURES)
GRIDS = "ltprompt.experiments.shipped"
PARTS = "parts"


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _known(names: Sequence[str]) -> Any:
    def check(value: Any) -> Any:
        if value not in names:
            raise ValueError(f"unknown name {value!r}; {choices(str(value), names)}")
        return value

    return BeforeValidator(check)


def _method(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    with _as_problem():
        return find_method(value).name


@contextmanager
def _as_problem() -> Iterator[None]:
    """Let an error in the block be one of the problems that are found in a grid."""
    try:
        yield
    except InputError as error:
        raise ValueError(str(error)) from error


Method = Annotated[str, BeforeValidator(_method)]
Template = Annotated[str, _known(TEMPLATES)]
Trained = Annotated[str, _known(TRAINS)]
Criterion = Annotated[str, _known(CRITERIA)]
Strategy = Annotated[str, _known(STRATEGIES)]
Scope = Annotated[Literal["global", "layer"], _known(SCOPES)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[int, Field(ge=1, strict=True)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _TicketKeys(Settings):
    """How tickets are cut; every value may be a list.

    criterion: what ranks the parameters, ``select`` in a grid. ticket_seed: of a random choice, the run's own seed
    where it is None.
    """

    criterion: Annotated[tuple[Criterion, ...], BeforeValidator(_listed), Field(validation_alias="select")] = ("delta",)
    strategy: Annotated[tuple[Strategy, ...], BeforeValidator(_listed)] = ("decoupled",)
    ratio: Annotated[tuple[Ratio, ...], BeforeValidator(_listed)] = ()
    scope: Annotated[tuple[Scope, ...], BeforeValidator(_listed)] = ("global",)
    layers: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ("all",)
    ticket_seed: Annotated[tuple[Natural | None, ...], BeforeValidator(_listed)] = (None,)


class _TrainKeys(Settings):
    """Settings of training, see `TrainSettings`; every value may be a list, None is the method's own."""

    epochs: Annotated[tuple[Positive | None, ...], BeforeValidator(_listed)] = (None,)
    batch_size: Annotated[tuple[Positive | None, ...], BeforeValidator(_listed)] = (None,)
    lr: Annotated[tuple[Rate | None, ...], BeforeValidator(_listed)] = (None,)
    prompt_lr: Annotated[tuple[Rate | None, ...], BeforeValidator(_listed)] = (None,)
    schedule: Annotated[tuple[Literal["constant", "linear"] | None, ...], BeforeValidator(_listed)] = (None,)
    prompt_length: Annotated[tuple[Positive | None, ...], BeforeValidator(_listed)] = (None,)
    max_length: Annotated[tuple[Positive | None, ...], BeforeValidator(_listed)] = (None,)


class TicketEntry(_TicketKeys):
    """Tickets that a grid makes though no run needs them, such as for Figure 3."""


class MethodEntry(_TicketKeys, _TrainKeys):
    """Methods with their parameters; a bare name stands for ``{method: NAME}``.

    method: by name. template, trains: the axes of a method, instead of its name; one that is not given is that of
    `ltp`. ticket: a ready ticket's file, instead of `ratio` and its like. size: of what `lora` and its like add.
    """

    method: Annotated[tuple[Method, ...], BeforeValidator(_listed)] = ()
    template: Annotated[tuple[Template, ...], BeforeValidator(_listed)] = ()
    trains: Annotated[tuple[Trained, ...], BeforeValidator(_listed)] = ()
    ticket: str | None = None
    size: Annotated[tuple[Rate | None, ...], BeforeValidator(_listed)] = (None,)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names of all methods that the entry asks for."""
        axes = product(self.method or (None,), self.template or (None,), self.trains or (None,))
        return tuple(dict.fromkeys(choose_method(*one).name for one in axes))

    @model_validator(mode="before")
    @classmethod
    def _take_name(cls, given: Any) -> Any:
        return {"method": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _check_ticket(self) -> MethodEntry:
        if not (self.method or self.template or self.trains):
            raise ValueError("method is missing; give its name, or template and trains")
        with _as_problem():
            names = ", ".join(self.chosen)
        trains_ticket = {find_method(name).trains == "ticket" for name in self.chosen}
        cut = bool(self.ratio) or bool(
            {"criterion", "strategy", "scope", "layers", "ticket_seed"} & self.model_fields_set
        )
        if trains_ticket == {True} and bool(self.ratio) == bool(self.ticket):
            raise ValueError(f"{names} needs a ratio, such as ratio: 0.2, or a ready ticket's file")
        if self.ticket and cut:
            raise ValueError("a ready ticket is cut already; remove ratio, select, strategy, scope and layers")
        if False in trains_ticket and (cut or self.ticket):
            raise ValueError(f"only a method that trains a ticket takes one, not {names}; part them into two entries")
        return self


class ScoresSection(ScoresSettings):
    """Stage 1 of a grid: its settings, and the text, or the folder of scores that were found before.

    text: files, one sentence or paragraph a line. folder: with ``{strategy}`` where there are several.
    """

    text: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    folder: str | None = None

    @model_validator(mode="after")
    def _check_source(self) -> ScoresSection:
        if "strategy" in self.model_fields_set:
            raise ValueError("strategy stands with the methods or tickets, not with the scores; move it")
        if not self.text and not self.folder:
            raise ValueError("give the text to find scores on, such as text: wiki/en.txt, or a folder of scores")
        return self


class Part(_TrainKeys):
    """A part of a grid whose lists all multiply.

    backbone: hub id, folder or mini. revision: of a hub id. task: name or file. setting: ``zero-shot`` or
    ``in-language``. data: see `DataSettings`. scores: stage 1. shots, seeds, methods: what is run. tickets: made
    besides. The settings of training hold for every method that has none of its own.
    """

    backbone: Annotated[tuple[str, ...], BeforeValidator(_listed)]
    revision: str | None = None
    task: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ("xnli",)
    setting: Annotated[tuple[Setting, ...], BeforeValidator(_listed)] = ("zero-shot",)
    data: Annotated[tuple[DataSettings, ...], BeforeValidator(_listed)] = ()
    scores: ScoresSection | None = None
    shots: Annotated[tuple[Positive, ...], BeforeValidator(_listed)] = ()
    seeds: Annotated[tuple[Natural, ...], BeforeValidator(_listed)] = ()
    methods: Annotated[tuple[MethodEntry, ...], BeforeValidator(_listed)] = ()
    tickets: Annotated[tuple[TicketEntry, ...], BeforeValidator(_listed)] = ()

    @model_validator(mode="after")
    def _check_whole(self) -> Part:
        missing = [name for name in ("data", "shots", "seeds") if self.methods and not getattr(self, name)]
        if missing:
            raise ValueError(f"{missing[0]} is missing; methods need data, shots and seeds")
        if not self.methods and not self.tickets:
            raise ValueError("nothing to run: give methods, or tickets")
        if self.scores is None and any(entry.ratio for entry in (*self.methods, *self.tickets)):
            raise ValueError("scores is missing; tickets are cut from scores, so give its text or its folder")
        return self


class Grid(Settings):
    """A grid.

    name: of the grid. layouts: the tables and figures it is for. parts: their runs together are the grid's; what is
    written beside them holds for each part that does not say otherwise.
    """

    name: str
    layouts: Annotated[
        tuple[Annotated[str, _known(LAYOUTS)], ...], BeforeValidator(_listed)
    ] = ()  # fmt: skip
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class TicketWish:
    """A ticket that a run needs: how it is cut from which scores, or the file of a ready one."""

    backbone: str
    revision: str | None
    scores: ScoresSection | None
    criterion: str = "delta"
    strategy: str = "decoupled"
    ratio: float = 0.0
    scope: Literal["global", "layer"] = "global"
    layers: str = "all"
    seed: int | None = None
    file: str | None = None


@dataclass(frozen=True)
class Wish:
    """A run before data, backbone and ticket are looked at. language: trained on; None is the source language."""

    backbone: str
    revision: str | None
    task: str
    setting: Setting
    data: DataSettings
    shots: int
    seed: int
    method: str
    ticket: TicketWish | None
    settings: TrainSettings


def grid_names() -> list[str]:
    """Return the names of the shipped grids."""
    return sorted(
        file.name.removesuffix(".yaml") for file in resources.files(GRIDS).iterdir() if file.name.endswith(".yaml")
    )


def grid_text(name: str) -> tuple[str, Path | None]:
    """Return the text of a grid file, or of a shipped grid by its name, and the file's folder if it is a file.

    Raises `InputError` for an unknown name or a missing file.
    """
    if name.endswith((".yaml", ".yml")):
        return read_utf8(Path(name), "the YAML file of a grid"), Path(name).parent
    if name not in grid_names():
        raise InputError(f"unknown grid {name!r}; {choices(name, grid_names())}, or give the path of a .yaml file")
    return (resources.files(GRIDS) / f"{name}.yaml").read_text(encoding="utf-8"), None


def parse_grid(text: str, where: str) -> Grid:
    """Return the grid in a YAML text; `where` opens an error's message.

    Raises `InputError` with every problem, a line each, where there are any.
    """
    data = parse_yaml(text, where)
    if not isinstance(data, dict):
        raise InputError(f"{where} does not hold the keys of a grid; it needs {', '.join(Grid.model_fields)}")
    try:
        return Grid.model_validate(_with_parts(data))
    except ValidationError as error:
        problems = [_problem(one, named=PARTS in data) for one in error.errors()]
        raise InputError(join_problems(where, problems)) from error
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def join_problems(where: str, problems: Sequence[str]) -> str:
    """Return the message of an error that lists all problems of a grid."""
    unique = list(dict.fromkeys(problems))
    if len(unique) == 1:
        return f"{where}: {unique[0]}"
    return f"{where} has {len(unique)} problems: " + " ".join(f"({i}) {text}" for i, text in enumerate(unique, 1))


def expand(grid: Grid) -> list[Wish]:
    """Return the runs that a grid asks for, each once, in the order of its file: seeds outermost.

    So a grid that is stopped early has whole tables of fewer seeds.
    """
    found: dict[Wish, None] = {}
    for part in grid.parts:
        outer = product(part.seeds, part.backbone, part.task, part.setting, part.data, part.shots)
        for seed, backbone, task, setting, data, shots in outer:
            for entry in part.methods:
                for method, ticket, settings in _entry(entry, part, backbone, seed):
                    wish = Wish(
                        backbone, part.revision, task, setting, data, shots, seed, method, ticket, settings
                    )  # fmt: skip
                    found[wish] = None
    return list(found)


def wished_tickets(grid: Grid) -> list[TicketWish]:
    """Return the tickets that a grid makes besides those that its runs need."""
    return list(
        dict.fromkeys(
            ticket
            for part in grid.parts
            for backbone in part.backbone
            for entry in part.tickets
            for ticket in _tickets(entry, part, backbone, 0)
        )
    )


def _with_parts(data: dict[Any, Any]) -> dict[str, Any]:
    """Return a grid's keys with what stands beside its parts laid under each of them."""
    own = {key: value for key, value in data.items() if key in ("name", "layouts")}
    shared = {str(key): value for key, value in data.items() if key not in (*own, PARTS)}
    parts = data.get(PARTS, [{}])
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts) or not parts:
        raise InputError("parts must be a list of keys with values")
    return {**own, PARTS: [{**shared, **part} for part in parts]}


def _problem(error: Any, *, named: bool) -> str:
    """Return one of pydantic's findings as a line that names the key, its value and what would be right.

    named: whether the file names its parts; without, their number says nothing.
    """
    steps = [str(step) for step in error["loc"]]
    place = ".".join(steps if named or steps[:1] != [PARTS] else steps[2:])
    if error["type"] == "value_error" and "data" in steps:
        place = ""  # a data section names its own place
    return explain(error, place, known=_keys_at(steps[:-1]))


def _keys_at(steps: Sequence[str]) -> list[str]:
    """Return the keys that are known at a place in a grid."""
    models: dict[str, type[Settings]] = {"methods": MethodEntry, "tickets": TicketEntry, "scores": ScoresSection}
    for step in reversed(steps):
        if step in models:
            return sorted(str(field.validation_alias or name) for name, field in models[step].model_fields.items())
    shared = sorted({"name", "layouts", *Part.model_fields})
    return shared if PARTS in steps else sorted({*shared, *Grid.model_fields})


def _entry(
    entry: MethodEntry, part: Part, backbone: str, seed: int
) -> Iterator[tuple[str, TicketWish | None, TrainSettings]]:
    for method in entry.chosen:
        for ticket in _tickets(entry, part, backbone, seed):
            for settings in _settings(entry, part, seed):
                yield method, ticket, settings


def _tickets(entry: _TicketKeys, part: Part, backbone: str, seed: int) -> list[Any]:
    if isinstance(entry, MethodEntry) and entry.ticket:
        return [TicketWish(backbone, part.revision, None, file=entry.ticket)]
    if not entry.ratio:
        return [None]
    found = []
    axes = product(entry.criterion, entry.strategy, entry.ratio, entry.scope, entry.layers, entry.ticket_seed)
    for criterion, strategy, ratio, scope, layers, ticket_seed in axes:
        drawn = (seed if ticket_seed is None else ticket_seed) if criterion == "random" else None
        found.append(
            TicketWish(backbone, part.revision, part.scores, criterion, strategy, ratio, scope, layers, drawn)
        )  # fmt: skip
    return found


def _settings(entry: MethodEntry, part: Part, seed: int) -> Iterator[TrainSettings]:
    names = list(_TrainKeys.model_fields)
    axes = [getattr(entry if name in entry.model_fields_set else part, name) for name in names]
    for *values, size in product(*axes, entry.size):
        yield TrainSettings.of(**dict(zip(names, values, strict=True)), size=size, seed=seed)
