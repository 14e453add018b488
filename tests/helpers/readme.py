"""The README as its reader meets it: its commands, run in order, held against what it shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from helpers.toy_classifiers import OTHER, TRAIN, write_table
from helpers.toys import toy_backbone
from ltprompt.backbone.model import Backbone
from ltprompt.cli import demo as demonstration
from ltprompt.cli import main as cli
from ltprompt.settings import ScoresSettings, TrainSettings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# All that the page's commands are given beyond what they say: a toy for the hub's backbone, and small settings there.
HUB = "FacebookAI/xlm-roberta-base"
SMALL = {
    "scores": ["--steps", "2", "--batch-size", "4", "--max-length", "32"],
    "train": ["--epochs", "1", "--max-length", "48", "--lr", "0.02"],
}


def bring_files(folder: Path) -> None:
    """Write what the page expects of its reader: text, labelled tables, an unlabelled one."""
    lines = [f"{row['premise']} {row['hypothesis']}" for row in TRAIN + OTHER]
    (folder / "english.txt").write_text("\n".join(lines * 3) + "\n")
    for name, rows in (("train", TRAIN), ("dev", OTHER), ("test.sw", OTHER), ("test.tr", TRAIN)):
        write_table(folder / f"{name}.tsv", rows)
    write_table(folder / "unlabelled.tsv", OTHER, ("premise", "hypothesis"))


def commands(block: str) -> Iterator[list[str]]:
    """Yield the words of each command; a here-document gives `cat`, the file's name and its text."""
    lines = iter(block.splitlines())
    for line in lines:
        while line.endswith("\\"):
            line = line.removesuffix("\\") + next(lines)
        written = re.fullmatch(r"cat > (\S+) <<'(\w+)'", line)
        if written:
            assert f"\n{written[2]}\n" in block
            yield ["cat", written[1], "".join(f"{text}\n" for text in iter(lines.__next__, written[2]))]
        elif words := shlex.split(line, comments=True):
            yield words


@dataclass
class Reader:
    """Someone who does what the page says, in a folder of their own."""

    patch: pytest.MonkeyPatch
    toy: Path

    def follow(self, page: str) -> None:
        """Do everything on a page, and hold what it shows against what was printed."""
        printed = ""
        for language, block in FENCED.findall(page):
            if language == "sh":
                printed = "".join(self.run(words) for words in commands(block))
            elif language == "python":
                printed = self.run_python(block)
            elif language == "tree":
                pass  # what it names is looked up by a test of its own
            elif language == "text":
                assert_shown(block, printed)
            else:
                pytest.fail(f"README.md has a block of {language or 'no language'!r}: use sh, python or text")

    def run(self, words: list[str]) -> str:
        """Run one command and return what it printed."""
        program, *arguments = words
        if program == "cat":
            Path(arguments[0]).write_text(arguments[1], encoding="utf-8")
            return ""
        if program == "ltprompt":
            return self.run_ltprompt(arguments)
        if program == "make":
            return self.run_make(arguments)
        if words == [".", ".venv/bin/activate"]:
            assert "-m venv .venv\n" in (ROOT / "Makefile").read_text()
            return ""
        pytest.fail(f"README.md runs {shlex.join(words)!r}, which tests/test_readme.py does not provide for")

    def run_ltprompt(self, arguments: list[str]) -> str:
        if HUB in arguments:
            arguments = [str(self.toy) if word == HUB else word for word in arguments] + SMALL[arguments[0]]
        return self.call(arguments)

    def call(self, arguments: list[str]) -> str:
        """Run a command of ltprompt in this process."""
        self.patch.setattr(sys, "argv", ["ltprompt", *arguments])
        with redirect_stdout(StringIO()) as printed:
            status = cli.main()
        assert status == 0, f"README.md: ltprompt {shlex.join(arguments)}"
        return printed.getvalue()

    def run_make(self, targets: list[str]) -> str:
        """Ask make what it would do; the demonstration is run, on a toy and with few steps."""
        found = subprocess.run(
            ["make", "-n", "--no-print-directory", *targets], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, f"README.md: make {shlex.join(targets)}: {found.stderr}"
        # A folder of the target's name, such as `tests`, would do for make, too.
        known = re.findall(r"^([\w-]+):.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(targets) <= set(known), f"README.md: make {shlex.join(targets)}: not among {known}"
        if targets == ["test"]:
            return self.run_some_tests(found.stdout.splitlines()[-1])
        if targets != ["demo"]:
            return found.stdout
        assert re.search(r"/ltprompt demo\necho .*\. \.venv/bin/activate.*\n$", found.stdout)
        with self.patch.context() as patch:
            patch.setattr(Backbone, "from_pretrained", lambda *_, **__: toy_backbone("xlm-roberta"))
            patch.setattr(demonstration, "SCORES", ScoresSettings(steps=2, batch_size=2, max_length=32))
            patch.setattr(demonstration, "TRAIN", TrainSettings(epochs=1, max_length=64))
            return self.run_ltprompt(["demo"])

    def run_some_tests(self, command: str) -> str:
        """Run what `make test` runs, on two of the files alone, where no shared folder is; return what it printed."""
        program, *arguments = shlex.split(command)
        assert program == ".venv/bin/python"
        files = ["tests/tasks/test_table.py", "tests/test_wheel.py"]
        return subprocess.run(
            # Two files run little of the code, and what they ran must not take the place of the whole suite's measure.
            [sys.executable, *arguments, "-p", "no:cacheprovider", "--cov-fail-under=0", *files],
            cwd=ROOT,
            env=os.environ
            | {
                "LTPROMPT_SHARED": "no/such/folder",
                "OMP_NUM_THREADS": "1",
                "COVERAGE_FILE": str(Path("cov").absolute()),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def run_python(self, block: str) -> str:
        with redirect_stdout(StringIO()) as printed:
            exec(compile(block, "README.md", "exec"), {})
        return printed.getvalue()


def shape(line: str) -> str:
    """A line as it must be everywhere: without spacing and, where it has measures, without numbers and verdicts."""
    if re.match(r"\d+ passed", line):  # the tests' counts change from day to day, and their time
        return re.sub(r"\d+", "#", re.sub(r" in \d[\d.]*s.*", "", line))
    if re.search(r"\d\.\d", line):
        line = re.sub(r"[+-]?\d[\d.,]*%?|\b(positive|negative|within|beyond)\b", "#", line)
    return " ".join(line.split())


def assert_shown(block: str, printed: str) -> None:
    """Assert that the lines of a block were printed, in this order; `...` stands for any."""
    found = iter([shape(line) for line in printed.splitlines()])
    for line in block.splitlines():
        if line and line != "...":
            assert shape(line) in found, f"README.md shows {line!r}, which was not printed there:\n{printed}"
