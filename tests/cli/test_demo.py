"""The demonstration, with a toy in place of the embedded backbone, and the embedded data."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from helpers.toys import toy_backbone

from ltprompt.adapter import Adapter
from ltprompt.backbone.model import Backbone
from ltprompt.classifier import PromptClassifier
from ltprompt.cli import demo as module
from ltprompt.cli import main as cli
from ltprompt.device import Compute, resolve
from ltprompt.errors import InputError
from ltprompt.settings import ScoresSettings, TrainSettings
from ltprompt.stage2.measures import Evaluation, measure
from ltprompt.tickets.scores import Scores
from ltprompt.tickets.ticket import Ticket

CPU = Compute(torch.device("cpu"))
LABELS = ("entailment", "neutral", "contradiction")
# After which line, and at which call of which function from there on, Ctrl-C is pressed.
MOMENTS = [
    ("ltprompt demo", "ltprompt.files.artifacts._flush", 1),
    ("ltprompt demo", "ltprompt.files.artifacts._flush", 5),
    ("ltprompt scores", "ltprompt.stage1.training.mlm_step", 2),
    ("ltprompt scores", "ltprompt.stage1.training.held_out_loss", 1),
    ("ltprompt scores", "ltprompt.tickets.scores.write_json", 1),
    ("ltprompt ticket cut", "ltprompt.files.artifacts._flush", 1),
    ("ltprompt ticket inspect", "ltprompt.files.artifacts._flush", 1),
    ("--method sp", "torch.nn.functional.cross_entropy", 3),
    ("--method sp", "ltprompt.adapter.write_json", 1),
    ("--method ltp", "torch.nn.functional.cross_entropy", 3),
    ("--method ltp", "ltprompt.adapter.write_tensors", 1),
    ("--method ltp", "ltprompt.stage2.forward.Reader.predict", 3),
    ("--method ltp", "ltprompt.cli.demo.write_json", 1),
]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """A toy in place of `mini`, and settings that every command has flags for."""

    def load(*_: object, **__: object) -> Backbone:
        return toy_backbone("xlm-roberta", layers=2)

    monkeypatch.setattr(Backbone, "from_pretrained", load)
    monkeypatch.setattr(module, "SCORES", ScoresSettings(steps=2, batch_size=2, max_length=32, evaluate_every=2))
    monkeypatch.setattr(module, "TRAIN", TrainSettings(epochs=2, max_length=64, lr=1e-2))
    return load()


def run(out: Path, say: Callable[[str], None] = lambda _: None, compute: Compute = CPU) -> None:
    module.demo(out, compute, say)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_says_what_it_did_and_leaves_its_files(short: Backbone, tmp_path: Path) -> None:
    said: list[str] = []
    run(tmp_path / "out", said.append)
    text = "\n".join(said)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results) == sorted(module.METHODS)
    for method in module.METHODS:
        assert f"{results[method]['mean']['accuracy']:.1%}" in text
        adapter = Adapter.load(tmp_path / "out" / f"adapter-{method}")
        kept = adapter.record["kept_epoch"]
        assert f"{adapter.size:,} backbone entries changed; kept epoch {kept} of 2" in text
    size = sum(parameter.numel() for parameter in short.parameters.values())
    assert f"has 2 layers and {size:,} parameters; it runs on cpu in fp32." in text
    shortened = {}
    for line in text.split("Shortened for the demo")[1].split("\n\n")[0].splitlines()[1:]:
        name, value = re.split(r" {2,}", line.strip())
        shortened[name] = value
    assert shortened == {
        "stage 1": "2 steps (3 epochs of 300,000 lines)",
        "lines a step": "2 (32)",
        "tokens a line": "32 (256)",
        "training": "32 examples a class (1 to 32)",
        "epochs": "2 (prompt-only 70, sp 50, ltp 70)",
        "examples a step": "prompt-only 32, sp 12, ltp 32",
        "tokens an example": "64 (256)",
        "rate": "0.01 (prompt-only 2e-05, sp 1e-05, ltp 2e-05)",
        "rate of the prompt": "0.01 (prompt-only 2e-05, sp 1e-05, ltp 2e-05)",
        "decay": "constant",
        "seeds": "1 (5)",
    }
    assert "on 96 English pairs; 96 others choose the epoch" in text
    assert "chance is 33.3%" in text
    assert (tmp_path / "out" / "ticket-20.png").read_bytes()[1:4] == b"PNG"
    loaded = PromptClassifier.from_pretrained(tmp_path / "out" / "adapter-ltp", short)
    assert len(loaded.predict([{"premise": "the cat sat", "hypothesis": "a cat sat"}])) == 1


def test_a_second_demo_replaces_the_first(short: Backbone, tmp_path: Path) -> None:
    run(tmp_path)
    first = contents(tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "scores" / "checkpoint.safetensors").write_bytes(b"left by `ltprompt scores`, broken off")
    run(tmp_path)
    assert contents(tmp_path) == first | {"mine.txt": b"kept"}


def test_the_commands_shown_do_what_was_done(
    short: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, said = Path("my demo"), []
    for folder in ("shown", "typed"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "shown")
    run(out, said.append)
    expected = contents(tmp_path / "shown" / out)
    monkeypatch.chdir(tmp_path / "typed")
    out.mkdir()
    shutil.copy(tmp_path / "shown" / out / "text.txt", out)
    shutil.copy(tmp_path / "shown" / out / "demo.json", out)
    shutil.copytree(tmp_path / "shown" / out / "data", out / "data")

    def typed(*arguments: str) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["ltprompt", *arguments])
        assert cli.main() == 0, capsys.readouterr().err
        return capsys.readouterr().out

    text = "\n".join(said)
    commands = re.findall(r"^\$ ltprompt (.*)$", text, re.MULTILINE)
    printed = {command: typed(*shlex.split(command)) for command in commands}
    names = ["scores", *["ticket"] * 2, *["train", "evaluate"] * 3, "predict"]
    assert [command.split()[0] for command in commands] == names
    assert printed[commands[2]] in text + "\n"
    assert printed[commands[-1]].count("\n") == 61
    results = json.loads(expected.pop("results.json"))
    assert contents(out) == expected
    evaluations = [command for command in commands if command.startswith("evaluate")]
    assert len(evaluations) == len(results)
    for command, method in zip(evaluations, module.METHODS, strict=True):
        typed(*shlex.split(command), "--json", "m.json")
        assert json.loads(Path("m.json").read_text()) == results[method]
        assert all(f"{name} " in printed[command] for name in results[method]["languages"])


def test_commands_name_device_and_dtype_where_they_are_not_the_machines_own(short: Backbone) -> None:
    auto = resolve()
    other = Compute(auto.device, torch.bfloat16 if auto.dtype == torch.float32 else torch.float32)
    assert module._where(auto) == []
    assert module._where(other) == ["--device", str(auto.device), "--dtype", other.dtype_name]


# A folder of the user's own.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("thesis.txt", "mine holds other files, and the demo needs a folder of its own; choose another --out"),
        ("results.json", "mine holds other files"),
        ("text.txt", "text.txt is not as the demo writes it; choose another --out, or move it away"),
        ("data/train.en.tsv", "train.en.tsv is not as the demo writes it"),
        ("data/train.en.tsv/x", "train.en.tsv is not as the demo writes it"),
    ],
)
def test_files_of_the_users_own_are_left_alone(short: Backbone, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "mine" / name).parent.mkdir(parents=True)
    (tmp_path / "mine" / name).write_bytes(b"\xff mine")
    with pytest.raises(InputError, match=message):
        run(tmp_path / "mine")
    assert contents(tmp_path) == {f"mine/{name}": b"\xff mine"}


def test_a_table_that_the_user_changed_is_left_alone(short: Backbone, tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "data" / "test.sw.tsv").write_text("premise\thypothesis\tlabel\nmoja\tmbili\tneutral\n")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"test\.sw\.tsv is not as the demo writes it"):
        run(tmp_path)
    assert contents(tmp_path) == before


def test_a_folder_made_under_another_python_or_release_is_replaced(
    short: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "embedded_text", lambda: ["A manual of another version, with other words in it."] * 20)
        run(tmp_path)
    assert "another version" in (tmp_path / "text.txt").read_text()
    # Broken off between the record and the files, by a third version: what is there is still known.
    with monkeypatch.context() as patch:
        patch.setattr(module, "embedded_text", lambda: ["The third."])
        patch.setattr(module, "write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    run(tmp_path)
    assert (tmp_path / "text.txt").read_text() == "\n".join(module.embedded_text()) + "\n"
    digest = hashlib.sha256((tmp_path / "text.txt").read_bytes()).hexdigest()
    assert digest in json.loads((tmp_path / "demo.json").read_text())["text.txt"]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("record", ["{", "[]", '{"text.txt": 3}'])
def test_a_record_of_the_users_own_is_left_alone(short: Backbone, tmp_path: Path, record: str) -> None:
    (tmp_path / "text.txt").write_text("\n".join(module.embedded_text()) + "\n")
    (tmp_path / "demo.json").write_text(record)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"demo\.json is not as the demo writes it; choose another --out"):
        run(tmp_path)
    assert contents(tmp_path) == before


def test_a_file_in_the_folders_place_is_refused(short: Backbone, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out is a file, and the demo makes a folder; choose another --out"):
        run(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


# Ctrl-C.


def run_until(patch: pytest.MonkeyPatch, out: Path, line: str, target: str, number: int) -> None:
    """Run the demonstration and press Ctrl-C at a moment."""
    where, name = target.rsplit(".", 1)
    owner: Any = sys.modules.get(where) or getattr(sys.modules[where.rsplit(".", 1)[0]], where.rsplit(".", 1)[1])
    function, calls, armed = getattr(owner, name), 0, False

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += armed
        if calls == number:
            raise KeyboardInterrupt
        return function(*arguments, **named)

    def say(text: str) -> None:
        nonlocal armed
        armed = armed or line in text

    with patch.context() as inner:
        inner.setattr(owner, name, counted)
        with pytest.raises(KeyboardInterrupt):
            run(out, say)


def assert_readable(out: Path) -> None:
    """Every artifact that is complete can be read."""
    if (out / "scores" / "scores.safetensors").exists():
        Scores.load(out / "scores")
    if (out / "ticket-20.safetensors").exists():
        Ticket.load(out / "ticket-20.safetensors")
    for record in out.glob("adapter-*/adapter.json"):
        Adapter.load(record.parent)


def test_an_interrupted_demo_leaves_nothing_broken(
    short: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [table for table in module.embedded_tables() if ".en." in table.name or ".sw." in table.name]
    monkeypatch.setattr(module, "embedded_tables", lambda: tables)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    run(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    for moment in MOMENTS:
        run_until(monkeypatch, tmp_path / "fresh", *moment)
        run_until(monkeypatch, tmp_path / "whole", *moment)
        found = contents(tmp_path / "fresh")
        assert found == {name: whole[name] for name in found}, moment
        assert contents(tmp_path / "whole") == whole, moment
        assert not list((tmp_path / "temporary").iterdir()), moment
        assert_readable(tmp_path / "fresh")
    run(tmp_path / "fresh")
    assert contents(tmp_path / "fresh") == whole


def test_ctrl_c_ends_the_command_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ltprompt", "demo", "--out", "out", "--threads", "1"]
    (tmp_path / "temporary").mkdir()
    setting = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=setting
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("$ ltprompt scores") for line in process.stdout)
        while not any((tmp_path / "temporary").iterdir()):  # stage 1 keeps the pretrained weights there
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.startswith("error: interrupted")
    assert error.count("\n") == 1
    assert not list((tmp_path / "temporary").iterdir())
    assert {name.split("/")[0] for name in contents(tmp_path / "out")} == {"data", "demo.json", "text.txt"}


# What it says of the numbers, and the data.


def hits(rate: float, seed: int, languages: int = 3, examples: int = 60) -> np.ndarray:
    return (np.random.default_rng(seed).random((examples, languages)) < rate).astype(float)


def correlated_hits(seed: int, premises: list[str], languages: int = 3) -> np.ndarray:
    """Hits of a classifier that is often right about all of a premise's rows or about none."""
    draw = np.random.default_rng(seed)
    rate = {premise: draw.choice([0.1, 0.9]) for premise in sorted(set(premises))}
    return np.array([[float(draw.random() < rate[premise]) for _ in range(languages)] for premise in premises])


