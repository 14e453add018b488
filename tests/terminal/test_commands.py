"""Every command of README.md, in a terminal of 80 columns."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from helpers.readme import FENCED, README, Reader, bring_files, commands
from helpers.terminals import Shown, Terminal
from helpers.toy_classifiers import toy_ticket
from helpers.toys import toy_folder

from ltprompt.backbone import loading
from ltprompt.backbone.model import Backbone
from ltprompt.cli import demo
from ltprompt.settings import ScoresSettings, TrainSettings
from ltprompt.tickets import ticket


def make_mini_small(toy: Path) -> None:
    """Let `mini` and `mini-20` be toys, and the demonstration short."""
    loading.mini_folder = lambda: toy
    ticket.READY["mini-20"] = toy / "ticket.safetensors"
    demo.SCORES = ScoresSettings(steps=2, batch_size=2, max_length=32)
    demo.TRAIN = TrainSettings(epochs=1, max_length=64)


class Person(Reader):
    """A reader who types the commands into a terminal."""

    def __init__(self, patch: pytest.MonkeyPatch, toy: Path) -> None:
        super().__init__(patch, toy)
        self.shown: dict[str, Shown] = {}

    def run_make(self, targets: list[str]) -> str:
        """Run what is a command of ltprompt among make's targets."""
        return self.run_ltprompt(["demo"]) if targets == ["demo"] else ""

    def call(self, arguments: list[str]) -> str:
        terminal = Terminal(Path.cwd(), prepare=partial(make_mini_small, self.toy))
        shown = self.shown[arguments[0]] = terminal.run(*arguments).check(command=arguments)
        assert shown.lines, arguments
        return shown.text


def test_every_command_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    bring_files(tmp_path / "place")
    toy = toy_folder("xlm-roberta", tmp_path / "toy", positions=256)
    toy_ticket(Backbone.from_pretrained(toy)).save(toy / "ticket.safetensors")
    person = Person(monkeypatch, toy)
    for block in [block for language, block in FENCED.findall(README) if language == "sh"]:
        for words in commands(block):
            person.run(words)
    last = {name: shown.last for name, shown in person.shown.items()}
    assert last["scores"].startswith("scores of ")
    assert last["train"].startswith("adapter of ")
    assert last["merge"].startswith("merged model in ")
    assert "3 predictions in predictions.tsv" in person.shown["predict"].lines
    assert last["grid"] == "next: ltprompt report runs"
    assert last["report"].startswith("written: ")
    assert last["demo"].startswith("$ ltprompt predict ")
    assert {"task", "split", "ticket", "evaluate"} <= last.keys()
