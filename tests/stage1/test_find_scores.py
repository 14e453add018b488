"""`find_scores` from lines of text to files: what it records, resumes, refuses and repeats."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.toy_tokenizers import WORDS
from helpers.toys import KINDS, toy_backbone

from ltprompt.backbone.model import Backbone
from ltprompt.device import Compute
from ltprompt.errors import FileFormatError, InputError, TrainingError
from ltprompt.settings import ScoresSettings
from ltprompt.stage1.find_scores import find_scores, movement_shares
from ltprompt.stage1.training import Movement, Step, Watcher
from ltprompt.tickets.header import STRATEGIES
from ltprompt.tickets.scores import Scores

CPU = Compute(torch.device("cpu"))
SETTINGS: dict[str, Any] = {
    "steps": 9,
    "batch_size": 6,
    "lr": 2e-3,
    "max_length": 40,
    "held_out": 0.25,
    "evaluate_every": 3,
    "seed": 3,
}


def texts(count: int = 24) -> list[str]:
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS[:14], size=size)) for size in generator.integers(2, 30, size=count)]


class Stop(Exception):
    """What a watcher raises here in the middle of a run."""


class Breaking(Watcher):
    """Raises at one step; remembers where the run started."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.first = -1

    def start(self, first: int, steps: int) -> None:
        self.first = first

    def step(self, step: Step) -> None:
        if step.number == self.number:
            raise Stop


