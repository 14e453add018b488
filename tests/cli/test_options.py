from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers.command_line import Run

import ltprompt
from ltprompt.cli import main as cli
from ltprompt.cli.options import Command, name_flags, spell_lists
from ltprompt.errors import InputError

GROUP = typer.main.get_command(cli.app)


def commands(group: Any = GROUP, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that name it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


def parsed(*words: str) -> dict[str, Any]:
    """What a command gets of a command line, as the parser itself has it."""
    name = next(name for name in COMMANDS if words[: len(name)] == name)
    found: dict[str, Any] = COMMANDS[name].make_context(name[-1], list(words[len(name) :])).params
    return found


def test_every_command_takes_lists_and_renders_errors() -> None:
    assert len(COMMANDS) == 15
    for name, command in COMMANDS.items():
        assert isinstance(command, Command), name


# Lists. What stands on the left is what must come out: the words of the list, and the arguments beside it.


@pytest.mark.parametrize(
    "line",
    [
        "scores mini --text a b c --out s",
        "scores mini --out s --text a b c",
        "scores mini --text a --text b c --out s",
        "scores mini --text a b --resume --text c --out s",
        "scores --text a b c --out s mini",
        "scores --text a b c --out s -- mini",
        "scores --text a b c mini --out s",
        "scores --out s --text a b c mini",
        "scores --out s mini --text a b c",
        "scores --resume mini --text a b c --out s",
        "scores --text a --text b --text c mini --out s",
    ],
)
def test_a_list_of_texts(line: str) -> None:
    found = parsed(*line.split())
    assert (found["backbone"], found["text"], found["out"]) == ("mini", [Path(name) for name in "abc"], Path("s"))


@pytest.mark.parametrize(
    "line",
    [
        "evaluate A --data en=x sw=y --json f",
        "evaluate A --json f --data en=x sw=y",
        "evaluate --json f A --data en=x sw=y",
        "evaluate --data en=x sw=y --json f A",
        "evaluate --data en=x sw=y A --json f",
        "evaluate --data en=x --data sw=y A --json f",
        "evaluate --data en=x A --data sw=y --json f",
        "evaluate --data=en=x --data sw=y A --json f",
    ],
)
def test_a_list_of_tables_by_language(line: str) -> None:
    found = parsed(*line.split())
    assert (found["adapter_dir"], found["data"], found["json_"]) == (Path("A"), ["en=x", "sw=y"], Path("f"))


@pytest.mark.parametrize("line", ["task check T --data x y --json", "task check --data x y --json T"])
def test_a_list_of_tables_of_a_task(line: str) -> None:
    found = parsed(*line.split())
    assert (found["task"], found["data"], found["json_"]) == ("T", [Path("x"), Path("y")], True)


@pytest.mark.parametrize("flag", ["union", "intersect"])
def test_a_list_of_tickets_of_a_command_without_arguments(flag: str) -> None:
    for line in (f"--{flag} a b --out U", f"--out U --{flag} a b", f"--{flag} a --out U --{flag} b"):
        found = parsed("ticket", "combine", *line.split())
        assert (found[flag], found["out"]) == ([Path("a"), Path("b")], Path("U"))


@pytest.mark.parametrize("line", ["S --text a b --ratio -1", "--ratio -1 --text a b S", "--text a b --ratio -1 S"])
def test_a_value_that_looks_like_a_flag_ends_no_command_line(line: str) -> None:
    found = parsed("ticket", "cut", *line.split(), "--out", "t")
    assert (found["scores_dir"], found["text"], found["ratio"]) == (Path("S"), [Path("a"), Path("b")], -1)


@pytest.mark.parametrize(
    "line",
    [
        "scores mini --text a --out s b",  # an option that takes one value has no list
        "scores mini more --text a --out s",
        "scores --text a b mini --text c d --out s",  # either list could hold the argument
        "scores mini --text=a b --out s",
        "scores mini --text a --resume b --out s",
        "evaluate --data en=x",
        "scores mini --text --out s",
    ],
)
def test_what_no_list_can_hold_is_bad_usage(line: str, run: Run) -> None:
    assert run(*line.split()).status == 2


def test_words_without_a_list_are_left_as_they_are() -> None:
    words = ["mini", "--text", "a", "--unheard", "b", "-", "--", "--text", "c", "d"]
    assert spell_lists(words, COMMANDS[("scores",)].params) == words
    assert spell_lists([], COMMANDS[("scores",)].params) == []


def test_the_version_is_the_installed_one() -> None:
    assert ltprompt.__version__ == importlib.metadata.version("ltprompt")
