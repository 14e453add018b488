"""The methods: pairs of a template and of what is trained of the backbone, each with its recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ltprompt.errors import InputError, choices

Schedule = Literal["constant", "linear"]
TemplateKind = Literal["soft", "discrete", "mixed", "plain"]
Trains = Literal["ticket", "nothing", "everything", "encoder", "biases", "lora", "shira", "super-tuning"]
TEMPLATES: tuple[str, ...] = get_args(TemplateKind)
TRAINS: tuple[str, ...] = get_args(Trains)


@dataclass(frozen=True)
class Recipe:
    """How a method is optimised, where the user says nothing else.

    lr, prompt_lr: rates of the backbone's part and of what is trained beside it, a prompt or a classifier.
    weight_decay: as the optimizer takes it. clip: the largest joint gradient norm.
    """

    optimizer: Literal["adamw", "adam"]
    lr: float
    prompt_lr: float
    batch_size: int
    epochs: int
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    clip: float = 1.0

    def overridden(self, *, lr: float | None = None, prompt_lr: float | None = None, **given: Any) -> Recipe:
        """Return the recipe with what is given in its place, None being left out; one rate given means both.

        The paper has one rate for everything that is trained (section 4.2).
        """
        chosen = {name: value for name, value in given.items() if value is not None}
        return replace(self, **chosen, lr=lr or self.lr, prompt_lr=prompt_lr or lr or self.prompt_lr)


# Paper, section 4.2: AdamW, rate 2e-5 for everything trained, batches of 32, 70 epochs.
LTP = Recipe("adamw", 2e-5, 2e-5, 32, 70)
# Zhao & Schütze 2021 (facts.md): Adam with L2 in the gradient, rate 1e-5, batches of 12, 50 epochs.
PUBLISHED = Recipe("adam", 1e-5, 1e-5, 12, 50, weight_decay=0.01)
# Few new or scattered parameters want a higher rate than whole matrices.
LIGHT = replace(LTP, lr=5e-4)
RECIPES: dict[str, Recipe] = {
    "ticket": LTP,
    "nothing": LTP,
    "everything": PUBLISHED,
    "encoder": replace(PUBLISHED, batch_size=8),
    "biases": LIGHT,
    "lora": LIGHT,
    "shira": LIGHT,
    "super-tuning": LIGHT,
}
# How large what PEFT adds is: the rank of `lora` and `shira`, the sparsity of `super-tuning`.
RANKS: dict[str, float] = {"lora": 8, "shira": 32, "super-tuning": 0.99}
PAIRS: dict[str, tuple[TemplateKind, Trains]] = {
    "ltp": ("soft", "ticket"),
    "prompt-only": ("soft", "nothing"),
    "ft": ("plain", "encoder"),
    "dp": ("discrete", "everything"),
    "sp": ("soft", "everything"),
    "mp": ("mixed", "everything"),
    "bitfit": ("soft", "biases"),
    "lora": ("soft", "lora"),
    "shira": ("soft", "shira"),
    "super-tuning": ("soft", "super-tuning"),
}
_NAMES = {pair: name for name, pair in PAIRS.items()}
DEFAULT = PAIRS["ltp"]


@dataclass(frozen=True)
class Method:
    """A template and what is trained of the backbone with it.

    template: ``soft``, ``discrete`` or ``mixed``, whose label words are read off the mask, or ``plain``, the bare texts
    with a classifier on the first token. trains: what of the backbone moves.
    """

    template: TemplateKind
    trains: Trains

    @property
    def name(self) -> str:
        """Its own name where it has one, else ``TEMPLATE+TRAINS``; part of a run's identity."""
        return _NAMES.get((self.template, self.trains), f"{self.template}+{self.trains}")

    @property
    def recipe(self) -> Recipe:
        """The recipe of what it trains."""
        return RECIPES[self.trains]

    @property
    def rank(self) -> float | None:
        """Rank, or sparsity, of what it adds to the backbone where the user names none; None where it adds nothing."""
        return RANKS.get(self.trains)


METHODS = {name: Method(*pair) for name, pair in PAIRS.items()}


def find_method(name: str) -> Method:
    """Return a method by its own name or as ``TEMPLATE+TRAINS``. Raises `InputError` for an unknown one."""
    if name in METHODS:
        return METHODS[name]
    template, plus, trains = name.partition("+")
    if not plus:
        raise InputError(f"unknown method {name!r}: {choices(name, METHODS)}, or a pair such as discrete+ticket")
    return _pair(template, trains)


def choose_method(method: str | None = None, template: str | None = None, trains: str | None = None) -> Method:
    """Return the method that is asked for by name, by one or both of its axes, or not at all, which is `ltp`.

    Raises `InputError` for unknown names, for a name beside an axis that contradicts it, and where nothing would train.
    """
    if method is None:
        return _pair(template or DEFAULT[0], trains or DEFAULT[1])
    found = find_method(method)
    for axis, given, own in (("template", template, found.template), ("trains", trains, found.trains)):
        if given is not None and given != own:
            raise InputError(f"method {method!r} has {axis} {own!r}, not {given!r}; leave out `method` or `{axis}`")
    return found


def _pair(template: str, trains: str) -> Method:
    for axis, name, known in (("template", template, TEMPLATES), ("trains", trains, TRAINS)):
        if name not in known:
            raise InputError(f"unknown {axis} {name!r}: {choices(name, known)}")
    if (template, trains) == ("discrete", "nothing"):
        raise InputError("a discrete template on a frozen backbone has nothing to train; choose another `trains`")
    return Method(template, trains)  # type: ignore[arg-type]


def resolved_rank(method: Method, given: float | None) -> float | None:
    """Return the rank or sparsity that a method works with.

    Raises `InputError`, which calls it `size` as settings do, where the method takes none or the value makes no sense.
    """
    if method.rank is None:
        if given is not None:
            raise InputError(f"method {method.name!r} takes no `size`; leave it out")
        return None
    rank = method.rank if given is None else given
    share = method.trains == "super-tuning"
    if not (0 < rank < 1 if share else rank >= 1 and rank == int(rank)):
        what = "a sparsity between 0 and 1" if share else "a rank, a whole number from 1"
        raise InputError(f"`size` {rank:g} does not suit method {method.name!r}; give {what}, such as {method.rank:g}")
    return rank
