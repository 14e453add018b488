"""README.md: every command and the library's lines run, in order, and print what the page shows."""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from helpers.readme import FENCED, HUB, README, ROOT, Reader, assert_shown, bring_files
from helpers.toys import toy_folder
from typer.core import TyperCommand, TyperGroup

from ltprompt.cli import main as cli
from ltprompt.experiments.folder import read_results
from ltprompt.stage2.methods import METHODS

TREE = typer.main.get_group(cli.app)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    bring_files(tmp_path / "place")
    return Reader(monkeypatch, toy_folder("xlm-roberta", tmp_path / "toy"))


def test_every_command_works_and_prints_what_is_shown(reader: Reader, tmp_path: Path) -> None:
    reader.follow(README)
    made = {path.name for path in (tmp_path / "place").iterdir()}
    assert {"ltprompt-demo", "mood.yaml", "en-20.png", "results.json", "predictions.tsv", "merged"} <= made


def fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n"


@pytest.mark.parametrize(
    "page",
    [
        fenced("sh", "ltprompt task check mood.yaml"),
        fenced("sh", "ltprompt task new mood.yaml --double"),
        fenced("sh", "ltprompt task renew mood.yaml"),
        fenced("sh", "ltprompt task new mood.yaml > log"),
        fenced("sh", f"ltprompt scores {HUB} --text french.txt --out scores"),
        fenced("sh", "make demonstration"),
        fenced("sh", "rm -r data"),
        fenced("sh", "ltprompt task new mood.yaml --single") + fenced("text", "task file in mode.yaml"),
        fenced("sh", "cat > reviews.csv <<'END'\ntext,label"),
        fenced("console", "$ make demo"),
        fenced("python", "from ltprompt import Lottery"),
    ],
)
def test_a_page_that_is_wrong_is_found_out(reader: Reader, page: str) -> None:
    with pytest.raises((AssertionError, ImportError, pytest.fail.Exception)):
        reader.follow(page)


def test_a_page_may_leave_out_lines_and_have_other_measures(reader: Reader) -> None:
    printed = "a  b\nloss 0.25\n1 positive 0.75\nc 10\n7 passed, 2 skipped in 63.10s (0:01:03)\n"
    assert_shown("a b\n...\n1  negative 0.25\nc 10\n", printed)
    assert_shown("40 passed, 1 skipped in 200.00s (0:03:20)\n", printed)
    for wrong in ("b\n", "7 passed\n", "7 passed, 2 failed\n", "c 11\n", "loss 0.25\na b\n", "1 neutral 0.75\n"):
        with pytest.raises(AssertionError):
            assert_shown(wrong, printed)


PROGRAMS = ("ltprompt", "make")


def inline_commands(page: str) -> list[list[str]]:
    """Return the words of every command in a page's sentences: one that names its program or group, or flags alone."""
    groups = [name for name, command in TREE.commands.items() if isinstance(command, TyperGroup)]
    found = [shlex.split(code) for code in re.findall(r"`([^`]+)`", FENCED.sub("", page))]
    return [
        words for words in found if words[0].startswith("--") or (words[0] in (*PROGRAMS, *groups) and len(words) > 1)
    ]


