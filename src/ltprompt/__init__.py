"""Lottery Ticket Prompt-learning for small multilingual masked language models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltprompt.adapter import Adapter as Adapter
    from ltprompt.backbone.model import Backbone as Backbone
    from ltprompt.classifier import PromptClassifier as PromptClassifier
    from ltprompt.classifier import merge_adapter as merge_adapter
    from ltprompt.errors import LtpError as LtpError
    from ltprompt.experiments.folder import read_results as read_results
    from ltprompt.experiments.report.report import write_report as write_report
    from ltprompt.experiments.run.driver import Where as Where
    from ltprompt.experiments.run.driver import plan_grid as plan_grid
    from ltprompt.experiments.run.driver import run_grid as run_grid
    from ltprompt.settings import ScoresSettings as ScoresSettings
    from ltprompt.settings import TrainSettings as TrainSettings
    from ltprompt.stage1.corpus import read_lines as read_lines
    from ltprompt.stage1.criteria import find_criterion as find_criterion
    from ltprompt.stage1.find_scores import find_scores as find_scores
    from ltprompt.stage2.measures import Evaluation as Evaluation
    from ltprompt.tasks import Rows as Rows
    from ltprompt.tasks import Task as Task
    from ltprompt.tasks import label_counts as label_counts
    from ltprompt.tasks import load_task as load_task
    from ltprompt.tasks import read_rows as read_rows
    from ltprompt.tasks import rows_from as rows_from
    from ltprompt.tasks import starter_text as starter_text
    from ltprompt.tasks import task_names as task_names
    from ltprompt.tasks.check import report_task as report_task
    from ltprompt.tasks.splits import split as split
    from ltprompt.tasks.splits import write_rows as write_rows
    from ltprompt.tickets.chart import draw_distribution as draw_distribution
    from ltprompt.tickets.distribution import Comparison as Comparison
    from ltprompt.tickets.distribution import Distribution as Distribution
    from ltprompt.tickets.distribution import compare as compare
    from ltprompt.tickets.distribution import distribution as distribution
    from ltprompt.tickets.scores import Scores as Scores
    from ltprompt.tickets.ticket import Ticket as Ticket
    from ltprompt.tickets.ticket import intersection as intersection
    from ltprompt.tickets.ticket import union as union

__version__: str

_HOMES = {
    "Adapter": "adapter",
    "Backbone": "backbone.model",
    "Comparison": "tickets.distribution",
    "Distribution": "tickets.distribution",
    "Evaluation": "stage2.measures",
    "LtpError": "errors",
    "PromptClassifier": "classifier",
    "Rows": "tasks",
    "Scores": "tickets.scores",
    "ScoresSettings": "settings",
    "Task": "tasks",
    "Ticket": "tickets.ticket",
    "TrainSettings": "settings",
    "Where": "experiments.run.driver",
    "compare": "tickets.distribution",
    "distribution": "tickets.distribution",
    "draw_distribution": "tickets.chart",
    "find_criterion": "stage1.criteria",
    "find_scores": "stage1.find_scores",
    "intersection": "tickets.ticket",
    "label_counts": "tasks",
    "load_task": "tasks",
    "merge_adapter": "classifier",
    "plan_grid": "experiments.run.driver",
    "read_lines": "stage1.corpus",
    "read_results": "experiments.folder",
    "read_rows": "tasks",
    "report_task": "tasks.check",
    "rows_from": "tasks",
    "run_grid": "experiments.run.driver",
    "split": "tasks.splits",
    "starter_text": "tasks",
    "task_names": "tasks",
    "union": "tickets.ticket",
    "write_report": "experiments.report.report",
    "write_rows": "tasks.splits",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line starts without torch."""
    if name == "__version__":
        return import_module("importlib.metadata").version("ltprompt")
    if name not in _HOMES:
        raise AttributeError(f"module 'ltprompt' has no attribute {name!r}")
    return getattr(import_module(f"ltprompt.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return what an interactive prompt completes: the public names, though they are imported when first used."""
    return [*__all__, "__version__"]
