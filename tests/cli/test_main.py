from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from helpers.command_line import Result, Run
from helpers.toy_classifiers import LABELS, OTHER, TRAIN, toy_ticket, write_table
from helpers.toys import toy_folder, toy_model, toy_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import ltprompt
from ltprompt import device
from ltprompt.backbone.model import Backbone
from ltprompt.cli import main as cli
from ltprompt.settings import ScoresSettings, Settings, TrainSettings
from ltprompt.stage2.methods import METHODS

TEXT = [f"{row['premise']} {row['hypothesis']}" for row in TRAIN + OTHER] * 3
FP32 = ["--dtype", "fp32", "--device", "cpu"]
GROUP: Any = typer.main.get_command(cli.app)


@dataclass
class Walk:
    """A folder with a toy backbone, data, and what every command made of them."""

    folder: Path
    results: dict[str, Result]


def write_inputs(folder: Path) -> None:
    toy_folder("xlm-roberta", folder / "model", dropout=0.1)
    (folder / "text.txt").write_text("\n".join(TEXT) + "\n", encoding="utf-8")
    write_table(folder / "train.tsv", TRAIN)
    write_table(folder / "other.tsv", OTHER, ("label", "hypothesis", "premise"))
    write_table(folder / "bare.tsv", OTHER, ("premise", "hypothesis"))


def walk_commands() -> dict[str, list[str]]:
    """The whole walk, in a folder that `write_inputs` filled."""
    train = ["--task", "xnli", "--train", "train.tsv", "--lr", "0.02", "--epochs", "2", "--max-length", "48"]
    short = ["--max-length", "32", "--steps", "4", "--batch-size", "8", "--lr", "0.01"]
    return {
        "scores": ["scores", "model", "--text", "text.txt", "--out", "scores", *short, *FP32],
        "cut": ["ticket", "cut", "scores", "--ratio", "0.3", "--out", "t30.safetensors"],
        "cut all": ["ticket", "cut", "scores", "--ratio", "1", "--out", "t100.safetensors"],
        "inspect": ["ticket", "inspect", "t30.safetensors", "--json", "--plot", "t30.png"],
        "inspect text": ["ticket", "inspect", "t30.safetensors"],
        "compare": ["ticket", "compare", "t30.safetensors", "t100.safetensors", "--json"],
        "compare text": ["ticket", "compare", "t30.safetensors", "t100.safetensors"],
        "train": ["train", "model", *train, "--ticket", "t30.safetensors", "--dev", "other.tsv", "--out", "a", *FP32],
        "evaluate": [
            *["evaluate", "a", "--data", "en=train.tsv", "--data", "sw=other.tsv", *FP32],
            *["--json", "measures.json", "--predictions", "predictions"],
        ],
        "predict": ["predict", "a", "bare.tsv", *FP32],
        "predict to a file": ["predict", "a", "bare.tsv", "--out", "made/bare.out.tsv", *FP32],
        "merge": ["merge", "a", "merged"],
    }


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """Every command in this process, one after the other."""
    folder = tmp_path_factory.mktemp("walk")
    write_inputs(folder)
    results = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, command in walk_commands().items():
            patch.setattr(sys, "argv", ["ltprompt", *command])
            out, err = (folder / f"{name}.{stream}" for stream in ("stdout", "stderr"))
            with out.open("w") as stdout, err.open("w") as stderr:
                patch.setattr(sys, "stdout", stdout)
                patch.setattr(sys, "stderr", stderr)
                status = cli.main()
            results[name] = Result(status, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))
    return Walk(folder, results)


