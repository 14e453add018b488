"""θ kept in a file while the model trains: the checkpoint itself where it serves, else a temporary file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from helpers.toys import KINDS, toy_backbone, toy_folder
from torch import Tensor

from ltprompt.backbone.model import Backbone
from ltprompt.backbone.pretrained import originals, restore

MAPS = Path("/proc/self/maps")
needs_maps = pytest.mark.skipif(not MAPS.exists(), reason="this system does not list a process's mapped files")


def backing(tensor: Tensor) -> str:
    """The file whose mapping holds a tensor's memory, empty where it is plain memory."""
    for line in MAPS.read_text().splitlines():
        extent, *_, path = [*line.split(maxsplit=5), ""][:6] if len(line.split()) >= 6 else [line.split()[0], ""]
        start, end = (int(part, 16) for part in extent.split("-"))
        if start <= tensor.data_ptr() < end:
            return path
    raise AssertionError("the tensor lies in no mapping")


def refuse_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda **_: pytest.fail("made a temporary folder"))


def bits(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()}


@torch.no_grad()
def disturb(backbone: Backbone) -> None:
    for parameter in backbone.parameters.values():
        parameter.fill_(torch.nan)


@needs_maps
@pytest.mark.parametrize("kind", KINDS)
def test_an_fp32_safetensors_checkpoint_is_mapped(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone.from_pretrained(toy_folder(kind, tmp_path))
    file = tmp_path / "model.safetensors"
    content, before = file.read_bytes(), bits(dict(backbone.parameters))
    refuse_temporary(monkeypatch)
    names = [parameter.name for parameter in backbone.eligible]
    with originals(backbone, names) as theta:
        assert list(theta) == names
        assert all(Path(backing(tensor)) == file for tensor in theta.values())
        disturb(backbone)
        assert bits(dict(theta)) == {name: before[name] for name in names}
        restore(backbone, theta)
    after = bits(dict(backbone.parameters))
    assert all(after[name] == before[name] for name in names)
    assert all(after[name] != before[name] for name in before if name not in names), "others are left alone"
    assert file.read_bytes() == content


@needs_maps
@pytest.mark.parametrize("kind", KINDS)
def test_an_fp16_checkpoint_needs_a_temporary_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone.from_pretrained(toy_folder(kind, tmp_path / "model", dtype=torch.float16))
    assert_temporary(backbone, tmp_path / "temporary", monkeypatch)


@needs_maps
def test_weights_that_are_not_the_checkpoints_need_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = Backbone.from_pretrained(toy_folder("bert", tmp_path / "model"))
    with torch.no_grad():
        backbone.parameters[backbone.eligible[-1].name][0] += 1
    assert_temporary(backbone, tmp_path / "temporary", monkeypatch)


@needs_maps
@pytest.mark.parametrize("damage", ["missing", "not safetensors", "other names"])
def test_a_checkpoint_that_has_gone_since_needs_a_temporary_file(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = Backbone.from_pretrained(toy_folder("bert", tmp_path / "model"))
    file = tmp_path / "model" / "model.safetensors"
    file.unlink()
    if damage == "not safetensors":
        file.write_bytes(b"text")
    if damage == "other names":
        toy_folder("xlm-roberta", tmp_path / "model")
    assert_temporary(backbone, tmp_path / "temporary", monkeypatch)


@needs_maps
def test_a_backbone_without_a_checkpoint_needs_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_temporary(toy_backbone("bert"), tmp_path / "temporary", monkeypatch)
    assert_temporary(toy_backbone("bert", double=True), tmp_path / "double", monkeypatch)


def assert_temporary(backbone: Backbone, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """θ lies in a file in the system's temporary folder, is restored from there bit for bit, and the file goes."""
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = bits(dict(backbone.parameters))
    with originals(backbone, backbone.parameters) as theta:
        assert all(folder in Path(backing(tensor)).parents for tensor in theta.values() if tensor.numel())
        assert bits(dict(theta)) == before
        disturb(backbone)
        restore(backbone, theta)
    assert bits(dict(backbone.parameters)) == before
    assert list(folder.iterdir()) == []
    with pytest.raises(ZeroDivisionError), originals(backbone, backbone.parameters):
        raise ZeroDivisionError
    assert list(folder.iterdir()) == []


def test_no_parameters_are_no_tensors() -> None:
    with originals(toy_backbone("bert"), []) as theta:
        assert dict(theta) == {}
        restore(toy_backbone("bert"), theta)
