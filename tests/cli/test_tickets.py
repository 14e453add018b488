"""The ticket commands, on the scores that `ltprompt scores` leaves of a toy backbone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import Run
from helpers.toy_classifiers import OTHER, TRAIN
from helpers.toys import toy_folder, toy_model, toy_tokenizer

from ltprompt.backbone.model import Backbone
from ltprompt.cli import main as cli
from ltprompt.stage1.corpus import read_lines
from ltprompt.stage1.criteria import find_criterion
from ltprompt.tickets.header import CRITERIA
from ltprompt.tickets.scores import Scores
from ltprompt.tickets.ticket import Ticket

TEXT = [f"{row['premise']} {row['hypothesis']}" for row in TRAIN + OTHER] * 2
CUT = ["ticket", "cut", "scores", "--ratio", "0.3", "--out", "new/t.safetensors"]
FP32 = ["--dtype", "fp32", "--device", "cpu"]
SCORES = ["scores", "model", "--text", "text.txt", "--max-length", "32", "--steps", "3", "--batch-size", "8", *FP32]
GRADIENT = [*CUT, "--select", "gradient", "--text", "text.txt", *FP32]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a toy backbone, a text and the scores of two corpora, found by the command."""
    folder = tmp_path_factory.mktemp("made")
    toy_folder("xlm-roberta", folder / "model", dropout=0.1)
    (folder / "text.txt").write_text("\n".join(TEXT) + "\n", encoding="utf-8")
    (folder / "more.txt").write_text("a good cat\n" + "no mat is bad " * 12 + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, seed in (("scores", "0"), ("scores-2", "1")):
            patch.setattr(sys, "argv", ["ltprompt", *SCORES, "--seed", seed, "--lr", "0.01", "--out", name])
            assert cli.main() == 0
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, with two tickets, as the working directory."""
    copy = shutil.copytree(made, tmp_path / "place")
    for name, ticket in (("scores", "en"), ("scores-2", "sw")):
        Scores.load(copy / name).select(0.3).save(copy / f"{ticket}.safetensors")
        record = json.loads((copy / name / "scores.json").read_text())
        assert record["backbone"] == str(made / "model")
        (copy / name / "scores.json").write_text(json.dumps(record | {"backbone": str(copy / "model")}))
    monkeypatch.chdir(copy)
    return copy


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


GIVEN: dict[str, list[str]] = {
    "delta": [],
    "random": ["--seed", "5"],
    "magnitude": [],
    "gradient": ["--text", "text.txt", "more.txt", "--lines", "12", *FP32],
    "fisher": ["--text", "text.txt", "--text", "more.txt", *FP32],
}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_cut_is_that_of_the_library(criterion: str, run: Run, place: Path) -> None:
    backbone, scores = Backbone.from_pretrained("model"), Scores.load("scores")
    given: dict[str, Any] = {"random": {"seed": 5}, "magnitude": {"backbone": backbone}}.get(criterion, {})
    if criterion in ("gradient", "fisher"):
        texts = read_lines(["text.txt", "more.txt"])
        given = {"backbone": backbone, "texts": texts, "max_length": 32}
        given |= {"lines": 12} if criterion == "gradient" else {}
    before = files(place)
    result = run(*CUT, "--scope", "layer", "--select", criterion, *GIVEN[criterion])
    assert result.status == 0, result.err
    find_criterion(scores, criterion, **given).select(0.3, "layer").save("expected")
    assert (place / "new/t.safetensors").read_bytes() == (place / "expected").read_bytes()
    ticket = Ticket.load("new/t.safetensors")
    assert (ticket.criterion, ticket.seed) == (criterion, 5 if criterion == "random" else None)
    size = f"ticket of {ticket.size:,} entries ({ticket.active_ratio:.2%} of the eligible parameters)"
    assert result.out == f"{size} in new/t.safetensors\n"
    assert {name: data for name, data in files(place).items() if name in before} == before
    if criterion in ("gradient", "fisher"):
        assert f"{criterion} {12 if criterion == 'gradient' else 20}/" in result.err


def test_the_usual_cut_is_by_movement(run: Run, place: Path) -> None:
    assert run(*CUT).status == 0
    assert (place / "new/t.safetensors").read_bytes() == (place / "en.safetensors").read_bytes()


def test_zero_scores_are_noted_in_the_words_of_the_criterion(run: Run, place: Path) -> None:
    whole = ["ticket", "cut", "scores", "--ratio", "1", "--out", "t"]
    assert "entries never moved (score 0)" in run(*whole).err
    assert "entries have score 0\n" in run(*whole, *GRADIENT[-8:]).err


def test_a_backbone_that_has_moved_is_named(run: Run, place: Path) -> None:
    assert run(*CUT, "--select", "magnitude").status == 0
    first = (place / "new/t.safetensors").read_bytes()
    (place / "model").rename("elsewhere")
    missing = run(*CUT, "--select", "magnitude")
    assert (missing.status, missing.err.count("\n")) == (1, 1)
    assert "no backbone at" in missing.err
    (place / "scores" / "scores.json").unlink()
    assert run(*CUT, "--select", "magnitude", "--backbone", "elsewhere").status == 0
    assert (place / "new/t.safetensors").read_bytes() == first


@pytest.mark.parametrize("spelling", [["a", "b"], ["a", "FLAG", "b"]])
@pytest.mark.parametrize(("flag", "operation"), [("--union", set.union), ("--intersect", set.intersection)])
def test_tickets_are_combined(
    flag: str, operation: Callable[..., set[Any]], spelling: list[str], run: Run, place: Path
) -> None:
    names = {"a": "en.safetensors", "b": "sw.safetensors", "FLAG": flag}
    result = run("ticket", "combine", flag, *(names[word] for word in spelling), "--out", "both.safetensors")
    assert result.status == 0, result.err
    parts = [Ticket.load(f"{name}.safetensors") for name in ("en", "sw")]
    found = Ticket.load("both.safetensors")
    for parameter in found.parameters:
        sets = [set(ticket.indices(parameter.name).tolist()) for ticket in parts]
        assert set(found.indices(parameter.name).tolist()) == operation(*sets)
    assert result.out.startswith(f"ticket of {found.size:,} entries ({found.active_ratio:.2%} of the eligible")
    assert parts[0].size != found.size


def test_inspection_shows_the_criterion(run: Run, place: Path) -> None:
    run(*CUT, "--select", "random", "--seed", "5")
    run("ticket", "combine", "--intersect", "en.safetensors", "sw.safetensors", "--out", "both")
    expected = {
        "en.safetensors": ("delta", None, ", criterion delta\nentries that never moved (score 0): "),
        "new/t.safetensors": ("random", 5, ", criterion random, seed 5\nentries of score 0: "),
        "both": ("intersection", None, ", layers all, criterion intersection\n\n"),
    }
    for name, (criterion, seed, shown) in expected.items():
        found = json.loads(run("ticket", "inspect", name, "--json").out)
        assert (found["criterion"], found["seed"]) == (criterion, seed)
        assert shown in run("ticket", "inspect", name).out
    (found,) = json.loads(run("ticket", "compare", "new/t.safetensors", "both", "--json").out)
    assert found["overall"]["a"] == Ticket.load("new/t.safetensors").size


# Bad input: what spoils the folder, the command, and what its one line says.


def nothing(place: Path) -> None:
    """Leave the folder as it is."""


def other_model(place: Path) -> None:
    """Put another backbone of the same architecture where the first one was."""
    toy_model("xlm-roberta", seed=1).save_pretrained(place / "model")
    toy_tokenizer("xlm-roberta").save_pretrained(place / "model")


def nameless(place: Path) -> None:
    """Remove the record beside the scores."""
    (place / "scores" / "scores.json").unlink()


def tied(place: Path) -> None:
    """Make one of the tickets a tied one."""
    scores = Scores.load(place / "scores")
    Scores(scores.parameters, scores.tensors, "tied", scores.fingerprint).select(0.2).save(place / "sw.safetensors")


def foreign(place: Path) -> None:
    """Make one of the tickets another backbone's."""
    scores = Scores.load(place / "scores")
    Scores(scores.parameters, scores.tensors, "decoupled", "0" * 64).select(0.2).save(place / "sw.safetensors")


UNION = ["ticket", "combine", "--union", "en.safetensors", "sw.safetensors", "--out", "new/u"]
MISMATCH = "the scores are of the backbone [0-9a-f]{12}, this backbone is [0-9a-f]{12}; give the --backbone"
BAD: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "criterion unknown": (nothing, [*CUT, "--select", "gradiant"], "unknown criterion 'gradiant'; did you mean 'gradi"),
    "no text": (nothing, GRADIENT[:-6], "'gradient' needs text to take gradients on; give some as --text"),
    "text missing": (nothing, [*GRADIENT, "--text", "absent.txt"], "absent.txt does not exist"),
    "seed with delta": (nothing, [*CUT, "--seed", "0"], "'delta' takes no seed; leave --seed out, or choose random"),
    "text with random": (nothing, [*CUT, "--select", "random", "--text", "text.txt"], "no texts; leave --text out"),
    "backbone with delta": (nothing, [*CUT, "--backbone", "model"], "'delta' takes no backbone"),
    "another backbone": (other_model, [*CUT, "--select", "magnitude"], MISMATCH),
    "another backbone named": (nothing, [*GRADIENT, "--backbone", "mini"], MISMATCH),
    "no record": (nameless, GRADIENT, "scores does not say which backbone its scores are of; name it with --backbone"),
    "ratio before the work": (other_model, [*GRADIENT, "--ratio", "2"], "the ratio 2.0 is not a share"),
    "layers before the work": (other_model, [*GRADIENT, "--layers", "9"], "there is no layer 9"),
    "device unknown": (nothing, [*GRADIENT, "--device", "gpu"], "device 'gpu' is not available"),
    "strategies": (tied, UNION, "the tickets have different strategies, decoupled and tied; combine tickets of one"),
    "backbones": (foreign, UNION, "different backbones, [0-9a-f]{12} and 0{12}; combine tickets of one backbone"),
    "ticket missing": (nothing, [*UNION, "--union", "absent"], "absent does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_clear_line_and_writes_nothing(name: str, run: Run, place: Path) -> None:
    change, command, message = BAD[name]
    change(place)
    before = files(place)
    result = run(*command)
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert re.search(message, result.err), result.err
    assert "unexpected" not in result.err
    assert files(place) == before


@pytest.mark.parametrize(
    "command",
    [
        [*CUT, "--select", "random", "--seed", "-1"],
        [*GRADIENT, "--lines", "0"],
        ["ticket", "combine", "--out", "new/u"],
        ["ticket", "combine", "--union", "en.safetensors", "--out", "new/u"],
        [*UNION, "--intersect", "en.safetensors", "sw.safetensors"],
        UNION[:-2],
    ],
)
def test_bad_usage_ends_with_2(command: list[str], run: Run, place: Path) -> None:
    before = files(place)
    result = run(*command)
    assert result.status == 2
    assert "Usage: ltprompt ticket" in result.err
    assert files(place) == before


def test_the_commands_are_listed_and_a_plain_cut_runs_without_heavy_imports(place: Path) -> None:
    code = (
        "import sys, ltprompt.cli.main\n"
        "print(sorted({'torch', 'numpy'} & set(sys.modules)))\n"
        f"sys.argv = {['ltprompt', *CUT]!r}\n"
        "ltprompt.cli.main.main()\n"
        "print('transformers' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = found.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("[]", "False")