@pytest.fixture
def place(walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the walk's folder to spoil, as the working directory."""
    copy = shutil.copytree(walk.folder, tmp_path / "place")
    monkeypatch.chdir(copy)
    return copy


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_one_line(result: Result, message: str) -> None:
    """Assert exit 1 with one line on stderr that opens with `error:`, says `message`, and nothing on stdout."""
    assert result.status == 1
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    assert re.search(message, result.err), result.err
    assert "error: unexpected" not in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


# The walk.


@pytest.mark.parametrize("name", walk_commands())
def test_the_walk_ends_every_command_with_0(walk: Walk, name: str) -> None:
    assert walk.results[name].status == 0, walk.results[name].err
    assert "rror" not in walk.results[name].err


def test_scores_say_what_they_hold_and_leave_no_checkpoint(walk: Walk) -> None:
    assert sorted(path.name for path in (walk.folder / "scores").iterdir()) == ["scores.json", "scores.safetensors"]
    eligible = sum(parameter.numel for parameter in Backbone.from_pretrained(walk.folder / "model").eligible)
    assert f"scores of {eligible:,} parameters in scores" in walk.results["scores"].out
    record = json.loads((walk.folder / "scores" / "scores.json").read_text())
    assert [record["settings"][key] for key in ("steps", "lr", "max_length", "strategy")] == [4, 0.01, 32, "decoupled"]


def test_a_cut_has_exactly_the_entries_asked_for(walk: Walk) -> None:
    found = json.loads(walk.results["inspect"].out)
    eligible = found["parameters"]
    assert found["entries"] == int(0.3 * eligible + 0.5)
    assert sum(part["entries"] for part in found["by_layer"].values()) == found["entries"]
    assert found["ratio"] == 0.3
    assert (walk.folder / "t30.png").read_bytes().startswith(b"\x89PNG")
    assert f"{found['entries']:,} of {eligible:,}" in walk.results["inspect text"].out
    assert "never moved" in walk.results["cut all"].err


def test_a_comparison_of_a_ticket_with_the_whole(walk: Walk) -> None:
    (found,) = json.loads(walk.results["compare"].out)
    inspected = json.loads(walk.results["inspect"].out)
    assert found["files"] == ["t30.safetensors", "t100.safetensors"]
    assert found["overall"]["intersection"] == inspected["entries"]
    assert found["overall"]["iou"] == pytest.approx(inspected["entries"] / inspected["parameters"])
    assert "IoU" in walk.results["compare text"].out


def test_training_shows_loss_and_dev_accuracy_and_names_its_epoch(walk: Walk) -> None:
    result = walk.results["train"]
    assert re.search(r"training 2/2, .*loss \d\.\d{4}, dev accuracy \d+\.\d%", result.err)
    assert re.match(r"adapter of [\d,]+ changed entries from epoch [12] \(loss .*\) in a\n$", result.out)
    record = json.loads((walk.folder / "a" / "adapter.json").read_text())
    assert record["record"]["ticket"]["ratio"] == 0.3
    assert record["settings"]["train"]["lr"] == 0.02


def test_measures_and_predictions_agree(walk: Walk) -> None:
    measures = json.loads((walk.folder / "measures.json").read_text())
    assert measures["labels"] == list(LABELS)
    for language, gold in (("en", TRAIN), ("sw", OTHER)):
        lines = (walk.folder / "predictions" / f"{language}.tsv").read_text().splitlines()
        assert lines[0].split("\t") == ["example", "gold", "predicted", *LABELS]
        rows = [line.split("\t") for line in lines[1:]]
        assert [row[1] for row in rows] == [row["label"] for row in gold]
        accuracy = sum(row[1] == row[2] for row in rows) / len(rows)
        assert measures["languages"][language]["accuracy"] == pytest.approx(accuracy)
    mean = sum(measures["languages"][language]["accuracy"] for language in ("en", "sw")) / 2
    assert measures["mean"]["accuracy"] == pytest.approx(mean)
    assert f"{mean:.2%}" in walk.results["evaluate"].out


def test_predictions_go_to_stdout_or_to_a_file_alike(walk: Walk) -> None:
    text = walk.results["predict"].out
    assert (walk.folder / "made" / "bare.out.tsv").read_text() == text
    rows = [line.split("\t") for line in text.splitlines()]
    assert rows[0] == ["example", "predicted", *LABELS]
    assert [row[0] for row in rows[1:]] == ["1", "2", "3"]
    for row in rows[1:]:
        shares = dict(zip(LABELS, map(float, row[2:]), strict=True))
        assert sum(shares.values()) == pytest.approx(1, abs=2e-6)
        assert row[1] == max(shares, key=shares.__getitem__)
    evaluated = (walk.folder / "predictions" / "sw.tsv").read_text().splitlines()[1:]
    assert [row[1] for row in rows[1:]] == [line.split("\t")[2] for line in evaluated]


def test_what_was_trained_in_bf16_is_used_in_it_and_says_so(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = {"amx_tile", "avx512_bf16"}
    monkeypatch.setattr(device, "_processor_has", lambda name: name in sets)
    data = ["--task", "xnli", "--train", "train.tsv", "--method", "sp", "--epochs", "1", "--max-length", "48"]
    assert run("train", "model", *data, "--out", "b", "--dtype", "bf16", "--device", "cpu").status == 0

    def used(*flags: str) -> tuple[str, str, str]:
        evaluated = run("evaluate", "b", "--data", "en=train.tsv", "--json", "b.json", "--device", "cpu", *flags)
        predicted = run("predict", "b", "bare.tsv", "--out", "b.tsv", "--device", "cpu", *flags)
        assert evaluated.status == predicted.status == 0
        line = evaluated.out.splitlines()[-1]
        assert f"note: {line}\n" in predicted.err
        return line, json.loads(Path("b.json").read_text())["dtype"], Path("b.tsv").read_text()

    line, dtype, as_trained = used()
    assert (line, dtype) == ("computed in bf16, as trained", "bf16")
    assert used("--dtype", "bf16")[2] == as_trained
    line, dtype, otherwise = used("--dtype", "fp32")
    assert (line, dtype) == ("computed in fp32; the adapter was trained in bf16", "fp32")
    assert otherwise != as_trained
    sets.clear()
    assert used() == (f"{line}, for which cpu has no instructions here", "fp32", otherwise)


WORDS = """
import json, sys
from ltprompt.cli.main import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["ltprompt", *words, "--threads", "1"]
    assert main() == 0
"""


def test_one_thread_gives_the_same_bytes_in_every_process(place: Path) -> None:
    commands = [walk_commands()[name] for name in ("scores", "train", "evaluate", "predict to a file")]
    made = []
    for _ in range(2):
        for folder in ("scores", "a", "predictions", "made"):
            shutil.rmtree(place / folder)
        (place / "measures.json").unlink()
        subprocess.run([sys.executable, "-c", WORDS, json.dumps(commands)], check=True, capture_output=True)
        made.append(files(place))
    assert {"scores/scores.safetensors", "a/adapter.safetensors", "measures.json"} < made[0].keys()
    assert made[0] == made[1]


def test_the_merged_folder_is_a_backbone(walk: Walk) -> None:
    assert Backbone.from_pretrained(walk.folder / "merged").tokenizer.convert_tokens_to_ids("<p4>") > 0
    assert "README.md" in walk.results["merge"].out


def test_an_adapter_finds_a_backbone_that_has_moved(run: Run, place: Path) -> None:
    record = (place / "a" / "adapter.json").read_text()
    assert str(place.parent / "place" / "model") not in record  # it names the place it was trained at
    before = run("predict", "a", "bare.tsv", *FP32)
    shutil.move(place / "model", place / "elsewhere")
    after = run("predict", "a", "bare.tsv", "--backbone", "elsewhere", *FP32)
    assert (after.status, after.out) == (before.status, before.out)


# Usage.


@pytest.mark.parametrize(
    "command",
    ["", "scores", "ticket", "ticket cut", "ticket inspect", "ticket compare", "train", "evaluate", "predict", "merge"],
)
def test_help_ends_with_0(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.status == 0
    assert "Usage: ltprompt" in result.out


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["tickets"],
        ["scores"],
        ["scores", "model", "--text", "text.txt"],
        ["scores", "model", "--text", "text.txt", "--out", "o", "--steps", "many"],
        ["ticket", "cut", "scores", "--out", "t"],
        ["ticket", "compare", "one.safetensors"],
        ["train", "model", "--unheard", "1"],
        ["evaluate", "a", "--data", "=train.tsv"],
        ["evaluate", "a", "--data", "sw="],
        ["predict", "a", "bare.tsv", "--out", "-", "--json", "-"],
        ["merge", "a", "b", "--out", "c"],
        ["merge", "a"],
    ],
)
def test_bad_usage_ends_with_2_and_no_traceback(run: Run, command: list[str]) -> None:
    result = run(*command)
    assert result.status == 2
    assert "Traceback" not in result.err
    assert "Usage: ltprompt" in result.err + result.out


def shown_defaults(command: str) -> dict[str, str]:
    """What a command's help says in brackets, by parameter."""
    shown = {}
    for parameter in GROUP.commands[command].params:
        found = re.search(r"\[([^\]]+)\]$", parameter.help or "")
        if found:
            shown[parameter.name] = found[1]
    return shown


@pytest.mark.parametrize(("command", "settings"), [("scores", ScoresSettings), ("train", TrainSettings)])
def test_every_setting_has_its_flag_with_the_help_of_the_field(command: str, settings: type[Settings]) -> None:
    options = {parameter.name: parameter for parameter in GROUP.commands[command].params}
    assert settings.model_fields.keys() < options.keys()
    for name, field in settings.model_fields.items():
        option = options[name]
        assert option.opts == ["--" + name.replace("_", "-")]
        assert option.default is None
        assert field.description
        assert option.help.startswith(field.description.partition(" `")[0].partition(" [")[0]), name
        assert "`" not in option.help


def test_the_defaults_in_the_help_of_scores_are_the_settings() -> None:
    shown = shown_defaults("scores")
    assert shown.pop("threads") == "all cores"
    assert shown.keys() == ScoresSettings.model_fields.keys() - {"steps"}
    for name, text in shown.items():
        assert text == str(ScoresSettings.model_fields[name].default), name


def test_the_defaults_in_the_help_of_train_are_the_recipes_and_settings() -> None:
    shown = shown_defaults("train")
    ltp = METHODS["ltp"].recipe
    for name in ("epochs", "batch_size", "lr"):
        usual, *others = shown[name].split("; ")
        told = {
            one: value for names, _, value in (other.partition(": ") for other in others) for one in names.split(", ")
        }
        for method in METHODS.values():
            assert told.get(method.name, usual) == str(getattr(method.recipe, name)), (name, method.name)
    sizes = dict(text.split(": ") for text in shown["size"].split("; "))
    assert sizes == {name: str(method.rank) for name, method in METHODS.items() if method.rank is not None}
    assert shown["schedule"] == ltp.schedule
    assert ltp.prompt_lr == ltp.lr
    assert shown["prompt_lr"] == "that of --lr"
    assert (shown["language"], TrainSettings.model_fields["language"].default) == ("the task's own", None)
    for name in ("prompt_length", "max_length", "seed"):
        assert shown[name] == str(TrainSettings.model_fields[name].default)


def test_the_command_line_starts_without_torch() -> None:
    script = "import sys, ltprompt.cli.main; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Bad input. Each entry spoils the folder, or does nothing, and names the command and what its one line must say.


def append(name: str, line: str | bytes) -> Callable[[Path], None]:
    """Add a line to a file."""
    return lambda place: spoil(place / name, lambda data: data + (line.encode() if isinstance(line, str) else line))


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def nothing(place: Path) -> None:
    """The folder as it is."""


def write(name: str, text: str) -> Callable[[Path], None]:
    def do(place: Path) -> None:
        (place / name).write_text(text, encoding="utf-8")

    return do


def task_with(words: str) -> Callable[[Path], None]:
    """A task file whose English words are others."""
    return write("task.yaml", f"base: xnli\nname: mine\npattern_words: {{}}\nwords: {{en: {words}}}\n{SOFT}")


SOFT = 'templates: {soft: ["{premise}", ".", "{hypothesis}", "?", "{prompt}", "{mask}", "."]}\n'


def truncate(name: str) -> Callable[[Path], None]:
    return lambda place: spoil(place / name, lambda data: data[: len(data) // 2])


def flip(name: str) -> Callable[[Path], None]:
    return lambda place: spoil(place / name, lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])


def other_model(place: Path) -> None:
    shutil.rmtree(place / "model")
    toy_folder("xlm-roberta", place / "model", seed=1)


def headless(place: Path) -> None:
    shutil.rmtree(place / "model")
    AutoModel.from_config(toy_model("xlm-roberta").config).save_pretrained(place / "model")
    toy_tokenizer("xlm-roberta").save_pretrained(place / "model")


def infinite(place: Path) -> None:
    """One weight of the backbone is not finite."""
    path = place / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["roberta.encoder.layer.0.output.dense.bias"][0] = torch.inf
    save_file(tensors, path, metadata={"format": "pt"})


SCORES = ["scores", "model", "--text", "text.txt", "--out", "new", "--steps", "4", "--max-length", "32", *FP32]
BASE = ["train", "model", "--task", "xnli", "--train", "train.tsv", "--max-length", "48", "--out", "new", *FP32]
LTP = [*BASE, "--ticket", "t30.safetensors", "--lr", "0.02", "--epochs", "2"]
SP = [*BASE, "--method", "sp", "--epochs", "2"]
TASK = [*SP[:3], "task.yaml", *SP[4:]]
EVALUATE = ["evaluate", "a", "--data", "en=other.tsv", "--json", "new/m.json", "--predictions", "new/p", *FP32]
PREDICT = ["predict", "a", "bare.tsv", "--out", "new/p.tsv", *FP32]
CUT = ["ticket", "cut", "scores", "--out", "new/t.safetensors"]
HEADER = "premise\thypothesis\tlabel\n"
ONE_CLASS = HEADER + "the cat\ta mat\tentailment\nthe mat\ta cat\tneutral\n"

BAD: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "text file missing": (lambda place: (place / "text.txt").unlink(), SCORES, r"text\.txt does not exist"),
    "train file missing": (lambda place: (place / "train.tsv").unlink(), SP, r"train\.tsv does not exist"),
    "dev file missing": (nothing, [*SP, "--dev", "dev.tsv"], r"dev\.tsv does not exist"),
    "data file missing": (lambda place: (place / "other.tsv").unlink(), EVALUATE, r"other\.tsv does not exist"),
    "input missing": (lambda place: (place / "bare.tsv").unlink(), PREDICT, r"bare\.tsv does not exist"),
    "ticket missing": (lambda place: (place / "t30.safetensors").unlink(), LTP, r"t30\.safetensors does not exist"),
    "scores missing": (lambda place: shutil.rmtree(place / "scores"), [*CUT, "--ratio", "0.2"], "scores.* not exist"),
    "adapter missing": (lambda place: shutil.rmtree(place / "a"), PREDICT, "a does not exist; expected an adapter"),
    "adapter to merge missing": (lambda place: shutil.rmtree(place / "a"), ["merge", "a", "new"], "a does not exist"),
    "backbone missing": (lambda place: shutil.rmtree(place / "model"), SP, "no backbone at 'model'"),
    "backbone of an adapter missing": (nothing, [*PREDICT, "--backbone", "absent"], "no backbone at 'absent'"),
    "task file missing": (nothing, TASK, r"task\.yaml does not exist"),
    "task unknown": (nothing, [*SP[:3], "xlni", *SP[4:]], r"unknown task 'xlni'.*xnli"),
    "column missing": (write("train.tsv", "premise\tlabel\n"), SP, r"train\.tsv, line 1: no column 'hypothesis'"),
    "column of texts missing": (write("bare.tsv", "premise\na cat\n"), PREDICT, "no column 'hypothesis'"),
    "column of labels missing": (nothing, [*EVALUATE, "--data", "sw=bare.tsv"], r"bare\.tsv, line 1: no column 'la"),
    "label unknown": (
        append("train.tsv", "a\tb\tentailed\n"), SP,
        r"train\.tsv, line 8: unknown label 'entailed'; did you mean 'entailment'\? .*neutral, contradiction",
    ),
    "label a number": (append("other.tsv", "0\ta\tb\n"), EVALUATE, r"other\.tsv, line 5: the label 0 is a number"),
    "class without example": (write("train.tsv", ONE_CLASS), SP, r"no example of contradiction \(entailment 1, neu"),
    "text empty": (append("train.tsv", "a cat\t \tneutral\n"), SP, r"train\.tsv, line 8: hypothesis is empty"),
    "table empty": (write("train.tsv", ""), SP, r"train\.tsv is empty"),
    "table of a header alone": (write("other.tsv", HEADER), EVALUATE, r"other\.tsv has no rows"),
    "table to predict empty": (write("bare.tsv", "premise\thypothesis\n"), PREDICT, r"bare\.tsv has no rows"),
    "stage 1 text empty": (write("text.txt", "\n \n"), SCORES, r"no text in text\.txt"),
    "stage 1 text of one line": (write("text.txt", "the cat sat on a mat\n"), SCORES, "needs at least 2"),
    "bytes in a table": (append("train.tsv", b"\xff\tb\tneutral\n"), SP, r"train\.tsv, line 8: byte 0xff is not UTF-8"),
    "bytes in a text": (append("text.txt", b"a cat\na\xe9\n"), SCORES, r"text\.txt, line 29: byte 0xe9 is not UTF-8"),
    "ticket of another backbone": (other_model, LTP, r"ticket is for the backbone [0-9a-f]{12}, this .* [0-9a-f]{12};"),
    "adapter of another backbone": (
        other_model, [*PREDICT, "--backbone", "model"], r"trained on .*\([0-9a-f]{12}\), not on .* \([0-9a-f]{12}\)",
    ),
    "adapter of another backbone to merge": (other_model, ["merge", "a", "new", "--backbone", "model"], "trained on"),
    "ticket truncated": (truncate("t30.safetensors"), LTP, r"t30\.safetensors is damaged: it is truncated"),
    "ticket altered": (flip("t30.safetensors"), LTP, r"t30\.safetensors is damaged: .*checksum"),
    "ticket to inspect altered": (
        flip("t30.safetensors"), ["ticket", "inspect", "t30.safetensors", "--plot", "new/p.png"], "damaged",
    ),
    "scores truncated": (truncate("scores/scores.safetensors"), [*CUT, "--ratio", "0.2"], "damaged: it is truncated"),
    "scores altered": (flip("scores/scores.safetensors"), [*CUT, "--ratio", "0.2"], "damaged: .*checksum"),
    "adapter truncated": (truncate("a/adapter.safetensors"), PREDICT, "damaged: it is truncated"),
    "adapter altered": (flip("a/adapter.safetensors"), EVALUATE, "damaged: .*checksum"),
    "adapter's record truncated": (truncate("a/adapter.json"), PREDICT, r"adapter\.json is not valid JSON"),
    "adapter's record altered": (
        lambda place: spoil(place / "a/adapter.json", lambda data: data.replace(b'"seed": 0', b'"seed": 1')),
        PREDICT, r"adapter\.json was altered",
    ),
    "adapter's task altered": (
        lambda place: spoil(place / "a/adapter.json", lambda data: data.replace(b'"labels"', b'"lables"')),
        PREDICT, r"adapter\.json.*labels",
    ),
    "backbone truncated": (truncate("model/model.safetensors"), SP, "model cannot be loaded"),
    "a file of another kind": (nothing, [*LTP[:-6], "--ticket", "scores/scores.safetensors"], "is a scores file"),
    "ratio above 1": (nothing, [*CUT, "--ratio", "1.01"], r"the ratio 1\.01 is not a share; give a number from 0 to 1"),
    "ratio below 0": (nothing, [*CUT, "--ratio", "-0.1"], r"the ratio -0\.1 is not a share"),
    "ratio not a number": (nothing, [*CUT, "--ratio", "nan"], "the ratio nan is not a share"),
    "scope unknown": (nothing, [*CUT, "--ratio", "0.2", "--scope", "locale"], "unknown scope 'locale'"),
    "segment beyond the layers": (nothing, [*CUT, "--ratio", "0.2", "--layers", "5-8"], "there is no layer 5"),
    "segment backwards": (nothing, [*CUT, "--ratio", "0.2", "--layers", "3-1"], "'3-1' names no layer"),
    "segment unknown": (nothing, [*CUT, "--ratio", "0.2", "--layers", "upper"], "'upper'"),
    "words with equal pieces": (
        task_with("{entailment: right, neutral: maybe, contradiction: right}"), TASK,
        "'right' of label 'entailment' and 'right' of label 'contradiction' have equal pieces",
    ),
    "word unknown": (
        task_with("{entailment: right, neutral: 猫, contradiction: wrong}"), TASK, "does not know the word '猫'",
    ),
    "no masked-LM head": (headless, SP, r"no masked-LM head .*lm_head\.bias"),
    "loss not finite": (nothing, [*LTP[:-4], "--lr", "1e30"], r"loss became nan at step 2; .*Lower --lr"),
    "loss not finite in stage 1": (nothing, [*SCORES, "--lr", "1e30"], r"loss became \w+ at step \d; .*Lower --lr"),
    "weights not finite": (infinite, SP, "model has weights that are not finite"),
    "ltp without a ticket": (nothing, BASE, r"give one as --ticket, or use method 'prompt-only'"),
    "a ticket for sp": (nothing, [*SP, "--ticket", "t30.safetensors"], "takes no ticket"),
    "setting out of range": (nothing, [*SP, "--lr", "-1"], "lr cannot be -1"),
    "strategy unknown": (nothing, [*SCORES, "--strategy", "coupled"], "strategy cannot be 'coupled'"),
    "device unknown": (nothing, [*SP, "--device", "gpu"], "device 'gpu' is not available"),
    "dtype unknown": (nothing, [*SP, "--dtype", "fp8"], "unknown dtype 'fp8'"),
    "one language twice": (nothing, [*EVALUATE, "--data", "en=train.tsv"], "names the language 'en' twice"),
    "adapter overwritten": (nothing, [*SP[:-6], "--out", "a"], "already holds an adapter"),
    "scores overwritten": (nothing, [*SCORES, "--out", "scores"], "already holds finished scores"),
    "plot of another form": (
        nothing, ["ticket", "inspect", "t30.safetensors", "--plot", "p.gif"], r"cannot draw a chart as 'p\.gif'; give",
    ),
    "merged overwritten": (nothing, ["merge", "a", "merged"], "merged already exists"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_clear_line_and_writes_nothing(name: str, run: Run, place: Path) -> None:
    change, command, message = BAD[name]
    change(place)
    before = files(place)
    assert_one_line(run(*command), message)
    assert files(place) == before


def test_imbalance_is_a_note_and_no_error(run: Run, place: Path) -> None:
    append("train.tsv", "the cat\tgood\tneutral\n")(place)
    result = run(*SP)
    assert result.status == 0
    (note,) = [line for line in result.err.splitlines() if line.startswith("note: ")]
    assert "entailment 2, neutral 3, contradiction 2" in note


def test_a_word_of_several_pieces_is_a_note(run: Run, place: Path) -> None:
    task_with("{entailment: right, neutral: the cat, contradiction: wrong}")(place)
    result = run(*TASK)
    assert result.status == 0
    assert "note: the word 'the cat' of label 'neutral' is 2 pieces" in result.err


WRITING = {
    "scores": SCORES,
    "cut": [*CUT, "--ratio", "0.2"],
    "train": LTP,
    "evaluate": EVALUATE,
    "predict": PREDICT,
    "merge": ["merge", "a", "new"],
    "plot": ["ticket", "inspect", "t30.safetensors", "--plot", "new/t.png"],
}


@pytest.mark.parametrize("failing", ["flush", "rename"])
@pytest.mark.parametrize("name", WRITING)
def test_a_full_disk_gets_one_clear_line_and_leaves_nothing(
    name: str, failing: str, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = files(place)
    monkeypatch.setattr(*((os, "fsync", full) if failing == "flush" else (Path, "replace", full)))
    result = run(*WRITING[name])
    result.err = re.sub(r"^(stage 1|training|evaluating|predicting) .*left\n", "", result.err, flags=re.MULTILINE)
    if name in ("evaluate", "plot"):  # what was found is shown before it is written
        assert "accuracy" in result.out or "entries" in result.out
        result.out = ""
    assert_one_line(result, r"cannot write .*: no space left on the disk; free some space or choose another place")
    assert files(place) == before


def test_a_disk_that_fills_between_an_adapters_files_leaves_neither(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "adapter.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    before = files(place)
    monkeypatch.setattr(Path, "replace", full)
    assert run(*LTP).status == 1
    assert files(place) == before


@pytest.mark.parametrize("name", ["scores", "train", "merge", "predict"])
def test_a_place_that_cannot_be_written_gets_one_clear_line(name: str, run: Run, place: Path) -> None:
    (place / "new").write_text("a file where a folder is wanted")
    command = [f"new/{part}" if part == "new" else part for part in WRITING[name]]
    result = run(*command)
    result.err = re.sub(r"^(stage 1|training|predicting) .*left\n", "", result.err, flags=re.MULTILINE)
    assert_one_line(result, "new")


@pytest.mark.parametrize("where", [0, 2, -1])
def test_debug_shows_the_traceback_wherever_it_stands(where: int, run: Run, place: Path) -> None:
    command = ["ticket", "inspect", "absent.safetensors"]
    command.insert(where if where >= 0 else len(command), "--debug")
    with pytest.raises(Exception, match=r"absent\.safetensors does not exist"):
        run(*command)


def test_a_fault_of_the_program_is_one_line_too(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("ltprompt.tickets.ticket.Ticket.load", fault)
    result = run("ticket", "inspect", "t30.safetensors")
    assert result == Result(1, "", "error: unexpected ZeroDivisionError: two lines; --debug shows where\n")


def test_the_installed_program_says_the_same(place: Path) -> None:
    command = [sys.executable, "-m", "ltprompt", "ticket", "inspect"]
    missing = subprocess.run([*command, "absent.safetensors"], capture_output=True, text=True)
    assert (missing.returncode, missing.stdout, missing.stderr.count("\n")) == (1, "", 1)
    assert missing.stderr.startswith("error: absent.safetensors does not exist")
    found = subprocess.run([*command, "t30.safetensors", "--json"], capture_output=True, text=True)
    assert found.returncode == 0
    assert json.loads(found.stdout)["fingerprint"] == toy_ticket(Backbone.from_pretrained("model")).fingerprint


@pytest.fixture
def default_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_scheduler_s_signal_interrupts_unless_whoever_started_the_program_has_it_ignored(
    run: Run, default_sigterm: None
) -> None:
    assert run("--help").status == 0
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert run("--help").status == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_the_program_runs_in_a_thread_that_may_set_no_signals(run: Run, default_sigterm: None) -> None:
    found: list[Result] = []
    thread = threading.Thread(target=lambda: found.append(run("--help")))
    thread.start()
    thread.join()
    assert [result.status for result in found] == [0]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# JSON, places, tables and revisions.


def test_json_goes_to_stdout_or_to_a_file_alike(run: Run, place: Path) -> None:
    data = ["--data", "en=train.tsv", *FP32]
    for command, file in (
        (["evaluate", "a", *data], "e.json"),
        (["predict", "a", "bare.tsv", *FP32], "p.json"),
        (["ticket", "inspect", "t30.safetensors"], "i.json"),
        (["ticket", "compare", "t30.safetensors", "t100.safetensors"], "c.json"),
        (["task", "check", "xnli"], "t.json"),
    ):
        plain, written, shown = run(*command), run(*command, "--json", file), run(*command, "--json", "-")
        assert plain.status == written.status == shown.status == 0, (plain.err, written.err, shown.err)
        assert written.out == plain.out
        assert shown.out == Path(file).read_text(encoding="utf-8")
        json.loads(shown.out)
    assert "note: computed in fp32, as trained\n" in run("evaluate", "a", *data, "--json", "-").err


def test_predictions_as_json_are_those_of_the_table(run: Run, place: Path) -> None:
    found = run("predict", "a", "bare.tsv", "--out", "p.tsv", "--json", "-", *FP32)
    rows = [line.split("\t") for line in Path("p.tsv").read_text().splitlines()[1:]]
    data = json.loads(found.out)
    assert data["labels"] == list(LABELS)
    assert [example["predicted"] for example in data["examples"]] == [row[1] for row in rows]
    for example, row in zip(data["examples"], rows, strict=True):
        assert [f"{example['probabilities'][label]:.6f}" for label in LABELS] == row[2:]
    assert run("predict", "a", "bare.tsv", "--out", "-", *FP32).out == Path("p.tsv").read_text()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (["train.tsv"], ["en"]),
        (["sw=other.tsv", "train.tsv"], ["sw", "en"]),
        (["train.tsv", "other.tsv"], ["train", "other"]),
        (["./x=y.tsv"], ["en"]),
    ],
)
def test_a_table_without_a_language_gets_a_name(data: list[str], named: list[str], run: Run, place: Path) -> None:
    shutil.copy("train.tsv", "x=y.tsv")
    result = run("evaluate", "a", "--data", *data, "--json", "m.json", *FP32)
    assert result.status == 0, result.err
    assert [line.split()[0] for line in result.out.splitlines()[1 : len(named) + 1]] == named
    assert json.loads(Path("m.json").read_text())["languages"].keys() == set(named)


@pytest.mark.parametrize("data", [["train.tsv", "en=other.tsv"], ["train.tsv", "./train.tsv"]])
def test_two_tables_of_one_name_are_refused(data: list[str], run: Run, place: Path) -> None:
    assert_one_line(run("evaluate", "a", "--data", *data, *FP32), "--data names the language '(en|train)' twice; give")


def test_merge_takes_its_place_as_out_too(run: Run, place: Path) -> None:
    assert run("merge", "a", "--out", "new").out == "merged model in new; README.md there says how to use it\n"
    assert files(place / "new") == files(place / "merged")


@pytest.mark.parametrize("flags", [["--revision", "r"], ["--backbone", "other", "--revision", "r"]])
@pytest.mark.parametrize("command", ["evaluate", "predict", "merge", "cut"])
def test_the_backbone_s_revision_can_be_named(
    command: str, flags: list[str], run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []
    real = Backbone.from_pretrained

    def watched(name: str, *, revision: str | None = None, device: Any = "cpu") -> Backbone:
        asked.append((Path(name).name, revision))
        return real("model", device=device)

    monkeypatch.setattr(Backbone, "from_pretrained", watched)
    words = [*WRITING[command], *flags, *(["--select", "magnitude"] if command == "cut" else [])]
    assert run(*words).status == 0
    assert asked == [("other" if "--backbone" in flags else "model", "r")]


PLACES = {
    "scores": ["bad/s" if word == "new" else word for word in SCORES],
    "train": ["bad/a" if word == "new" else word for word in SP],
    "cut": ["ticket", "cut", "scores", "--ratio", "0.2", "--out", "bad/t"],
    "combine": ["ticket", "combine", "--union", "t30.safetensors", "t100.safetensors", "--out", "bad/t"],
    "inspect": ["ticket", "inspect", "t30.safetensors", "--json", "bad/i.json"],
    "plot": ["ticket", "inspect", "t30.safetensors", "--plot", "bad/p.png"],
    "compare": ["ticket", "compare", "t30.safetensors", "t100.safetensors", "--json", "bad/c.json"],
    "check": ["task", "check", "xnli", "--json", "bad/t.json"],
    "evaluate": ["evaluate", "a", "--data", "train.tsv", "--json", "bad/m.json"],
    "predictions": ["evaluate", "a", "--data", "train.tsv", "--predictions", "bad/p"],
    "predict": ["predict", "a", "bare.tsv", "--out", "bad/p.tsv"],
    "predict json": ["predict", "a", "bare.tsv", "--json", "bad/p.json"],
    "merge": ["merge", "a", "--out", "bad/m"],
    "grid": ["grid", "grid.yaml", "--out", "bad/g"],
    "demo": ["demo", "--out", "bad/d"],
}


@pytest.mark.parametrize("name", PLACES)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    name: str, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for work in ("ltprompt.tickets.ticket.Ticket.load", "ltprompt.tickets.scores.Scores.load"):
        monkeypatch.setattr(work, lambda *_, **__: pytest.fail("work was begun"))
    monkeypatch.setattr(Backbone, "from_pretrained", lambda *_, **__: pytest.fail("work was begun"))
    (place / "bad").write_text("a file where a folder is wanted")
    (place / "grid.yaml").write_text("name: toy\n")
    before = files(place)
    command = PLACES[name]
    (wanted,) = [word for word in command if word.startswith("bad/")]
    flag = command[command.index(wanted) - 1]
    assert_one_line(
        run(*command), f"^error: {wanted} cannot be written: bad is not a folder that lets you; choose another {flag}\n"
    )
    assert files(place) == before


@pytest.mark.parametrize("target", ["a", "/dev/null"])
def test_what_is_no_file_is_not_replaced_by_one(target: str, run: Run, place: Path) -> None:
    result = run("evaluate", "a", "--data", "train.tsv", "--json", target, *FP32)
    assert_one_line(result, f"{target} is no file but a folder or a device; choose another --json")


# What stands before the commands.


def test_the_version_is_one_line(run: Run) -> None:
    assert run("--version") == Result(0, f"ltprompt {ltprompt.__version__}\n", "")


COMPLETED = {
    "ltprompt tic": ["ticket"],
    "ltprompt task ": ["check", "new", "split"],
    "ltprompt merge --o": ["--out"],
    "ltprompt scores --hel": ["--held-out", "--help"],
    "ltprompt train --keep": ["--keep-prompt-encoder"],
}


@pytest.mark.parametrize("line", COMPLETED)
def test_a_shell_completes_commands_and_flags(line: str) -> None:
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_LTPROMPT_COMPLETE": "complete_bash"}
    code = (
        "import sys; from ltprompt.cli.main import main; code = main(); assert 'torch' not in sys.modules; exit(code)"
    )
    found = subprocess.run([sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.split() == COMPLETED[line]


def test_the_script_of_completion_is_that_of_the_shell() -> None:
    shell = shutil.which("bash")
    assert shell
    line = f"{sys.executable} -m ltprompt --show-completion; true"  # a last command would take the shell's place
    found = subprocess.run([shell, "-c", line], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    assert "_LTPROMPT_COMPLETE=complete_bash" in found.stdout
    assert subprocess.run([shell, "-n"], input=found.stdout, text=True).returncode == 0


@pytest.mark.parametrize(("words", "light"), [([], ["pydantic", "torch"]), (["train"], ["torch"])])
def test_help_waits_for_no_heavy_import(words: list[str], light: list[str]) -> None:
    code = (
        "import sys; from ltprompt.cli.main import main\n"
        f"sys.argv = {['ltprompt', *words, '--help']!r}; main()\n"
        f"print('heavy:', sorted({set(light)!r} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.endswith("heavy: []\n")
