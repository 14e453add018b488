from __future__ import annotations

import ast
import importlib.metadata
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers.command_line import Result, Run

import ltprompt
from ltprompt.backbone.loading import load_tokenizer
from ltprompt.classifier import check_ticket_given
from ltprompt.cli import main as cli
from ltprompt.cli.options import Command, name_flags, spell_lists
from ltprompt.errors import LtpError
from ltprompt.files.artifacts import ADAPTER_RECORD, check_place
from ltprompt.settings import TrainSettings
from ltprompt.stage2.methods import choose_method, find_method
from ltprompt.tasks import load_task, read_rows
from ltprompt.tasks.check import report_task
from ltprompt.tasks.splits import draw
from ltprompt.tickets.scores import check_criterion

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
    """What a command gets of a command line, as the parser itself has it; paths and words alike as text."""
    name = next(name for name in COMMANDS if words[: len(name)] == name)
    given = COMMANDS[name].make_context(name[-1], list(words[len(name) :])).params
    return {
        key: list(map(str, value)) if isinstance(value, list | tuple) else value if value is True else str(value)
        for key, value in given.items()
    }


def test_every_command_takes_lists_and_renders_errors() -> None:
    assert len(COMMANDS) == 16
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
    assert (found["backbone"], found["texts"], found["out"]) == ("mini", ["a", "b", "c"], "s")


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
    assert (found["adapter_dir"], found["data"], found["json_"]) == ("A", ["en=x", "sw=y"], "f")


@pytest.mark.parametrize("line", ["task check T --data x y --json", "task check --data x y --json T"])
def test_a_list_of_tables_of_a_task(line: str) -> None:
    found = parsed(*line.split())
    assert (found["task"], found["data"], found["json_"]) == ("T", ["x", "y"], "-")


@pytest.mark.parametrize("line", ["T --data x y --json j", "T --json j --data x y", "--data x y --json j -- T"])
def test_a_file_of_json_beside_a_list(line: str) -> None:
    found = parsed("task", "check", *line.split())
    assert (found["task"], found["data"], found["json_"]) == ("T", ["x", "y"], "j")


@pytest.mark.parametrize("flag", ["union", "intersect"])
def test_a_list_of_tickets_of_a_command_without_arguments(flag: str) -> None:
    for line in (f"--{flag} a b --out U", f"--out U --{flag} a b", f"--{flag} a --out U --{flag} b"):
        found = parsed("ticket", "combine", *line.split())
        assert (found[flag], found["out"]) == (["a", "b"], "U")


@pytest.mark.parametrize("line", ["S --text a b --ratio -1", "--ratio -1 --text a b S", "--text a b --ratio -1 S"])
def test_a_value_that_looks_like_a_flag_ends_no_command_line(line: str) -> None:
    found = parsed("ticket", "cut", *line.split(), "--out", "t")
    assert (found["scores_dir"], found["texts"], found["ratio"]) == ("S", ["a", "b"], "-1.0")


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


# JSON. Where `--json` was a flag it may stand alone, with what stood behind it then.


@pytest.mark.parametrize(
    ("line", "files", "json_"),
    [
        ("compare a b", "a b", "None"),
        ("compare a b --json", "a b", "-"),
        ("compare --json a b c", "a b c", "-"),
        ("compare a --json b", "a b", "-"),
        ("compare a b --json -", "a b", "-"),
        ("compare a --json x.json b", "a b", "x.json"),
        ("compare --json=x a b", "a b", "x"),
        ("compare a b --json -- --json", "a b --json", "-"),
        ("inspect --json a", "a", "-"),
        ("inspect --json x.json a", "a", "x.json"),
        ("inspect a --json x", "a", "x"),
        ("inspect --json x a", "a", "x"),
        ("inspect a --json --plot p", "a", "-"),
        ("inspect a --plot p --json", "a", "-"),
    ],
)
def test_json_with_a_file_or_alone(line: str, files: str, json_: str) -> None:
    found = parsed("ticket", *line.split())
    given = found["files"] if "files" in found else [found["file"]]
    assert (" ".join(given), found["json_"]) == (files, json_)


# Errors: below the command line they name fields, and a command renders those that are its own.


