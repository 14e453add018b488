from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.threads import at_once
from helpers.toy_classifiers import (
    CPU,
    OTHER,
    TRAIN,
    TRAINED,
    assert_same_bits,
    bits,
    theta,
    toy_adapter,
    toy_classifier,
    toy_ticket,
    write_table,
)
from helpers.toys import KINDS, toy_backbone, toy_folder, toy_model
from safetensors import safe_open
from safetensors.torch import load_file

from ltprompt.adapter import Adapter, revert
from ltprompt.backbone.changes import Change
from ltprompt.backbone.model import Backbone
from ltprompt.classifier import PromptClassifier
from ltprompt.errors import FileFormatError, InputError, MismatchError
from ltprompt.packing.sequences import Sequences

FILES = ("adapter.json", "adapter.safetensors")


def state(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}


def applied_by_loop(adapter: Adapter, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """θ with an adapter's entries written in one by one, each under its own name only."""
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    for change in adapter.changes:
        flat = weights[change.name].view(-1)
        for place, value in zip(change.index.tolist(), change.values, strict=True):
            flat[place] = value
    return weights


def example(backbone: Backbone) -> tuple[torch.Tensor, torch.Tensor]:
    encoded = backbone.tokenizer([row["premise"] for row in TRAIN], padding=True, return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"]


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_adapter_predicts_the_very_same(kind: str, trained: str, tmp_path: Path) -> None:
    folder = toy_folder(kind, tmp_path / "model")
    classifier = toy_classifier(Backbone.from_pretrained(folder), trained)
    before = classifier.predict_proba(OTHER)
    classifier.save_pretrained(tmp_path / "adapter")
    loaded = PromptClassifier.from_pretrained(tmp_path / "adapter", compute=CPU)
    assert loaded.backbone is not classifier.backbone
    assert np.array_equal(loaded.predict_proba(OTHER), before)
    assert loaded.resolved.settings == classifier.resolved.settings
    untrained = toy_classifier(Backbone.from_pretrained(folder), trained, lr=1e-12)
    assert np.abs(untrained.predict_proba(OTHER) - before).max() > 1e-3


@pytest.mark.parametrize("trained", ["ltp-decoupled", "ltp-tied", "sp"])
@pytest.mark.parametrize("kind", KINDS)
def test_applying_and_reverting_a_hundred_times_is_bitwise(kind: str, trained: str) -> None:
    backbone = toy_backbone(kind)
    adapter = toy_adapter(backbone, trained)
    assert_same_bits(state(backbone), theta(kind))
    adapter.apply(backbone)
    once = state(backbone)
    assert any(not torch.equal(bits(once[name]), bits(tensor)) for name, tensor in theta(kind).items())
    for _ in range(100):
        revert(backbone)
        adapter.apply(backbone)
    assert_same_bits(state(backbone), once)
    revert(backbone)
    revert(backbone)  # nothing is on it any more
    assert_same_bits(state(backbone), theta(kind))
    assert backbone.overlay.on is None
    assert backbone.overlay.kept_output is None


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_take_turns_on_one_backbone_bit_for_bit(kind: str) -> None:
    backbone = toy_backbone(kind)
    classifiers = {name: toy_classifier(backbone, name, seed=seed) for seed, name in enumerate(TRAINED)}
    alone = {name: toy_classifier(toy_backbone(kind), name, seed=seed) for seed, name in enumerate(TRAINED)}
    expected = {name: classifier.predict_proba(OTHER) for name, classifier in alone.items()}
    for name in [*TRAINED, *reversed(TRAINED), "ltp-tied", "ltp-decoupled", "prompt-only"]:
        assert np.array_equal(classifiers[name].predict_proba(OTHER), expected[name]), name
        assert backbone.overlay.on is classifiers[name].adapter
    revert(backbone)
    assert_same_bits(state(backbone), theta(kind))


def test_training_takes_an_applied_adapter_off_first() -> None:
    backbone = toy_backbone("bert")
    classifier = toy_classifier(backbone, "sp")
    classifier.predict(OTHER)
    assert backbone.overlay.on is classifier.adapter
    trained_next = toy_adapter(backbone, "ltp-decoupled")
    expected = toy_adapter(toy_backbone("bert"), "ltp-decoupled")
    assert torch.equal(trained_next.folded, expected.folded)
    for found, change in zip(trained_next.changes, expected.changes, strict=True):
        assert torch.equal(found.index, change.index)
        assert torch.equal(bits(found.values), bits(change.values))


def test_four_threads_may_predict_first_on_one_classifier() -> None:
    backbone = toy_backbone("bert")
    classifier = toy_classifier(backbone, "sp")
    expected = toy_classifier(toy_backbone("bert"), "sp").predict_proba(OTHER)
    for _ in range(20):
        for found in at_once([lambda: classifier.predict_proba(OTHER)] * 4):
            assert np.array_equal(found, expected)
        revert(backbone)
        assert_same_bits(state(backbone), theta("bert"))


def test_two_adapters_on_one_backbone_predict_from_several_threads() -> None:
    backbone = toy_backbone("bert")
    names = ["sp", "ltp-decoupled"]
    classifiers = [toy_classifier(backbone, name, seed=seed) for seed, name in enumerate(names)]
    expected = [classifier.predict_proba(OTHER) for classifier in classifiers]
    calls = [lambda number=number: classifiers[number % 2].predict_proba(OTHER) for number in range(60)]
    for number, found in enumerate(at_once(calls, threads=4)):
        assert np.array_equal(found, expected[number % 2])
    revert(backbone)
    assert_same_bits(state(backbone), theta("bert"))


def test_all_that_can_be_done_with_a_backbone_may_be_done_from_eight_threads() -> None:
    backbone, names = toy_backbone("bert"), ["sp", "ltp-decoupled", "ltp-tied"]
    classifiers = [toy_classifier(backbone, name, seed=seed) for seed, name in enumerate(names)]
    answers = [classifier.predict_proba(OTHER) for classifier in classifiers]
    measures = [classifier.evaluate({"en": OTHER}).to_json() for classifier in classifiers]
    prompts = [classifier.adapter.folded for classifier in classifiers]
    fingerprint = backbone.fingerprint

    def one(number: int) -> None:
        which = number % 3
        classifier, adapter = classifiers[which], classifiers[which].adapter
        match number // 3 % 6:
            case 0 | 1:
                assert np.array_equal(classifier.predict_proba(OTHER), answers[which])
            case 2:
                assert classifier.evaluate({"en": OTHER}).to_json() == measures[which]
            case 3:
                again = toy_classifier(backbone, names[which], seed=which)
                assert torch.equal(again.adapter.folded, prompts[which])
                assert np.array_equal(again.predict_proba(OTHER), answers[which])
            case 4:
                adapter.apply(backbone)
            case 5:
                adapter.revert(backbone)
                revert(backbone)

    at_once([lambda number=number: one(number) for number in range(54)], threads=8)
    revert(backbone)
    assert_same_bits(state(backbone), theta("bert"))
    assert not backbone.training
    backbone._fingerprint = None  # found anew
    assert backbone.fingerprint == fingerprint


def test_another_classifier_is_refused_in_a_training_s_own_thread_and_waits_in_others() -> None:
    backbone = toy_backbone("bert")
    other = toy_classifier(backbone, "ltp-decoupled")
    expected, waiting = other.predict_proba(OTHER), []

    def use(epoch: Any) -> None:
        for call in (lambda: other.predict(OTHER), lambda: other.fit(TRAIN), lambda: other.adapter.apply(backbone)):
            with pytest.raises(InputError, match="in training in this very thread"):
                call()
        waiting.append(pool.submit(other.predict_proba, OTHER))

    with ThreadPoolExecutor(2) as pool:
        trained = toy_classifier(backbone, "sp")
        again = trained.adapter
        trained.fit(TRAIN, on_epoch=use)
        assert all(np.array_equal(future.result(300), expected) for future in waiting)
    assert len(waiting) == 2
    for found, change in zip(trained.adapter.changes, again.changes, strict=True):
        assert torch.equal(bits(found.values), bits(change.values))


@pytest.mark.parametrize("trained", ["ltp-decoupled", "sp"])
@pytest.mark.parametrize("broken", [(1,), (3,), (3, 5)], ids=str)
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_adapter_that_is_interrupted_on_its_way_leaves_theta(
    error: type[BaseException], broken: tuple[int, ...], trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off after the third write, and then again while the three are undone."""
    backbone = toy_backbone("bert")
    adapter, write, written = toy_adapter(backbone, trained), Change.write, []

    def interrupted(self: Change, tensor: torch.Tensor) -> None:
        write(self, tensor)
        written.append(self.name)
        if len(written) in broken:
            raise error

    monkeypatch.setattr(Change, "write", interrupted)
    with pytest.raises(error):
        adapter.apply(backbone)
    assert backbone.overlay.on is None
    if len(broken) > 1:
        revert(backbone)  # does again what was broken off twice
    assert_same_bits(state(backbone), theta("bert"))
    assert backbone.overlay.kept_output is None
    adapter.apply(backbone)
    assert backbone.overlay.on is adapter


@pytest.mark.parametrize("trained", ["ltp-decoupled", "ltp-tied", "sp"])
@pytest.mark.parametrize("kind", KINDS)
def test_full_head_logits_of_an_applied_adapter(kind: str, trained: str) -> None:
    backbone = toy_backbone(kind)
    adapter = toy_adapter(backbone, trained)
    assert backbone.word_name in {change.name for change in adapter.changes}
    # The reference is an untied stock model, whose two matrices are set apart by hand.
    reference = toy_model(kind, tied=False).eval()
    weights, word = applied_by_loop(adapter, theta(kind)), backbone.word_name
    decoder = f"{backbone.decoder_path}.weight"
    weights[decoder] = theta(kind)[word] if trained == "ltp-decoupled" else weights[word]
    bias = "lm_head.bias" if kind == "xlm-roberta" else "cls.predictions.bias"
    weights[f"{backbone.decoder_path}.bias"] = weights[bias]
    reference.load_state_dict(weights)
    ids, attention = example(backbone)
    adapter.apply(backbone)
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=attention).logits[attention.bool()]
        found = backbone.model(input_ids=ids, attention_mask=attention).logits[attention.bool()]
        sequences = Sequences(tuple(attention.sum(1).tolist()))
        hidden = backbone.encode(backbone.word_embeddings(ids[attention.bool()]), sequences)
        words = torch.arange(len(backbone.tokenizer))
        few = backbone.word_logits(hidden, *backbone.output_rows(words))
    for logits in (found, backbone.logits(hidden), few):
        assert (logits - expected).abs().max() <= 1e-5
    before = theta(kind)
    assert not torch.equal(weights[word], before[word])
    assert torch.equal(weights[decoder], before[word]) == (trained == "ltp-decoupled")


@pytest.mark.parametrize("trained", ["ltp-decoupled", "sp"])
def test_only_entries_that_differ_from_theta_are_stored(trained: str, tmp_path: Path) -> None:
    backbone = toy_backbone("xlm-roberta")
    adapter = toy_adapter(backbone, trained)
    adapter.save(tmp_path)
    adapter.apply(backbone)
    stored = load_file(tmp_path / "adapter.safetensors")
    values = {name.removeprefix("values/"): tensor for name, tensor in stored.items() if name.startswith("values/")}
    for name, original in theta("xlm-roberta").items():
        if name not in backbone.parameters:
            continue  # another name of a tied tensor
        differs = bits(backbone.parameters[name]) != bits(original)
        assert (name in values) == bool(differs.any()), name
        if differs.any():
            assert torch.equal(bits(values[name]), bits(backbone.parameters[name][differs]))
            assert_rows_and_bits(stored, name, differs)
    assert adapter.size == sum(len(tensor) for tensor in values.values())


def assert_rows_and_bits(stored: dict[str, torch.Tensor], name: str, differs: torch.Tensor) -> None:
    """Rows without a change are not stored, nor is what says that all of a row or of a tensor changed."""
    rows = differs.reshape(len(differs), -1).any(1) if differs.ndim > 1 else differs
    if rows.all():
        assert f"rows/{name}" not in stored
    else:
        assert stored[f"rows/{name}"].tolist() == rows.nonzero().view(-1).tolist()
    kept = differs[rows].reshape(-1).numpy()
    if kept.all():
        assert f"bits/{name}" not in stored
    else:
        assert stored[f"bits/{name}"].tolist() == np.packbits(kept, bitorder="little").tolist()


def test_word_rows_that_training_never_saw_are_not_stored(tmp_path: Path) -> None:
    backbone = toy_backbone("bert")
    toy_classifier(backbone).save_pretrained(tmp_path)
    rows = set(load_file(tmp_path / "adapter.safetensors")[f"rows/{backbone.word_name}"].tolist())
    texts = [text for row in TRAIN for text in (row["premise"], row["hypothesis"])]
    seen = {id_ for ids in backbone.tokenizer(texts)["input_ids"] for id_ in ids}
    seen |= set(backbone.tokenizer(". ? [MASK]")["input_ids"])
    assert rows
    assert rows <= seen
    assert len(rows) < len(backbone.tokenizer) / 2


def test_a_prompt_alone_stores_no_backbone_entry(tmp_path: Path) -> None:
    toy_classifier(toy_backbone("bert"), "prompt-only").save_pretrained(tmp_path)
    assert {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / FILES[1]).items()} == {"prompt": (4, 16)}


@pytest.mark.parametrize("keep", [False, True])
def test_the_prompt_encoder_is_kept_where_it_is_asked_for(keep: bool, tmp_path: Path) -> None:
    adapter = toy_adapter(toy_backbone("bert"), "prompt-only", keep_prompt_encoder=keep)
    adapter.save(tmp_path)
    loaded = Adapter.load(tmp_path)
    assert bool(loaded.state) is keep
    assert_same_bits(loaded.state, adapter.state)
    if keep:  # the folded prompt is what the kept encoder gives, computed here by hand
        lstm = torch.nn.LSTM(16, 16, bidirectional=True, batch_first=True)
        lstm.load_state_dict({n[5:]: t for n, t in loaded.state.items() if n.startswith("lstm.")})
        hidden = lstm(loaded.state["vectors.weight"][None])[0][0]
        named = loaded.state
        inner = (hidden @ named["mlp.0.weight"].T + named["mlp.0.bias"]).relu()
        assert (inner @ named["mlp.2.weight"].T + named["mlp.2.bias"] - loaded.folded).abs().max() <= 1e-6


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    toy_classifier(toy_backbone("bert")).save_pretrained(folder / "first")
    toy_classifier(toy_backbone("bert"), seed=1).save_pretrained(folder / "second")
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved / "first", tmp_path / "adapter")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(copy: Path, name: str, share: float) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FileFormatError, match=name):
        Adapter.load(copy)


def test_a_flipped_byte_of_the_tensors_is_refused_wherever_it_is(copy: Path) -> None:
    path = copy / "adapter.safetensors"
    content = path.read_bytes()
    for place in np.random.default_rng(0).choice(len(content), 100, replace=False).tolist():
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(FileFormatError, match="adapter"):
            Adapter.load(copy)


def test_a_flipped_byte_of_the_record_is_refused_wherever_it_counts(copy: Path) -> None:
    path = copy / "adapter.json"
    content = path.read_bytes()
    before = json.loads(content)
    for place in np.random.default_rng(0).choice(len(content), 100, replace=False).tolist():
        altered = content[:place] + bytes([content[place] ^ 0x04]) + content[place + 1 :]
        path.write_bytes(altered)
        try:
            same = json.loads(altered) == before
        except ValueError:
            same = False
        if not same:
            with pytest.raises(FileFormatError, match=r"adapter\.json"):
                Adapter.load(copy)


@pytest.mark.parametrize("name", FILES)
def test_files_of_two_trainings_are_refused(copy: Path, saved: Path, name: str) -> None:
    shutil.copy(saved / "second" / name, copy / name)
    with pytest.raises(FileFormatError, match="different trainings"):
        Adapter.load(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"{name} does not exist"):
        Adapter.load(copy)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent does not exist; expected an adapter folder"):
        Adapter.load(tmp_path / "absent")


@pytest.mark.parametrize("key", ["moves_output", "fingerprint", "backbone", "revision", "settings", "record"])
def test_a_record_that_lacks_a_key_is_refused(copy: Path, key: str) -> None:
    record = json.loads((copy / "adapter.json").read_text())
    del record[key]
    (copy / "adapter.json").write_text(json.dumps(record))
    with pytest.raises(FileFormatError, match=key):
        Adapter.load(copy)


def test_an_adapter_of_another_backbone_is_refused_with_both_fingerprints(saved: Path) -> None:
    adapter, other = Adapter.load(saved / "first"), toy_backbone("bert", seed=1)
    shown = rf"{adapter.fingerprint[:12]}.*{other.fingerprint[:12]}"
    with pytest.raises(MismatchError, match=shown):
        adapter.apply(other)
    with pytest.raises(MismatchError, match=shown):
        PromptClassifier.from_pretrained(saved / "first", other)
    assert_same_bits(state(other), theta("bert", seed=1))


def test_a_ticket_of_another_backbone_is_refused_with_both_fingerprints() -> None:
    ticket, other = toy_ticket(toy_backbone("bert")), toy_backbone("bert", seed=1)
    with pytest.raises(MismatchError, match=rf"{ticket.fingerprint[:12]}.*{other.fingerprint[:12]}"):
        PromptClassifier(other, "xnli", "ltp", ticket)


def test_a_refused_adapter_leaves_the_one_that_is_on_the_backbone(saved: Path) -> None:
    other = toy_backbone("bert", seed=1)
    own = toy_adapter(other)
    own.apply(other)
    with pytest.raises(MismatchError):
        Adapter.load(saved / "first").apply(other)
    revert(other)
    assert_same_bits(state(other), theta("bert", seed=1))


def test_metadata_stands_under_one_key_without_time_and_path(copy: Path) -> None:
    with safe_open(copy / "adapter.safetensors", framework="pt") as file:
        assert list(file.metadata()) == ["ltprompt"]
        assert str(copy) not in file.metadata()["ltprompt"]


def test_two_processes_train_the_same_bytes(tmp_path: Path) -> None:
    folder = toy_folder("xlm-roberta", tmp_path / "model", dropout=0.1)
    table = write_table(tmp_path / "train.tsv", TRAIN)
    toy_ticket(Backbone.from_pretrained(folder)).save(tmp_path / "t.safetensors")
    options = ["--lr", "0.01", "--epochs", "3", "--max-length", "48", "--batch-size", "4", "--seed", "7"]
    options += ["--threads", "1", "--dtype", "fp32", "--dev", table.name]
    command = [sys.executable, "-m", "ltprompt", "train", "model", "--task", "xnli", "--train", table.name]
    command += ["--ticket", "t.safetensors", *options]
    for out, hash_seed in (("a", "1"), ("b", "2")):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run([*command, "--out", out], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
