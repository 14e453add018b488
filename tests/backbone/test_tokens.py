from __future__ import annotations

import pytest
from helpers.threads import at_once
from helpers.toys import KINDS, toy_tokenizer

from ltprompt.backbone.tokens import encode

TEXTS = ["the cat sat on a mat"] * 30


@pytest.mark.parametrize("kind", KINDS)
def test_threads_encode_whole_texts_with_a_tokenizer_that_cuts_and_pads(kind: str) -> None:
    tokenizer = toy_tokenizer(kind)
    whole = encode(tokenizer, TEXTS)
    tokenizer.backend_tokenizer.enable_truncation(max_length=2)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    set_before = tokenizer.backend_tokenizer.truncation, tokenizer.backend_tokenizer.padding
    assert all(found == whole for found in at_once([lambda: encode(tokenizer, TEXTS)] * 200, threads=4))
    assert (tokenizer.backend_tokenizer.truncation, tokenizer.backend_tokenizer.padding) == set_before
