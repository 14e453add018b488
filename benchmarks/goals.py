"""The goals, as data: 2 cores, XLM-R-base's shape, ratios of medians in one run at equal precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.cases import OURS, PUBLISHED, TRAINER
from benchmarks.results import WHOLE_RUN, Results

BOTH = ("fp32", "bf16")


@dataclass(frozen=True)
class Goal:
    """A bound on one number.

    measure: one of MEASURES. against: the implementation that ours is compared with. at_least: whether the number must
    reach the bound or keep below it. dtypes: precisions that it holds for. shape: where it is measured.
    """

    case: str
    measure: str
    bound: float
    at_least: bool
    against: str = ""
    dtypes: tuple[str, ...] = BOTH
    shape: str = "xlmr"

    def met(self, value: float) -> bool:
        """Say whether a measured number meets the goal."""
        return value >= self.bound if self.at_least else value <= self.bound

    def value(self, results: Results, dtype: str) -> float | None:
        """Return the measured number; None where something for it was not measured."""
        return MEASURES[self.measure](results, self, (self.shape, dtype, self.case))


Key = tuple[str, str, str]


def _speed(results: Results, goal: Goal, key: Key) -> float | None:
    return _ratio(results.seconds(key, goal.against), results.seconds(key))


def _slowdown(results: Results, goal: Goal, key: Key) -> float | None:
    return _ratio(results.seconds(key), results.seconds(key, goal.against))


def _memory(results: Results, goal: Goal, key: Key) -> float | None:
    return _ratio(results.memory(key), results.memory(key, goal.against))


def _training_memory(results: Results, goal: Goal, key: Key) -> float | None:
    return _ratio(results.memory(key), results.memory((*key[:2], "evaluation")))


def _training_resident(results: Results, goal: Goal, key: Key) -> float | None:
    return _ratio(results.resident(key), results.resident((*key[:2], "evaluation")))


def _disk(results: Results, goal: Goal, key: Key) -> float | None:
    return _ratio(results.note(key, "adapter_bytes"), results.note(key, "model_bytes"))


def _precision(results: Results, goal: Goal, key: Key) -> float | None:
    shape, _, case = key
    return _ratio(results.seconds((shape, "fp32", case)), results.seconds((shape, "bf16", case)))


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below


MEASURES: dict[str, Callable[[Results, Goal, Key], float | None]] = {
    "times as fast": _speed,
    "of its step time": _slowdown,
    "of its memory": _memory,
    "of the machine's rate": lambda results, goal, key: results.floor_share(key),
    "seconds": lambda results, goal, key: results.seconds(key, goal.against or OURS),
    "passes over the scores": lambda results, goal, key: results.note(key, "passes"),
    "of the memory of inference": _training_memory,
    "of the resident memory of inference": _training_resident,
    "of the fp16 model on disk": _disk,
    "times as fast as fp32": _precision,
    "growth exponent": lambda results, goal, key: results.exponent(key),
}


def _against(case: str, trainer: float, published: float, memory: float) -> list[Goal]:
    return [
        Goal(case, "times as fast", trainer, True, TRAINER),
        Goal(case, "times as fast", published, True, PUBLISHED),
        Goal(case, "of its memory", memory, False, TRAINER),
    ]


def _rate(case: str, fp32: float, bf16: float) -> list[Goal]:
    share = "of the machine's rate"
    return [Goal(case, share, fp32, True, dtypes=("fp32",)), Goal(case, share, bf16, True, dtypes=("bf16",))]


GOALS = (
    Goal("stage1", "times as fast", 2.2, True, TRAINER),
    Goal("stage1", "of its memory", 0.5, False, TRAINER),
    *_rate("stage1", 0.70, 0.45),
    *_against("stage2-ltp", 3, 12, 0.5),
    *_rate("stage2-ltp", 0.65, 0.45),
    *_against("stage2-prompt", 3.5, 15, 0.5),
    *_rate("stage2-prompt", 0.65, 0.45),
    *_against("evaluation", 4, 15, 0.7),
    *_rate("evaluation", 0.75, 0.50),
    Goal("cutting", "times as fast", 50, True, PUBLISHED, ("fp32",)),
    Goal("cutting", "of its memory", 0.3, False, PUBLISHED, ("fp32",)),
    Goal("cutting", "passes over the scores", 3, False, dtypes=("fp32",)),
    *_against(WHOLE_RUN, 3, 12, 0.5),
    *(
        Goal(case, "times as fast as fp32", 2.5, True, dtypes=("bf16",))
        for case in ("stage1", "stage2-ltp", "stage2-prompt", "evaluation", WHOLE_RUN)
    ),
    Goal("adapters", "of its step time", 1.4, False, "LoRA with our head"),
    Goal("adapters", "of its step time", 0.6, False, "LoRA as users run it"),
    # Both page-cached: from the files on, as from_pretrained starts from them; and from an adapter in memory.
    Goal("applying", "seconds", 0.2, False, "ours, files read too", ("fp32",)),
    Goal("applying", "seconds", 0.2, False, OURS, ("fp32",)),
    # transformers may map the checkpoint and put off reading it, so what it takes to read it is compared too.
    Goal("applying", "times as fast", 5, True, "from_pretrained", ("fp32",)),
    Goal("applying", "times as fast", 5, True, "from_pretrained, weights read", ("fp32",)),
    Goal("adapter-size", "of the fp16 model on disk", 0.3, False, dtypes=("fp32",)),
    # Inference writes no weights, so that mapped ones are no anonymous memory of it: resident memory counts them.
    Goal("stage2-ltp", "of the memory of inference", 2.5, False),
    Goal("stage2-ltp", "of the resident memory of inference", 2.5, False),
    Goal("help", "seconds", 0.5, False, dtypes=("fp32",)),
    *(Goal(case, "growth exponent", 1.05, False, shape="mini") for case in ("linear-stage1", "linear-evaluation")),
)
