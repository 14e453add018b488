"""The one way from text to token ids: special tokens are added by id, and never come from a text."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltprompt.errors import BackboneError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

CHUNK = 1000  # texts handed to the tokenizer at once: bounds the memory of its results, and how long it is held
_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of a tokenizer, as ids.

    prefix, suffix: what stands around a single text. mask, pad: the tokens of those names. unknown: the unknown
    token, or None where the tokenizer has none (byte-level ones).
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    mask: int
    pad: int
    unknown: int | None

    @property
    def count(self) -> int:
        """Number of special tokens around a text."""
        return len(self.prefix) + len(self.suffix)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
        """Find the special tokens. Raises `BackboneError` where the tokenizer is not fast or lacks mask or padding."""
        if not tokenizer.is_fast:
            raise BackboneError(
                "the tokenizer is not a fast one; save one that has a tokenizer.json beside the checkpoint"
            )
        for what, token in (("mask", tokenizer.mask_token_id), ("padding", tokenizer.pad_token_id)):
            if token is None:
                raise BackboneError(
                    f"the tokenizer has no {what} token; choose a masked language model's, or name its "
                    f"{what} token in tokenizer_config.json"
                )
        with _plain(tokenizer) as backend:
            encoding = backend.encode("a", add_special_tokens=True)
        if 0 not in encoding.special_tokens_mask:
            raise BackboneError("the tokenizer gives no token for the text 'a'; check its tokenizer.json")
        start = encoding.special_tokens_mask.index(0)
        end = len(encoding.ids) - encoding.special_tokens_mask[::-1].index(0)
        return cls(
            prefix=tuple(encoding.ids[:start]),
            suffix=tuple(encoding.ids[end:]),
            mask=tokenizer.mask_token_id,
            pad=tokenizer.pad_token_id,
            unknown=tokenizer.unk_token_id,
        )


def separator(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the special tokens that a tokenizer puts between two texts, such as ``</s></s>``."""
    with _plain(tokenizer) as backend:
        encoding = backend.encode("a", "a", add_special_tokens=True)
    texts = [place for place, text in enumerate(encoding.sequence_ids) if text is not None]
    last = max(place for place in texts if encoding.sequence_ids[place] == 0)
    return tuple(encoding.ids[last + 1 : min(place for place in texts if encoding.sequence_ids[place] == 1)])


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, whole and with no special tokens around.

    Where a text itself spells a special token, such as ``<mask>``, its id is replaced by the unknown token's (or
    dropped where there is none), so that mask and padding never come from a text. The tokenizer stays as it was.
    """
    special = special_ids(tokenizer)
    unknown = tokenizer.unk_token_id
    found: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        with _plain(tokenizer) as backend:
            encodings = backend.encode_batch_fast(list(texts[start : start + CHUNK]), add_special_tokens=False)
        each = (encoding.ids for encoding in encodings)
        found += (ids if special.isdisjoint(ids) else _without(special, ids, unknown) for ids in each)
    return found


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of all special tokens, the unknown token's among them."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return frozenset(tokenizer.all_special_ids).union(id_ for id_, token in added.items() if token.special)


def _without(special: frozenset[int], ids: list[int], unknown: int | None) -> list[int]:
    replaced = (unknown if id_ in special else id_ for id_ in ids)
    return [id_ for id_ in replaced if id_ is not None]


@contextmanager
def _plain(tokenizer: PreTrainedTokenizerBase) -> Iterator[Tokenizer]:
    """Yield the Rust tokenizer with truncation and padding off, and set them as they were afterwards.

    Both are settings of the Rust object: a checkpoint's file may turn them on, and they count in its fingerprint. It
    must not be set while it encodes, so that one thread at a time has it.
    """
    backend: Tokenizer = tokenizer.backend_tokenizer
    with _ONE_AT_A_TIME:
        truncation, padding = backend.truncation, backend.padding
        backend.no_truncation()
        backend.no_padding()
        try:
            yield backend
        finally:
            if truncation is not None:
                backend.enable_truncation(**truncation)
            if padding is not None:
                backend.enable_padding(**padding)
