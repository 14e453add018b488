from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers.toy_tokenizers import mini, unigram, wordpiece
from transformers import PreTrainedTokenizerBase

from ltprompt.errors import InputError
from ltprompt.tasks import load_task
from ltprompt.tasks.verbaliser import Verbaliser


def test_single_pieces() -> None:
    tokenizer = unigram()
    verbaliser = Verbaliser.build({"e": "right", "n": "maybe", "c": "wrong"}, tokenizer)
    expected = [tokenizer.convert_tokens_to_ids(f"▁{word}") for word in ("right", "maybe", "wrong")]
    assert verbaliser.piece_ids == tuple((id_,) for id_ in expected)
    assert verbaliser.flat_ids == tuple(sorted(expected))
    assert verbaliser.labels == ("e", "n", "c")
    assert verbaliser.words == ("right", "maybe", "wrong")
    assert verbaliser.notes == ()


@pytest.mark.parametrize("make", [unigram, wordpiece, mini])
def test_outer_spaces_do_not_count(make: Callable[[], PreTrainedTokenizerBase]) -> None:
    plain, spaced = (
        Verbaliser.build(words, make()) for words in ({"a": "good", "b": "bad"}, {"a": " good\u3000", "b": "\tbad "})
    )
    assert spaced.words == ("good", "bad")
    assert spaced.piece_ids == plain.piece_ids
    assert spaced.notes == plain.notes


def test_lone_word_start_is_dropped_and_noted() -> None:
    tokenizer = unigram()
    verbaliser = Verbaliser.build({"e": "是", "n": "maybe", "c": "否"}, tokenizer)
    assert verbaliser.piece_ids[0] == (tokenizer.convert_tokens_to_ids("是"),)
    assert verbaliser.piece_ids[2] == (tokenizer.convert_tokens_to_ids("否"),)
    assert verbaliser.notes == (
        "the word '是' of label 'e' is 2 pieces (▁ 是), scored by 是",
        "the word '否' of label 'c' is 2 pieces (▁ 否), scored by 否",
    )


def test_several_pieces_score_by_their_mean() -> None:
    tokenizer = wordpiece()
    words = {"a": "right", "b": "zqz", "c": "bad"}
    verbaliser = Verbaliser.build(words, tokenizer)
    pieces = [tokenizer.encode(word, add_special_tokens=False) for word in words.values()]
    assert verbaliser.piece_ids == tuple(map(tuple, pieces))
    assert verbaliser.notes == (
        "the word 'zqz' of label 'b' is 3 pieces (z ##q ##z), scored by the mean logit of z ##q ##z",
    )  # fmt: skip
    full = torch.randn(5, len(tokenizer), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    full.requires_grad_()
    logits = verbaliser.label_logits(full[:, list(verbaliser.flat_ids)])
    expected = torch.stack([full[:, ids].mean(1) for ids in pieces], 1)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    assert torch.equal(logits[:, 0], full[:, pieces[0][0]])
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), full)
    expected_gradient = torch.zeros_like(gradient)
    expected_gradient[:, pieces[1]] = 1 / 3
    torch.testing.assert_close(gradient, expected_gradient)


def test_a_piece_that_stands_twice_counts_twice() -> None:
    tokenizer = wordpiece()
    verbaliser = Verbaliser.build({"a": "qzzz", "b": "bad"}, tokenizer)
    full = torch.arange(len(tokenizer), dtype=torch.float32)[None]
    logits = verbaliser.label_logits(full[:, list(verbaliser.flat_ids)])
    first, second = (tokenizer.convert_tokens_to_ids(token) for token in ("q", "##z"))
    assert logits[0, 0].item() == pytest.approx((first + 3 * second) / 4)


def test_dtype_is_kept_under_autocast() -> None:
    verbaliser = Verbaliser.build({"a": "good", "b": "bad"}, wordpiece())
    logits = torch.tensor([[1.0001, 2.0001]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = verbaliser.label_logits(logits)
    assert result.dtype == torch.float32
    assert torch.equal(result.sort().values, logits)


@pytest.mark.parametrize("word", ["☃", "good☃", "[MASK]", " "])
def test_unknown_words(word: str) -> None:
    with pytest.raises(InputError, match=r"does not know the word .* of label 'b'"):
        Verbaliser.build({"a": "good", "b": word}, wordpiece())


@pytest.mark.parametrize("word", ["☃", "▁", "<mask>", " "])
def test_unknown_words_of_sentence_pieces(word: str) -> None:
    with pytest.raises(InputError, match=r"does not know the word .* of label 'b'"):
        Verbaliser.build({"a": "good", "b": word}, unigram())


def test_equal_pieces() -> None:
    with pytest.raises(InputError, match="'Good' of label 'a' and 'good' of label 'c' have equal pieces"):
        Verbaliser.build({"a": "Good", "b": "bad", "c": "good"}, wordpiece())


@pytest.mark.parametrize("language", load_task("xnli").words)
def test_the_published_words_with_the_real_tokenizer(language: str) -> None:
    """Every language either builds, scored as plainly computed, or says which word the vocabulary cannot hold."""
    tokenizer = mini()
    words = load_task("xnli").words_for(language)
    verbaliser = Verbaliser.build(words, tokenizer)
    for word, ids in zip(words.values(), verbaliser.piece_ids, strict=True):
        plain = tokenizer(word, add_special_tokens=False)["input_ids"]
        tokens = tokenizer.convert_ids_to_tokens(plain)
        assert list(ids) == (plain[1:] if tokens[0] == "▁" and len(plain) > 1 else plain)
    assert len(verbaliser.notes) == sum(
        len(tokenizer(word, add_special_tokens=False)["input_ids"]) > 1 for word in words.values()
    )
