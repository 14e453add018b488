from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_classifiers import bits
from helpers.toys import KINDS, edit, toy_folder, toy_model, toy_tokenizer
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    ByT5Tokenizer,
)

from ltprompt.backbone.loading import load_tokenizer
from ltprompt.backbone.model import Backbone
from ltprompt.errors import BackboneError, InputError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_loads_into_fp32_masters(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    backbone = Backbone.from_pretrained(toy_folder(kind, tmp_path, dtype=dtype))
    expected = toy_model(kind).to(dtype).float().state_dict()
    for name, tensor in backbone.model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(bits(tensor), bits(expected[name])), name
    assert backbone.name == str(tmp_path.resolve())
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert not backbone.model.training


@pytest.mark.parametrize("stock", [AutoModel, AutoModelForSequenceClassification])
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_without_a_head_is_refused_with_its_missing_keys(kind: str, stock: Any, tmp_path: Path) -> None:
    stock.from_config(toy_model(kind).config).save_pretrained(tmp_path)
    toy_tokenizer(kind).save_pretrained(tmp_path)
    key = "cls.predictions.bias" if kind == "bert" else "lm_head.bias"
    with pytest.raises(BackboneError, match=rf"no masked-LM head or lacks weights: .*{re.escape(key)}"):
        Backbone.from_pretrained(tmp_path)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    toy_folder("bert", tmp_path)
    edit(tmp_path / "config.json", lambda config: config.update(intermediate_size=25))
    with pytest.raises(BackboneError, match=r"intermediate\.dense|mismatch"):
        Backbone.from_pretrained(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no backbone at .*absent"):
        Backbone.from_pretrained(tmp_path / "absent")


class Exploit:
    """What a pickle may do when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_of_pickles_alone_is_refused_and_never_unpickled(tmp_path: Path) -> None:
    folder = toy_folder("bert", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Exploit(tmp_path / "executed")}, folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="safetensors"):
        Backbone.from_pretrained(folder)
    assert not (tmp_path / "executed").exists()


def test_remote_code_is_refused(tmp_path: Path) -> None:
    folder = toy_folder("bert", tmp_path / "model")
    (folder / "code.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'executed')!r}).touch()\n")
    remote = {"AutoConfig": "code.Config", "AutoModelForMaskedLM": "code.Model"}
    edit(folder / "config.json", lambda config: config.update(auto_map=remote, model_type="unheard-of"))
    with pytest.raises(InputError, match="no backbone at"):
        Backbone.from_pretrained(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_a_tokenizer_is_refused(kind: str, tmp_path: Path) -> None:
    toy_model(kind).save_pretrained(tmp_path)  # transformers would make one of five special tokens
    with pytest.raises(BackboneError, match="has no tokenizer files"):
        Backbone.from_pretrained(tmp_path)


def test_a_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    toy_model("bert").save_pretrained(tmp_path)
    ByT5Tokenizer().save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="no fast tokenizer"):
        Backbone.from_pretrained(tmp_path)


@pytest.mark.parametrize("token", ["mask", "pad"])
def test_a_tokenizer_without_mask_or_padding_is_refused(token: str, tmp_path: Path) -> None:
    folder = toy_folder("xlm-roberta", tmp_path)
    tokenizer = toy_tokenizer("xlm-roberta")
    setattr(tokenizer, f"{token}_token", None)
    tokenizer.save_pretrained(folder)
    with pytest.raises(BackboneError, match=f"has no {token} token"):
        Backbone.from_pretrained(folder)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    folder = toy_folder("bert", tmp_path)
    tokenizer = toy_tokenizer("bert")
    tokenizer.add_tokens(["one-more"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(BackboneError, match=rf"has {len(tokenizer)} tokens but the model only {len(tokenizer) - 1}"):
        Backbone.from_pretrained(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_alone_needs_no_weights(kind: str, tmp_path: Path) -> None:
    folder = toy_folder(kind, tmp_path)
    whole = Backbone.from_pretrained(folder).tokenizer
    (folder / "model.safetensors").unlink()
    assert load_tokenizer(folder).backend_tokenizer.to_str() == whole.backend_tokenizer.to_str()
    with pytest.raises(InputError, match=r"no backbone at .*absent"):
        load_tokenizer(tmp_path / "absent")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(BackboneError, match="tokenizer"):
        load_tokenizer(folder)