def find(
    backbone: Backbone, out: Path | None, *, resume: bool = False, watcher: Watcher | None = None, **changes: Any
) -> Scores:
    settings = ScoresSettings.of(**SETTINGS | changes)
    return find_scores(backbone, texts(), out, settings=settings, compute=CPU, resume=resume, watcher=watcher)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("keep", ["final", "best"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_an_unbroken_one(kind: str, strategy: str, keep: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": strategy, "keep": keep, "lr": 0.05}
    find(toy_backbone(kind, dropout=0.2), tmp_path / "whole", **options)
    out = tmp_path / "broken"
    for stop, first in ((5, 0), (8, 3)):  # broken twice, each time after a checkpoint
        watcher = Breaking(stop)
        with pytest.raises(Stop):
            find(toy_backbone(kind, dropout=0.2), out, resume=True, watcher=watcher, **options)
        assert watcher.first == first
        assert [path.name for path in out.iterdir()] == ["checkpoint.safetensors"]
        torch.manual_seed(stop)  # another state of the generator than an unbroken run has here
    watcher = Breaking()
    find(toy_backbone(kind, dropout=0.2), out, resume=True, watcher=watcher, **options)
    assert watcher.first == 6
    assert contents(out) == contents(tmp_path / "whole")
    record = json.loads((out / "scores.json").read_text())
    assert [step for step, _ in record["training_loss"]] == list(range(1, 10))
    assert [step for step, _ in record["held_out_loss"]] == [3, 6, 9]


def test_the_best_before_a_break_is_kept_after_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {"keep": "best", "lr": 0.02, "steps": 30, "evaluate_every": 5}
    whole = find(toy_backbone("bert"), tmp_path / "whole", **options)
    record = json.loads((tmp_path / "whole" / "scores.json").read_text())
    assert record["kept_step"] < 20, "the best must lie before the break for this test to tell"
    with pytest.raises(Stop):
        find(toy_backbone("bert"), tmp_path / "broken", watcher=Breaking(22), **options)
    resumed = find(toy_backbone("bert"), tmp_path / "broken", resume=True, **options)
    assert resumed.sha256 == whole.sha256
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder in which a run broke off after a checkpoint."""
    with pytest.raises(Stop):
        find(toy_backbone("bert"), tmp_path / "out", watcher=Breaking(5))
    return tmp_path / "out"


@pytest.mark.parametrize("change", [{"seed": 4}, {"steps": 10}, {"lr": 1e-3}, {"strategy": "tied"}, {"keep": "best"}])
def test_a_checkpoint_of_other_settings_is_refused(broken: Path, change: dict[str, Any]) -> None:
    before = contents(broken)
    with pytest.raises(InputError, match=r"checkpoint\.safetensors was left by a stage 1 with other settings"):
        find(toy_backbone("bert"), broken, resume=True, **change)
    assert contents(broken) == before


def test_a_checkpoint_of_another_text_backbone_or_dtype_is_refused(broken: Path) -> None:
    settings = ScoresSettings.of(**SETTINGS)
    bf16 = Compute(CPU.device, torch.bfloat16)
    for backbone, lines, compute in (
        (toy_backbone("bert"), [*texts(), "the cat"], CPU),
        (toy_backbone("bert", seed=1), texts(), CPU),
        (toy_backbone("bert"), texts(), bf16),
    ):
        with pytest.raises(InputError, match="other settings, dtype, text or backbone"):
            find_scores(backbone, lines, broken, settings=settings, compute=compute, resume=True)


@pytest.mark.parametrize("place", [-1, -500, 200])
def test_an_altered_checkpoint_is_refused(broken: Path, place: int) -> None:
    path = broken / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    backbone = toy_backbone("bert")
    before = weights(backbone)
    with pytest.raises(FileFormatError, match=r"checkpoint\.safetensors"):
        find(backbone, broken, resume=True)
    assert weights(backbone) == before


def test_a_truncated_checkpoint_is_refused(broken: Path) -> None:
    path = broken / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(FileFormatError, match="damaged"):
        find(toy_backbone("bert"), broken, resume=True)


def test_without_resume_an_unfinished_run_is_kept(broken: Path) -> None:
    before = contents(broken)
    with pytest.raises(InputError, match="give `resume` to go on, or delete"):
        find(toy_backbone("bert"), broken)
    assert contents(broken) == before


def weights(backbone: Backbone) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in backbone.model.state_dict().items()}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_record(kind: str, strategy: str, tmp_path: Path) -> None:
    backbone = toy_backbone(kind)
    before = weights(backbone)
    found = find(backbone, tmp_path, strategy=strategy)
    assert weights(backbone) == before
    assert set(contents(tmp_path)) == {"scores.safetensors", "scores.json"}
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["settings"] == {**ScoresSettings(**SETTINGS).model_dump(), "strategy": strategy, "epochs": None}
    assert record["dtype"] == "fp32"
    assert record["backbone"] == f"toy-{kind}"
    assert record["text_sha256"] == hashlib.sha256("".join(f"{line}\n" for line in texts()).encode()).hexdigest()
    lengths = [len(ids) for ids in backbone.tokenizer(texts(), truncation=True, max_length=40)["input_ids"]]
    assert record["text"] == {"lines": 24, "lines_dropped": 0, "lines_held_out": 6, "tokens": sum(lengths)}
    assert record["tokens_trained"] > 0
    assert record["kept_step"] == 9
    losses = [loss for _, loss in record["training_loss"] + record["held_out_loss"]]
    assert len(losses) == 9 + 3
    assert all(0 < loss < 3 * math.log(len(backbone.tokenizer)) for loss in losses)
    assert found.fingerprint == backbone.fingerprint
    assert_shares(record, found, backbone)


def assert_shares(record: dict[str, Any], scores: Scores, backbone: Backbone) -> None:
    by_layer, by_kind = {}, {}
    for parameter in scores.parameters:
        moved = scores.tensors[parameter.name].double().sum().item()
        by_layer[str(parameter.layer)] = by_layer.get(str(parameter.layer), 0) + moved
        by_kind[parameter.kind] = by_kind.get(parameter.kind, 0) + moved
    for found, expected in ((record["movement_by_layer"], by_layer), (record["movement_by_kind"], by_kind)):
        assert sum(found.values()) == pytest.approx(1)
        assert found == pytest.approx({key: value / sum(expected.values()) for key, value in expected.items()})
    embedded = scores.strategy != "frozen-embeddings"
    assert set(record["movement_by_layer"]) == set("0123" if embedded else "123")
    assert ("word_embeddings" in record["movement_by_kind"]) == embedded
    assert "attention.self.query" in record["movement_by_kind"]
    words = scores.tensors.get(backbone.word_name)
    assert record["word_rows_moved"] == (0 if words is None else sum(bool(row.any()) for row in words))
    if scores.strategy == "decoupled":
        assert 14 <= record["word_rows_moved"] < len(backbone.tokenizer)
    if scores.strategy == "tied":  # the output side's softmax reaches every row
        assert record["word_rows_moved"] == len(backbone.tokenizer)


def test_shares_of_no_movement_are_zero() -> None:
    backbone = toy_backbone("bert")
    still = {parameter.name: torch.zeros(parameter.shape) for parameter in backbone.eligible}
    found = movement_shares(Movement(backbone.eligible, still, history=None), backbone.word_name)  # type: ignore[arg-type]
    assert set(found["movement_by_layer"].values()) == {0.0}
    assert found["word_rows_moved"] == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_scores_cut_at_20_percent_equal_stage_one_run_again_and_cut(strategy: str, tmp_path: Path) -> None:
    find(toy_backbone("xlm-roberta", dropout=0.1), tmp_path / "a", strategy=strategy)
    saved = Scores.load(tmp_path / "a").select(0.2)
    again = find(toy_backbone("xlm-roberta", dropout=0.1), None, strategy=strategy).select(0.2)
    saved.save(tmp_path / "saved.safetensors")
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "saved.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    assert saved.size == math.floor(0.2 * sum(parameter.numel for parameter in saved.parameters) + 0.5)
    for parameter in saved.parameters:
        assert torch.equal(saved.mask(parameter.name), again.mask(parameter.name))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    backbone = toy_backbone("bert", dropout=0.1)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(list(tmp_path.iterdir())))
        find(backbone, tmp_path / name, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_epochs_are_steps_over_the_lines_that_are_trained(tmp_path: Path) -> None:
    find_scores(
        toy_backbone("bert"), texts(), tmp_path, compute=CPU,
        settings=ScoresSettings(epochs=2, batch_size=5, max_length=40, held_out=0.25),
    )  # fmt: skip
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["settings"]["steps"] == len(record["training_loss"]) == 2 * math.ceil(18 / 5)
    lengths = [len(ids) for ids in toy_backbone("bert").tokenizer(texts())["input_ids"]]
    assert record["tokens_trained"] < 2 * sum(lengths)
    assert [step for step, _ in record["held_out_loss"]] == [8]  # at the end, however short the run


def test_nothing_is_written_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find(toy_backbone("bert"), None).sha256 == find(toy_backbone("bert"), tmp_path / "out").sha256
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_loss_that_is_not_finite_leaves_neither_scores_nor_changed_weights(tmp_path: Path) -> None:
    backbone = toy_backbone("bert")
    before = weights(backbone)
    for steps in (1, 9):
        with pytest.raises(TrainingError, match=r"at step \d; nothing was written\. Lower `lr` .*`dtype` fp32"):
            find(backbone, tmp_path / "out", lr=1e38, steps=steps)
        assert not (tmp_path / "out").exists()
        assert weights(backbone) == before


def test_bf16_trains_fp32_masters(tmp_path: Path) -> None:
    settings = ScoresSettings.of(**SETTINGS)
    backbone = toy_backbone("bert")
    before = weights(backbone)
    bf16 = Compute(CPU.device, torch.bfloat16)
    found = find_scores(backbone, texts(), tmp_path, settings=settings, compute=bf16)
    assert weights(backbone) == before
    assert json.loads((tmp_path / "scores.json").read_text())["dtype"] == "bf16"
    assert {tensor.dtype for tensor in found.tensors.values()} == {torch.float32}
    exact = find(toy_backbone("bert"), None)
    both = [torch.cat([t.flatten() for t in scores.tensors.values()]) for scores in (found, exact)]
    assert 0.95 < torch.corrcoef(torch.stack(both))[0, 1] < 1


@pytest.mark.parametrize(("length", "message"), [(7, "`max_length` 7 is outside 8 to 64"), (65, "outside 8 to 64")])
def test_a_length_that_the_backbone_cannot_read_is_refused(length: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        find(toy_backbone("xlm-roberta"), tmp_path / "out", max_length=length)
    assert not (tmp_path / "out").exists()


def test_unusable_text_is_refused(tmp_path: Path) -> None:
    settings = ScoresSettings.of(**SETTINGS)
    for lines, message in (([], "none of 0 lines gives a token"), (["the cat"], "the text has 1 usable line")):
        with pytest.raises(InputError, match=message):
            find_scores(toy_backbone("bert"), lines, tmp_path / "out", settings=settings, compute=CPU)
    assert not (tmp_path / "out").exists()


def test_progress_is_shown_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    backbone, settings = toy_backbone("xlm-roberta"), ScoresSettings(**SETTINGS)
    silent = find_scores(backbone, texts(), settings=settings)
    assert capsys.readouterr() == ("", "")
    shown = find_scores(backbone, texts(), settings=settings, progress=True)
    assert "stage 1 9/9, " in capsys.readouterr().err
    assert shown.sha256 == silent.sha256
    find_scores(backbone, texts(), settings=settings, progress=True, watcher=Breaking())
    assert capsys.readouterr() == ("", "")
