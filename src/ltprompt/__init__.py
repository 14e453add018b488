"""Lottery Ticket Prompt-learning for small multilingual masked language models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltprompt.adapter import Adapter as Adapter
    from ltprompt.backbone.model import Backbone as Backbone
    from ltprompt.classifier import PromptClassifier as PromptClassifier
    from ltprompt.errors import LtpError as LtpError
    from ltprompt.settings import ScoresSettings as ScoresSettings
    from ltprompt.settings import TrainSettings as TrainSettings
    from ltprompt.stage1.find_scores import find_scores as find_scores
    from ltprompt.tasks import Task as Task
    from ltprompt.tasks import load_task as load_task
    from ltprompt.tickets.scores import Scores as Scores
    from ltprompt.tickets.ticket import Ticket as Ticket

__version__: str

_HOMES = {
    "Adapter": "adapter",
    "Backbone": "backbone.model",
    "LtpError": "errors",
    "PromptClassifier": "classifier",
    "Scores": "tickets.scores",
    "ScoresSettings": "settings",
    "Task": "tasks",
    "Ticket": "tickets.ticket",
    "TrainSettings": "settings",
    "find_scores": "stage1.find_scores",
    "load_task": "tasks",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line starts without torch."""
    if name == "__version__":
        return import_module("importlib.metadata").version("ltprompt")
    if name not in _HOMES:
        raise AttributeError(f"module 'ltprompt' has no attribute {name!r}")
    return getattr(import_module(f"ltprompt.{_HOMES[name]}"), name)
