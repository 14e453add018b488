from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.toy_tokenizers import TOKENIZERS, unigram, wordpiece
from transformers import PreTrainedTokenizerBase

from ltprompt.backbone.tokens import SpecialTokens, encode
from ltprompt.errors import BackboneError, InputError
from ltprompt.stage1.corpus import TokenizedCorpus, read_lines, text_sha256

Maker = Callable[[], PreTrainedTokenizerBase]
LINES = ["the cat sat on a mat.", "right, wrong? maybe!", "a cat", "no cat sat " * 30]


def test_read_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\r\n  two\u2028still \n\n".encode())
    (tmp_path / "b.txt").write_text("three")
    lines = read_lines([tmp_path / "a.txt", str(tmp_path / "b.txt")])
    assert lines == ["one", "two\u2028still", "three"]
    assert text_sha256(lines) == hashlib.sha256("one\ntwo\u2028still\nthree\n".encode()).hexdigest()
    assert text_sha256(["ab"]) != text_sha256(["a", "b"])


def test_unreadable_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo \xff\n")
    with pytest.raises(InputError, match=r"a\.txt, line 2: byte 0xff is not UTF-8"):
        read_lines([tmp_path / "a.txt"])
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(InputError, match=r"no text in .*blank\.txt"):
        read_lines([tmp_path / "blank.txt"])
    with pytest.raises(InputError, match=r"does not exist; did you mean .*blank\.txt"):
        read_lines([tmp_path / "blink.txt"])


@pytest.mark.parametrize("make", TOKENIZERS)
@pytest.mark.parametrize("max_length", [3, 12, 400])
def test_corpus_equals_the_stock_tokenizer(make: Maker, max_length: int) -> None:
    tokenizer = make()
    before = tokenizer.backend_tokenizer.to_str()
    corpus = TokenizedCorpus.build(LINES, tokenizer, max_length=max_length)
    assert tokenizer.backend_tokenizer.to_str() == before
    for index, line in enumerate(LINES):
        expected = tokenizer(line, truncation=True, max_length=max_length)["input_ids"]
        assert corpus[index].tolist() == expected
    tokenizer.backend_tokenizer.no_truncation()
    assert len(corpus) == len(LINES)
    assert corpus.lengths.tolist() == [len(corpus[index]) for index in range(len(corpus))]
    assert corpus.flat.dtype == np.dtype(np.int32)
    assert corpus.offsets.dtype == np.dtype(np.int64)
    assert corpus.dropped == 0
    with pytest.raises(ValueError, match="read-only"):
        corpus[0][0] = 1
    with pytest.raises(IndexError):
        corpus[len(LINES)]


def test_lines_over_chunks_and_progress() -> None:
    lines = [f"{'the ' * (index % 5 + 1)}cat" for index in range(2300)]
    seen: list[tuple[int, int]] = []
    corpus = TokenizedCorpus.build(lines, wordpiece(), max_length=64, progress=lambda *done: seen.append(done))
    assert seen == [(1000, 2300), (2000, 2300), (2300, 2300)]
    assert [length - 3 for length in corpus.lengths] == [index % 5 + 1 for index in range(2300)]


def test_lines_without_tokens_are_dropped_and_counted() -> None:
    corpus = TokenizedCorpus.build(["a cat", "☃", "<mask>", "the mat"], unigram(), max_length=8)
    assert (len(corpus), corpus.dropped) == (3, 1)  # XLM-R's `▁` before the snowman is an ordinary piece
    corpus = TokenizedCorpus.build(["a cat", "☃", "[MASK] [SEP]", "the mat"], wordpiece(), max_length=8)
    assert (len(corpus), corpus.dropped) == (2, 2)
    with pytest.raises(InputError, match="none of 1 lines gives a token"):
        TokenizedCorpus.build(["☃"], wordpiece(), max_length=8)
    with pytest.raises(InputError, match="`max_length` 2 leaves no room for text; give at least 3"):
        TokenizedCorpus.build(["a"], wordpiece(), max_length=2)


@pytest.mark.parametrize("make", TOKENIZERS)
def test_special_tokens(make: Maker) -> None:
    tokenizer = make()
    special = SpecialTokens.of(tokenizer)
    assert special.prefix == (tokenizer.cls_token_id,)
    assert special.suffix == (tokenizer.sep_token_id or tokenizer.eos_token_id,)
    assert special.count == 2
    assert (special.mask, special.pad) == (tokenizer.mask_token_id, tokenizer.pad_token_id)
    assert special.unknown == tokenizer.unk_token_id


@pytest.mark.parametrize("make", TOKENIZERS)
def test_special_tokens_never_come_from_a_text(make: Maker) -> None:
    tokenizer = make()
    text = " ".join(["a", *tokenizer.all_special_tokens, "cat"])
    (ids,) = encode(tokenizer, [text])
    stock = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.mask_token_id in stock
    special = set(tokenizer.all_special_ids)
    assert ids == [tokenizer.unk_token_id if id_ in special else id_ for id_ in stock]


@pytest.mark.parametrize("make", [unigram, wordpiece])
def test_truncation_and_padding_of_the_file_neither_cut_nor_change(make: Maker) -> None:
    tokenizer = make()
    plain = encode(tokenizer, LINES)
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(4, stride=1)
    backend.enable_padding(length=50, pad_id=1)
    try:
        before = backend.to_str()
        assert encode(tokenizer, LINES) == plain
        assert SpecialTokens.of(tokenizer).count == 2
        assert backend.to_str() == before
    finally:
        backend.no_truncation()
        backend.no_padding()


def test_unsuitable_tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, message in (("mask_token", "has no mask token"), ("pad_token", "has no padding token")):
        tokenizer = unigram()
        with monkeypatch.context() as patch:
            patch.setattr(type(tokenizer), f"{name}_id", None, raising=False)
            with pytest.raises(BackboneError, match=message):
                SpecialTokens.of(tokenizer)
    with monkeypatch.context() as patch:
        patch.setattr(type(tokenizer), "is_fast", False)
        with pytest.raises(BackboneError, match="not a fast one"):
            SpecialTokens.of(tokenizer)