def test_the_interval_is_that_of_a_plain_bootstrap_over_premises() -> None:
    # Of unequal sizes, and not side by side.
    premises = [f"premise {number % 17 if number < 50 else 0}" for number in range(60)]
    first, second = correlated_hits(1, premises), correlated_hits(2, premises)
    random = Random(9)
    rows_of = {premise: [i for i in range(60) if premises[i] == premise] for premise in set(premises)}
    differences = []
    for _ in range(4000):
        rows = [row for premise in random.choices(sorted(rows_of), k=len(rows_of)) for row in rows_of[premise]]
        differences.append(100 * sum(sum(first[row]) / 3 - sum(second[row]) / 3 for row in rows) / len(rows))
    expected = sorted(differences)[100], sorted(differences)[-100]
    assert module.difference_interval(first, second, premises) == pytest.approx(expected, abs=2)


def test_false_alarms_are_about_as_rare_as_said() -> None:
    """Two classifiers alike, whose hits hang together within a premise: few intervals leave out 0."""
    premises, alarms = [f"premise {number // 3}" for number in range(60)], 0
    for seed in range(300):
        pair = correlated_hits(2 * seed, premises), correlated_hits(2 * seed + 1, premises)
        low, high = module.difference_interval(*pair, premises)
        alarms += low > 0 or high < 0
    assert 0.02 <= alarms / 300 <= 0.10  # of 20 premises a bootstrap is a little too sure; of rows alone it gives 0.24