@pytest.mark.parametrize(
    ("command", "text", "shown"),
    [
        ("train", "raise `max_length` to 12", "raise --max-length to 12"),
        ("train", "lower `lr` or `prompt_lr`", "lower --lr or --prompt-lr"),
        ("train", "another `backbone`, a `ticket`", "another BACKBONE, a --ticket"),
        ("scores", "give `resume` or `texts`", "give --resume or --text"),
        ("ticket cut", "no `criterion`, `texts`, `backbone`", "no --select, --text, --backbone"),
        ("evaluate", "`data`, `adapter_dir`", "--data, ADAPTER_DIR"),
        ("grid", "`max_length` 12; `gpus`, `out`", "`max_length` 12; --gpus-per-worker, --out"),
        ("report", "name one that `ltprompt grid` filled", "name one that `ltprompt grid` filled"),
    ],
)
def test_fields_are_shown_as_the_command_has_them(command: str, text: str, shown: str) -> None:
    assert name_flags(text, COMMANDS[tuple(command.split())].params) == shown


TRAIN = ["train", "mini", "--task", "xnli", "--train", "t.tsv", "--out", "full"]
NOTHING = dict.fromkeys(("seed", "backbone", "texts", "lines"))

SAID: dict[str, tuple[Callable[[], object], list[str], dict[str, str]]] = {
    "a setting": (
        lambda: TrainSettings.of(max_length=0), [*TRAIN, "--max-length", "0"], {"max_length": "--max-length"},
    ),
    "a template": (
        lambda: report_task(
            load_task("xnli"), load_tokenizer("mini"), backbone="mini", language="en", prompt_length=4, max_length=8
        ),
        ["task", "check", "xnli", "--max-length", "8"], {"max_length": "--max-length"},
    ),
    "a place": (lambda: check_place("full", ADAPTER_RECORD, "an adapter"), TRAIN, {"out": "--out"}),
    "a ticket": (
        lambda: check_ticket_given(find_method("ltp"), None), [*TRAIN[:-1], "new"], {"ticket": "--ticket"},
    ),
    "axes": (
        lambda: choose_method("ltp", "plain"),
        [*TRAIN[:-1], "new", "--method", "ltp", "--template", "plain"],
        {"method": "--method", "template": "--template"},
    ),
    "shots": (
        lambda: draw(read_rows("t.tsv", load_task("xnli")), load_task("xnli"), shots=2, dev_shots=1, seed=0),
        ["split", "t.tsv", "--task", "xnli", "--shots", "2", "--dev-shots", "1", "--out", "new"],
        {"shots": "--shots", "dev_shots": "--dev-shots"},
    ),
    "texts": (
        lambda: check_criterion("gradient", **NOTHING),
        ["ticket", "cut", "s", "--ratio", "0.2", "--select", "gradient", "--out", "new"], {"texts": "--text"},
    ),
    "a seed": (
        lambda: check_criterion("delta", **NOTHING | {"seed": 1}),
        ["ticket", "cut", "s", "--ratio", "0.2", "--seed", "1", "--out", "new"], {"seed": "--seed"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
def test_one_error_names_fields_to_the_library_and_flags_to_a_command(
    case: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.tsv").write_text("premise\thypothesis\tlabel\na\tb\tneutral\nc\td\tentailment\ne\tf\tcontradiction\n")
    Path("full").mkdir()
    Path("full", ADAPTER_RECORD).touch()
    call, command, flags = SAID[case]
    with pytest.raises(LtpError) as error:
        call()
    text = str(error.value)
    assert "--" not in text
    for field, flag in flags.items():
        assert f"`{field}`" in text
        text = text.replace(f"`{field}`", flag)
    assert run(*command) == Result(1, "", f"error: {text}\n")


def texts(path: Path) -> Iterator[str]:
    """The texts in a module, the documentation left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_texts_below_the_command_line_name_no_flags_and_only_fields_that_commands_know() -> None:
    package = Path(ltprompt.__file__).parent
    known = {parameter.name for command in COMMANDS.values() for parameter in command.params}
    fields = set()
    for path in package.rglob("*.py"):
        if package / "cli" not in path.parents:
            for text in texts(path):
                assert not re.search(r"(?<![\w-])--[a-z]", text), (path.name, text)
                fields |= set(re.findall(r"`([a-z]\w*)`", text))
    assert {"max_length", "lr", "out", "texts"} <= fields <= known


def test_the_version_is_the_installed_one() -> None:
    assert ltprompt.__version__ == importlib.metadata.version("ltprompt")
