"""What is measured: cases, and who is measured in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from benchmarks.job import Job, Outcome
from ltprompt.device import tune_process
from ltprompt.errors import InputError, choices

OURS = "ours"
TRAINER, PUBLISHED = "Trainer", "published loop"
CHECKED_STEPS = 2  # of training: the second one needs the optimizer's state after the first


@dataclass(frozen=True)
class Implementation:
    """One of those who do a case's work.

    target: ``module:function``, imported only in the process that runs it, so that none carries the libraries of
    another. given: its keywords. like: the implementation that it must agree with, none where there is no other.
    rows: how many examples it takes at once, by the memory that it needs; None where it takes no batches.
    floor: as a case's, where it is another: LoRA needs no gradients of the frozen weights; its own products, 2 % of
    theirs, are left out.
    """

    name: str
    target: str
    given: Mapping[str, Any] = field(default_factory=dict)
    like: str | None = None
    rows: Rows | None = None
    floor: str | None = None

    def load(self) -> Callable[[Job], Outcome]:
        """Return the function that runs it; ours begins as its commands do, which has freed memory kept."""
        module, _, name = self.target.partition(":")
        function = getattr(import_module(f"benchmarks.{module}"), name)

        def run(job: Job) -> Outcome:
            if module == OURS:
                tune_process(None, on_cpu=True)
            outcome: Outcome = function(job, **self.given)
            return outcome

        return run


@dataclass(frozen=True)
class Rows:
    """What a rival's memory is made of, as `memory.rows_that_fit` takes it; longest: of stage ``lines`` and so on."""

    inputs: str
    states: float
    copies: float


@dataclass(frozen=True)
class Case:
    """One kind of work.

    warm_up: laps of each process that do not count. repeats: laps that do. checked: laps whose results are compared.
    floor: whose arithmetic is useful, as `floors.useful` knows it; none where there is no arithmetic.
    """

    name: str
    title: str
    implementations: tuple[Implementation, ...]
    warm_up: int = 1
    repeats: int = 1
    checked: int = 1
    floor: str | None = None

    def only(self, names: Sequence[str]) -> Case:
        """Return the case with these implementations and those they are compared with; without names all."""
        chosen = [self.find(name) for name in names] or self.implementations
        wanted = {each.name for each in chosen} | {each.like for each in chosen}
        return replace(self, implementations=tuple(each for each in self.implementations if each.name in wanted))

    def find(self, name: str) -> Implementation:
        """Return an implementation by name. Raises `InputError` for an unknown one."""
        for implementation in self.implementations:
            if implementation.name == name:
                return implementation
        names = [implementation.name for implementation in self.implementations]
        raise InputError(f"case {self.name!r} has no implementation {name!r}: {choices(name, names)}")


# Copies of the parameters: weights, gradients and Adam's two; in stage 1 the originals and what the L1 term makes.
FROZEN, TRAINED, PULLED_BACK = 1.0, 4.0, 6.5
# Copies of the logits: themselves; with their gradient; with the loss over the whole vocabulary in between.
READ, LEARNT, SCORED = 2.0, 2.5, 3.5


def _stage_two(name: str, title: str, method: str, masked: bool) -> Case:
    states = TRAINED if masked else FROZEN
    return Case(
        name,
        title,
        (
            Implementation(OURS, "ours:stage_two", {"method": method}),
            Implementation(
                TRAINER, "rivals.trainer:stage_two", {"masked": masked}, OURS, Rows("train", states, LEARNT)
            ),
            Implementation(
                PUBLISHED, "rivals.published:stage_two", {"masked": masked}, OURS, Rows("padded", states, LEARNT)
            ),
        ),
        repeats=2,
        checked=CHECKED_STEPS,
        floor="stage2" if masked else "stage2-frozen",
    )


CASES = {
    case.name: case
    for case in (
        Case(
            "stage1",
            "stage 1 step, 32 wiki lines",
            (
                Implementation(OURS, "ours:stage_one"),
                Implementation("ours, late in a run", "ours:stage_one", {"joined": 0.66}, OURS),
                Implementation(TRAINER, "rivals.trainer:stage_one", {}, OURS, Rows("lines", PULLED_BACK, SCORED)),
                Implementation(PUBLISHED, "rivals.published:stage_one", {}, OURS, Rows("padded", PULLED_BACK, SCORED)),
            ),
            repeats=2,
            checked=CHECKED_STEPS,
            floor="stage1",
        ),
        _stage_two("stage2-ltp", "stage 2 step, LTP 20 %, batch 32", "ltp", True),
        _stage_two("stage2-prompt", "stage 2 step, prompt only", "prompt-only", False),
        Case(
            "evaluation",
            "evaluation, 15 × 500 examples",
            (
                Implementation(OURS, "ours:evaluation"),
                Implementation(TRAINER, "rivals.trainer:evaluation", {}, OURS, Rows("test", FROZEN, READ)),
                Implementation(PUBLISHED, "rivals.published:evaluation", {}, OURS, Rows("padded", FROZEN, READ)),
            ),
            warm_up=0,
            repeats=2,
            floor="evaluation",
        ),
        Case(
            "cutting",
            "cutting 20 % of all scores",
            (
                Implementation(OURS, "ours:cutting"),
                Implementation(PUBLISHED, "rivals.published:cutting", {}, OURS),
            ),
            warm_up=0,
            repeats=2,
        ),
        Case(
            "adapters",
            "stage 2 step, LTP 20 % against PEFT's adapters",
            (
                Implementation(OURS, "ours:stage_two", {"method": "ltp"}),
                Implementation("LoRA with our head", "ours:stage_two", {"method": "lora"}, floor="stage2-frozen"),
                Implementation(
                    "LoRA as users run it", "rivals.peft_rival:stage_two", {"kind": "lora"}, "LoRA with our head",
                    Rows("train", FROZEN, LEARNT), floor="stage2-frozen",
                ),
                Implementation("SHiRA with our head", "ours:stage_two", {"method": "shira"}),
                Implementation(
                    "SHiRA as users run it", "rivals.peft_rival:stage_two", {"kind": "shira"}, "SHiRA with our head",
                    Rows("train", FROZEN, LEARNT),
                ),
            ),
            repeats=2,
            checked=CHECKED_STEPS,
            floor="stage2",
        ),
        Case(
            "applying",
            "applying an adapter of 20 % to a loaded backbone",
            (
                Implementation(OURS, "ours:applying", {"load": False}),
                Implementation("ours, files read too", "ours:applying", {"load": True}),
                Implementation("from_pretrained", "rivals.published:loading", {"read": False}),
                Implementation("from_pretrained, weights read", "rivals.published:loading", {"read": True}),
            ),
            warm_up=1,
            repeats=3,
        ),
        Case("adapter-size", "an adapter of 20 % on disk", (Implementation(OURS, "ours:adapter_size"),), warm_up=0),
        Case("help", "`ltprompt --help`", (Implementation(OURS, "ours:help_text"),), warm_up=1, repeats=3),
        Case(
            "linear-stage1",
            "stage 1 over tokens",
            (Implementation(OURS, "ours:linear_stage_one"),),
            warm_up=0,
        ),
        Case(
            "linear-evaluation",
            "evaluation over examples",
            (Implementation(OURS, "ours:linear_evaluation"),),
            warm_up=0,
        ),
    )
}  # fmt: skip


def find_case(name: str) -> Case:
    """Return a case by name. Raises `InputError` for an unknown one."""
    if name not in CASES:
        raise InputError(f"unknown case {name!r}: {choices(name, CASES)}")
    return CASES[name]
