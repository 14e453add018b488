"""Packed sequences against padded batches of stock models, of every family that packs and of some that cannot."""

from __future__ import annotations

import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.families import FAMILIES, LENGTHS, PADDED, SIZES, WHOLE, family, words
from helpers.toys import toy_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
)

from ltprompt.backbone.model import Backbone
from ltprompt.packing.attention import PACKED
from ltprompt.packing.sequences import Sequences, encode_padded

READ = torch.tensor([35, 3, 4, 20])


def stock_hidden(backbone: Backbone, ids: Tensor) -> Tensor:
    """Hidden states [T, hidden] of each sequence run alone through the stock encoder."""
    alone = [backbone.base(input_ids=part.unsqueeze(0))[0].squeeze(0) for part in ids.split(LENGTHS)]
    return torch.cat(alone)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_sequences_know_where_each_row_stands(lengths: list[int]) -> None:
    sequences = Sequences(tuple(lengths))
    rows = [(number, place) for number, length in enumerate(lengths) for place in range(length)]
    assert sequences.positions.tolist() == [place for _, place in rows]
    assert sequences.padded_places.tolist() == [number * max(lengths) + place for number, place in rows]
    assert sequences.starts.tolist() == [sum(lengths[:number]) for number in range(len(lengths))]
    assert [length for count, length in sequences.runs for _ in range(count)] == lengths
    assert all(first[1] != second[1] for first, second in zip(sequences.runs, sequences.runs[1:], strict=False))
    assert Sequences.of([np.zeros(length) for length in lengths]) == sequences


@pytest.mark.parametrize("name", FAMILIES)
def test_sequences_are_encoded_as_if_alone(name: str) -> None:
    backbone = family(name)
    assert backbone.packs == (name not in PADDED)
    ids, sequences = words(backbone), Sequences(LENGTHS)
    with torch.no_grad():
        expected = stock_hidden(backbone, ids)
        for found in (
            backbone.encode(backbone.word_embeddings(ids), sequences),
            encode_padded(backbone.base, backbone.word_embeddings(ids), sequences),
        ):
            assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_that_no_one_reads_are_left_out(name: str) -> None:
    backbone, seen = family(name), []
    ids, sequences = words(backbone), Sequences(LENGTHS)
    *_, last = (module for module in backbone.layers[-1].modules() if isinstance(module, torch.nn.Linear))
    last.register_forward_hook(lambda module, given, hidden: seen.append(hidden.shape[:-1].numel()))
    with torch.no_grad():
        expected = stock_hidden(backbone, ids)
        for read in (READ, READ[:1], READ[:0], None):
            seen.clear()
            found = backbone.encode(backbone.word_embeddings(ids), sequences, read)
            wanted = expected if read is None else expected[read]
            assert found.shape == wanted.shape
            assert not wanted.numel() or (found - wanted).abs().max() <= 1e-12 * expected.abs().max()
            assert name in WHOLE or seen == [len(wanted)] or not len(wanted)
    assert any(module._forward_pre_hooks for module in backbone.layers.modules()) == (name not in WHOLE)


@pytest.mark.parametrize("read", [None, READ])
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_those_of_sequences_alone(name: str, read: Tensor | None) -> None:
    backbone = family(name)
    ids, sequences, kept = words(backbone), Sequences(LENGTHS), slice(None) if read is None else read
    parameters = [parameter.requires_grad_() for parameter in backbone.base.parameters()]
    weights = torch.randn(sum(LENGTHS), 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def gradients(hidden: Tensor) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad((hidden * weights[kept]).sum(), parameters, allow_unused=True)

    found = gradients(backbone.encode(backbone.word_embeddings(ids), sequences, read))
    expected = gradients(stock_hidden(backbone, ids)[kept])
    scale = max(float(gradient.abs().max()) for gradient in expected if gradient is not None)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one - other).abs().max() <= 1e-12 * scale


@pytest.mark.parametrize("name", FAMILIES)
def test_the_stock_forward_stays_as_it_was(name: str, tmp_path: Path) -> None:
    backbone = family(name)
    plain = type(backbone.model)(copy.deepcopy(backbone.model.config)).double().eval()
    plain.config._attn_implementation = "eager" if name in PADDED else "sdpa"
    plain.load_state_dict(backbone.model.state_dict())
    ids, pad = words(backbone)[:12].view(2, 6), backbone.tokenizer.pad_token_id
    ids[1, 3:] = pad
    attention = (ids != pad).long()
    backbone.encode(backbone.word_embeddings(words(backbone)), Sequences(LENGTHS), READ)
    for masks in ({"attention_mask": attention}, {}):
        found, expected = (model(input_ids=ids, **masks).logits for model in (backbone.model, plain))
        assert torch.equal(found, expected)
    backbone.model.save_pretrained(tmp_path)
    assert PACKED not in (tmp_path / "config.json").read_text(encoding="utf-8")