def check_inline(words: list[str]) -> None:
    """Assert that a command in a sentence names commands, flags and targets that there are."""
    if words[0] == "make":
        known = re.findall(r"^([\w-]+):.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(known), f"README.md: {shlex.join(words)!r}: not among {known}"
        return
    rest = words[1:] if words[0] == "ltprompt" else words
    command: TyperGroup | TyperCommand = TREE
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"README.md: {shlex.join(words)!r}: {rest[0]!r} is no command"
        command, rest = command.commands[rest[0]], rest[1:]
    known_flags = flags(command)
    for flag in (word for word in rest if word.startswith("--")):
        assert flag in known_flags, f"README.md: {shlex.join(words)!r}: no flag {flag}"


def flags(command: TyperGroup | TyperCommand) -> set[str]:
    """Return the flags of a command and of all below it."""
    below = command.commands.values() if isinstance(command, TyperGroup) else ()
    return {flag for parameter in command.params for flag in parameter.opts}.union(*map(flags, below))


def test_commands_in_sentences_are_those_of_the_program() -> None:
    found = inline_commands(README)
    assert ["make", "help"] in found
    assert ["ltprompt", "task", "check"] in found
    assert ["ticket", "cut", "--select", "random"] in found
    assert ["--workers", "4"] in found
    for words in found:
        check_inline(words)


@pytest.mark.parametrize(
    "sentence",
    [
        "`ltprompt tusk check` says so",
        "`ltprompt task chuck`",
        "`ticket cut --selects random`",
        "`ltprompt report --dry-run`",
        "take\n`--stepps`",
        "`make tea` makes tea",
    ],
)
def test_a_sentence_that_is_wrong_is_found_out(sentence: str) -> None:
    (words,) = inline_commands(sentence)
    with pytest.raises(AssertionError, match=r"README\.md: "):
        check_inline(words)


@pytest.mark.parametrize(
    ("target", "tools", "tests"),
    [
        ("demo", False, None),
        ("test", True, "not real and not wheel"),
        ("test-wheel", True, "wheel"),
        ("check", True, None),
        ("format", True, None),
    ],
)
def test_targets_install_what_they_need_and_no_more(target: str, tools: bool, tests: str | None) -> None:
    """As on a new checkout: everything is made."""
    found = subprocess.run(["make", "-nB", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    installed = re.findall(r"pip install -q .*-c constraints\.txt (.*)", found)
    assert installed == ["torch", "-e .", *(["-e '.[dev]'"] if tools else [])]
    chosen = [shlex.split(line)[-1] for line in found.splitlines() if "-m pytest" in line]
    assert chosen == ([] if tests is None else [tests])


def test_the_slow_tests_are_chosen_where_the_shared_folder_is(tmp_path: Path) -> None:
    command = ["make", "-nB", "test-real", f"SHARED={tmp_path}"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f'if [ -d "{tmp_path}" ]' in found
    assert 'python -m pytest -q -m "real or wheel"; ' in found


def test_all_code_is_fenced() -> None:
    prose = FENCED.sub("", README)
    assert not re.findall(r"^(?: {4}|\t|~~~|```).*$", prose, re.MULTILINE)


def test_links_and_files_named_are_there() -> None:
    prose = FENCED.sub("", README)
    links = re.findall(r"\]\(([^)#:]+)\)", prose)
    assert len(links) >= 6
    assert [name for name in links if not (ROOT / name).exists()] == []


def test_the_tree_names_the_rooms_that_there_are() -> None:
    tree = README.split("## Where things are")[1].split("```")[1]
    named = {name for line in re.findall(r"^  (\S.*?)   ", tree, re.MULTILINE) for name in line.split(", ")}
    folder = ROOT / "src" / "ltprompt"
    assert [name for name in named if not (folder / name).exists()] == []
    rooms = {f"{place.name}/" for place in folder.iterdir() if place.is_dir() and place.name != "__pycache__"}
    assert rooms <= named


def test_the_methods_are_those_of_the_code() -> None:
    table = README.split("## Methods")[1].split("Tickets:")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`([\w-]+)`", " ".join(rows))) == sorted(METHODS)


def test_the_results_are_those_of_the_report() -> None:
    report = ROOT / "docs" / "results" / "mini-table1" / "report" / "report.csv"
    with report.open(encoding="utf-8", newline="") as file:
        averages = [row for row in csv.DictReader(file) if row["language"] == "AVG" and row["seeds"] not in ("", "0")]
    expected = {
        (row["shots"], row["method"].lower()): f"{float(row['mean']):.1f} ± {float(row['deviation']):.1f}"
        for row in averages
    }
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if "±" in line]
    methods = README.split("| shots |")[1].split("\n")[0].strip("| ").split(" | ")
    assert {(row[0], name): cell for row in rows for name, cell in zip(methods, row[1:], strict=True)} == expected
    results = read_results(report.parents[1])
    assert f"{len(results.runs)} of its {results.planned} runs are finished" in " ".join(README.split())


def test_the_control_is_that_of_the_results() -> None:
    lines = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith("| `ltp`, 75 % |")]
    control = [cell.strip() for cell in line.strip("|").split("|")]
    assert f"reaches {control[1]} in English and {control[-1]} over five languages" in " ".join(README.split())
