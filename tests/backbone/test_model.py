from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_classifiers import bits
from helpers.toys import KINDS, toy_backbone, toy_folder, toy_model, toy_tokenizer
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    ByT5Tokenizer,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from ltprompt.backbone.changes import Change
from ltprompt.backbone.loading import load_tokenizer
from ltprompt.backbone.model import Backbone
from ltprompt.errors import BackboneError, InputError
from ltprompt.packing.sequences import Sequences

XLMR_BASE = {"vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1}


def eligible_by_name(model: Any) -> dict[str, tuple[int, ...]]:
    """The eligible set told by the names of these two families, which the source does not look at."""
    pattern = r"embeddings\.(word|position|token_type)_embeddings\.|encoder\.layer\.\d+\.(?!.*LayerNorm)"
    named = model.named_parameters(remove_duplicate=False)
    return {name: tuple(parameter.shape) for name, parameter in named if re.search(pattern, name)}


def example(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows of ids of different lengths and their attention mask."""
    pad = toy_tokenizer(kind).pad_token_id
    ids = torch.tensor([[7, 9, 12, 5, 11, 20], [13, 6, 8, pad, pad, pad]])
    return ids, torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])


def edit(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


@dataclass(frozen=True, eq=False)
class AnyBackbones:
    """Changes that no backbone refuses."""

    changes: tuple[Change, ...]
    moves_output: bool = True

    def check(self, backbone: Backbone) -> None:
        """Accept it."""


def test_xlmr_base_has_277_414_656_eligible_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backbone, "_verify", lambda self: None)  # no logits without weights
    with torch.device("meta"):
        model = XLMRobertaForMaskedLM(XLMRobertaConfig(**XLMR_BASE))
    backbone = Backbone(model, toy_tokenizer("xlm-roberta"))
    assert sum(parameter.numel for parameter in backbone.eligible) == 277_414_656
    assert {p.name: p.shape for p in backbone.eligible} == eligible_by_name(model)
    assert [len(backbone.layers), backbone.width, backbone.tied] == [12, 768, True]
    # facts.md: about 470 M parameters with the output embeddings counted apart
    assert backbone.untied_size == sum(p.numel() for p in model.parameters()) + 250_002 * 768


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_eligible_are_input_embeddings_and_layers_without_norms_and_head(kind: str, tied: bool) -> None:
    backbone = toy_backbone(kind, tied=tied)
    assert {p.name: p.shape for p in backbone.eligible} == eligible_by_name(toy_model(kind, tied=tied))
    names = [p.name for p in backbone.eligible]
    assert not [name for name in names if "LayerNorm" in name or "head" in name or "cls" in name or "decoder" in name]
    norms = {name for name, _ in backbone.model.named_parameters() if "LayerNorm" in name or "layer_norm" in name}
    assert norms
    assert norms <= backbone.norms


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_numbered_in_the_order_they_run(kind: str) -> None:
    backbone = toy_backbone(kind, layers=3)
    ran: list[int] = []
    for number, layer in enumerate(backbone.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    ids, attention = example(kind)
    backbone.model(input_ids=ids, attention_mask=attention)
    assert ran == [1, 2, 3]
    for parameter in backbone.eligible:
        number = re.search(r"encoder\.layer\.(\d+)\.", parameter.name)
        assert parameter.layer == (int(number[1]) + 1 if number else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_module_is_one_in_every_layer(kind: str) -> None:
    backbone = toy_backbone(kind)
    kinds = [{p.kind for p in backbone.eligible if p.layer == layer} for layer in range(4)]
    assert kinds[0] == {"word_embeddings", "position_embeddings", "token_type_embeddings"}
    assert kinds[1] == kinds[2] == kinds[3] >= {"attention.self.query", "intermediate.dense", "output.dense"}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_at_chosen_positions_are_the_stock_models(kind: str, tied: bool) -> None:
    backbone, (ids, attention) = toy_backbone(kind, tied=tied), example(kind)
    with torch.no_grad():
        stock = toy_model(kind, tied=tied).eval()(input_ids=ids, attention_mask=attention).logits
        hidden = backbone.encode(backbone.word_embeddings(ids[attention.bool()]), Sequences((6, 3)))
        rows, columns, places = torch.tensor([0, 0, 1]), torch.tensor([5, 2, 1]), torch.tensor([5, 2, 7])
        words = torch.tensor([17, 4, 30])
        found = backbone.logits(hidden[places])
        few = backbone.word_logits(hidden[places], *backbone.output_rows(words))
    assert found.shape == (3, len(backbone.tokenizer))
    assert (found - stock[rows, columns]).abs().max() <= 1e-5
    assert (few - stock[rows, columns][:, words]).abs().max() <= 1e-5


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


def test_the_longest_input_is_what_the_position_embeddings_hold() -> None:
    assert toy_backbone("bert").max_length == 64
    assert toy_backbone("xlm-roberta").max_length == 64  # 66 rows, positions start at 2
    for length in (7, 65):
        with pytest.raises(InputError, match=f"max_length {length} is outside 8 to 64"):
            toy_backbone("bert").check_length(length)


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
def test_a_model_that_scales_its_logits_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model(kind)
    forward = type(model).forward

    def scaled(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        output.logits = output.logits * 1.01
        return output

    monkeypatch.setattr(type(model), "forward", scaled)
    with pytest.raises(BackboneError, match="computes its logits in a way that ltprompt does not know"):
        Backbone(model, toy_tokenizer(kind))


def test_a_model_whose_embeddings_need_more_than_words_is_refused() -> None:
    model = toy_model("bert")

    def second_segment(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if kwargs.get("input_ids") is not None:
            kwargs["token_type_ids"] = torch.ones_like(kwargs["input_ids"])
        return args, kwargs

    model.bert.embeddings.register_forward_pre_hook(second_segment, with_kwargs=True)
    with pytest.raises(BackboneError, match="computes its logits in a way that ltprompt does not know"):
        Backbone(model, toy_tokenizer("bert"))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_in_fp32_and_fp16_have_one_fingerprint(kind: str, tmp_path: Path) -> None:
    toy_folder(kind, tmp_path / "fp16", dtype=torch.float16)
    toy_model(kind).half().float().save_pretrained(tmp_path / "fp32")
    toy_tokenizer(kind).save_pretrained(tmp_path / "fp32")
    first, second = (Backbone.from_pretrained(tmp_path / dtype).fingerprint for dtype in ("fp16", "fp32"))
    assert first == second
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    sizes = [(tmp_path / dtype / "model.safetensors").stat().st_size for dtype in ("fp16", "fp32")]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_backbone_in_memory_and_the_same_from_a_folder_have_one_fingerprint(kind: str, tmp_path: Path) -> None:
    assert Backbone.from_pretrained(toy_folder(kind, tmp_path)).fingerprint == toy_backbone(kind).fingerprint


@pytest.mark.parametrize(
    "name",
    [
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.2.output.LayerNorm.weight",
        "bert.encoder.layer.1.attention.self.key.bias",
        "cls.predictions.bias",
    ],
)
def test_one_bit_of_a_weight_changes_the_fingerprint(name: str) -> None:
    model = toy_model("bert")
    before = Backbone(model, toy_tokenizer("bert")).fingerprint
    model.get_parameter(name).data.view(torch.int32).view(-1)[5] ^= 1
    assert Backbone(model, toy_tokenizer("bert")).fingerprint != before


def test_a_setting_that_changes_behaviour_changes_the_fingerprint(tmp_path: Path) -> None:
    folder = toy_folder("xlm-roberta", tmp_path)
    before = Backbone.from_pretrained(folder).fingerprint
    edit(folder / "config.json", lambda config: config.update(layer_norm_eps=1e-6))
    changed = Backbone.from_pretrained(folder).fingerprint
    edit(folder / "config.json", lambda config: config.update(layer_norm_eps=1e-12))
    edit(folder / "config.json", lambda config: config.update(transformers_version="5.0.0", use_cache=False))
    assert changed != before == Backbone.from_pretrained(folder).fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_one_entry_of_the_tokenizer_changes_the_fingerprint(kind: str, tmp_path: Path) -> None:
    folder = toy_folder(kind, tmp_path)
    before = Backbone.from_pretrained(folder).fingerprint
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    old, new = ('"cat"', '"cow"')
    assert text.count(old) == 1
    (folder / "tokenizer.json").write_text(text.replace(old, new), encoding="utf-8")
    assert Backbone.from_pretrained(folder).fingerprint != before


@pytest.mark.parametrize("kind", KINDS)
def test_calls_that_set_truncation_and_padding_leave_the_fingerprint(kind: str) -> None:
    backbone, used = toy_backbone(kind), toy_backbone(kind)
    used.tokenizer(["the cat", "a"], truncation=True, max_length=4, padding=True)
    assert used.tokenizer.backend_tokenizer.truncation is not None
    assert used.fingerprint == backbone.fingerprint


def test_a_fingerprint_is_of_the_pretrained_weights_alone() -> None:
    backbone, pristine = toy_backbone("bert"), toy_backbone("bert")
    name = backbone.eligible[-1].name
    with backbone.applied(AnyBackbones((Change(name, torch.tensor([0]), torch.tensor([7.0])),))):
        assert backbone.parameters[name].view(-1)[0] == 7
        with pytest.raises(InputError, match="this very thread"):
            _ = backbone.fingerprint
    assert backbone.fingerprint == pristine.fingerprint
    with backbone.reserved(), torch.no_grad():  # known by now
        assert backbone.fingerprint == pristine.fingerprint


def test_tied_and_untied_are_told_apart(tmp_path: Path) -> None:
    found = {tied: toy_folder("bert", tmp_path / str(tied), tied=tied) for tied in (True, False)}
    for tied, folder in found.items():
        backbone = Backbone.from_pretrained(folder)
        stock = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32)
        assert backbone.tied is tied
        assert torch.equal(backbone.decoder.weight, stock.get_output_embeddings().weight)


def test_a_model_with_one_layer_list_of_other_modules_is_no_obstacle() -> None:
    config = BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = BertForMaskedLM(config)
    model.bert.extra = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    assert Backbone(model, toy_tokenizer("bert")).layers is model.bert.encoder.layer


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