@pytest.mark.parametrize(("rate", "verdict"), [(0.95, "beyond noise"), (0.34, "within noise")])
def test_the_conclusion_names_noise_as_noise(rate: float, verdict: str) -> None:
    sp, ltp = evaluation(0.33, 1), evaluation(rate, 2)
    mean = 100 * (ltp.mean["accuracy"] - sp.mean["accuracy"])
    premises = [f"premise {number // 3}" for number in range(60)]
    low, high = module.difference_interval(module._hits(ltp), module._hits(sp), premises)
    line = f"ltp minus sp: {mean:+.1f} points ({low:+.1f} to {high:+.1f}: {verdict})"
    said = module.conclusion({"sp": sp, "ltp": ltp}, premises).splitlines()
    assert said[1:] == [line]
    assert "another may differ" in said[0]
    assert "over the test premises" in said[0]


def evaluation(rate: float, seed: int) -> Evaluation:
    gold = np.arange(60) % 3
    right = hits(rate, seed, 1)[:, 0].astype(bool)
    predicted = np.where(right, gold, (gold + 1) % 3)
    return Evaluation(LABELS, {"en": measure(gold, predicted, 3)}, {"en": np.eye(3)[predicted]}, {"en": gold}, "fp32")


def test_embedded_text_is_prose_without_repeats() -> None:
    lines = module.embedded_text()
    assert len(lines) > 300
    assert len(set(lines)) == len(lines)
    assert all(len(line.split()) >= 8 and "\n" not in line for line in lines)


def test_embedded_tables_are_balanced_and_parallel() -> None:
    labels = {}
    for file in module.embedded_tables():
        rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()[1:]]
        assert all(len(row) == 3 and all(row) for row in rows), file.name
        labels[file.name] = [row[2] for row in rows]
        assert set(Counter(labels[file.name]).values()) == {20 if file.name.startswith("test") else 32}
    tests = [found for name, found in labels.items() if name.startswith("test")]
    assert len(tests) == 12
    assert all(found == tests[0] for found in tests)


def test_three_rows_share_a_premise_in_every_language() -> None:
    groups = []
    for file in module.embedded_tables():
        if file.name.startswith("test"):
            premises = [line.split("\t")[0] for line in file.read_text(encoding="utf-8").splitlines()[1:]]
            assert set(Counter(premises).values()) == {3}, file.name
            groups.append([premises.index(premise) for premise in premises])
    assert all(found == groups[0] for found in groups)