def test_several_threads_may_encode_and_run_the_stock_forward() -> None:
    backbone = family("bert")
    ids = words(backbone)
    embeddings, batch = backbone.word_embeddings(ids).detach(), ids[:18].view(2, 9)

    def both(_: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return backbone.encode(embeddings, Sequences(LENGTHS), READ), backbone.model(input_ids=batch).logits

    expected = both(0)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(both, range(100)):
            for one, other in zip(found, expected, strict=True):
                assert (one - other).abs().max() <= 1e-12 * other.abs().max()


def test_the_position_table_is_the_smallest_beside_the_words() -> None:
    model = BertForMaskedLM(BertConfig(vocab_size=90, pad_token_id=1, max_position_embeddings=40, **SIZES))
    model.bert.embeddings.shapes = torch.nn.Embedding(70, 32)  # as RoCBert has one of more rows than positions
    assert Backbone(model, toy_tokenizer("xlm-roberta")).max_length == 40


def test_a_model_that_attends_in_another_way_by_choice_is_left_so() -> None:
    model = BertForMaskedLM(BertConfig(vocab_size=90, pad_token_id=1, attn_implementation="eager", **SIZES))
    backbone = Backbone(model, toy_tokenizer("xlm-roberta"))
    assert not backbone.packs
    assert model.config._attn_implementation == "eager"


def test_elsewhere_than_on_a_cpu_sequences_are_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = family("bert")
    assert backbone.packs
    monkeypatch.setattr(Backbone, "device", torch.device("meta"))
    assert not backbone.packs


@pytest.mark.parametrize("attention", [PACKED, "eager"])
def test_an_encoding_that_broke_off_leaves_the_stock_forward_whole(attention: str) -> None:
    backbone = family("bert")
    ids = words(backbone)
    with torch.no_grad():
        expected = backbone.model(input_ids=ids[None]).logits
        handle = backbone.layers[-2].output.register_forward_pre_hook(lambda *given: pytest.fail("broken off"))
        with pytest.raises(pytest.fail.Exception, match="broken off"):
            backbone.encode(backbone.word_embeddings(ids), Sequences(LENGTHS), READ)
        handle.remove()
        backbone.model.config._attn_implementation = attention
        found = backbone.model(input_ids=ids[None]).logits
        assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_attention_that_a_user_chooses_anew_is_not_packed() -> None:
    backbone = family("bert")
    ids = words(backbone)
    with torch.no_grad():
        expected = stock_hidden(backbone, ids)[READ]
        backbone.model.set_attn_implementation("eager")
        assert not backbone.packs
        found = backbone.encode(backbone.word_embeddings(ids), Sequences(LENGTHS), READ)
        assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_a_network_in_chunks_is_read_whole_or_not_at_all() -> None:
    config = BertConfig(vocab_size=90, pad_token_id=1, chunk_size_feed_forward=2, **SIZES)
    backbone = Backbone(BertForMaskedLM(config), toy_tokenizer("xlm-roberta"))
    assert not any(module._forward_pre_hooks for module in backbone.layers.modules())
    config = BertConfig(vocab_size=90, pad_token_id=1, chunk_size_feed_forward=1, **SIZES)
    backbone = Backbone(BertForMaskedLM(config), toy_tokenizer("xlm-roberta"))
    embeddings = backbone.word_embeddings(torch.arange(20, 24))
    for read in (READ[:0], torch.tensor([2])):
        assert len(backbone.encode(embeddings, Sequences((4,)), read)) == len(read)


def test_gradient_checkpointing_without_dropout_leaves_no_row_out() -> None:
    backbone = family("bert")
    ids, sequences, seen = words(backbone), Sequences(LENGTHS), []
    parameters = [parameter.requires_grad_() for parameter in backbone.layers.parameters()]

    def gradients() -> tuple[Tensor, ...]:
        hidden = backbone.encode(backbone.word_embeddings(ids), sequences, READ)
        return torch.autograd.grad(hidden.square().sum(), parameters)

    backbone.model.train()
    expected = gradients()
    last = backbone.layers[-1].intermediate
    last.register_forward_hook(lambda module, given, hidden: seen.append(hidden.shape[1]))
    backbone.model.gradient_checkpointing_enable()
    for found, wanted in zip(gradients(), expected, strict=True):
        assert (found - wanted).abs().max() <= 1e-12 * wanted.abs().max().clamp_min(1)
    assert seen == [sum(LENGTHS)] * 2


def test_a_discarded_backbone_is_freed() -> None:
    backbone = family("bert")
    backbone.encode(backbone.word_embeddings(words(backbone)), Sequences(LENGTHS), READ)
    attention = weakref.ref(backbone.layers[-1].attention.self)
    del backbone
    gc.collect()
    assert attention() is None
