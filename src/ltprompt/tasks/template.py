"""Templates: where text, prompt, words and mask stand (the paper's section 3.2; truncation as in its baselines)."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ltprompt.backbone.tokens import SpecialTokens, encode, separator, special_ids
from ltprompt.errors import InputError, choices
from ltprompt.tasks.task import MASK, PROMPT, placeholder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Fixed = tuple[int, ...]  # ids that are the same in every example


def slot_code(slot: int) -> int:
    """Return what stands among token ids for a slot of the prompt, numbered from 0; its own inverse."""
    return -(slot + 1)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A filled template.

    ids: int64 [length], special tokens included; a slot of the prompt stands there as its `slot_code`, below 0.
    read_at: the position whose hidden state says the label: the one mask's, or the first for plain fine-tuning.
    """

    ids: npt.NDArray[np.int64]
    read_at: int


@dataclass(frozen=True, eq=False)
class Template:
    """A template bound to a tokenizer; every part was tokenised on its own.

    pieces_of: the whole sequence, special tokens included: fixed ids, or the index of a text field.
    fields: number of text fields. room: tokens left for them together. prompt_length: slots of the prompt.
    """

    tokenizer: PreTrainedTokenizerBase
    special: SpecialTokens
    pieces_of: tuple[Fixed | int, ...]
    fields: int
    room: int
    prompt_length: int
    strip_punctuation: bool

    @classmethod
    def build(
        cls,
        parts: Sequence[str],
        columns: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        *,
        prompt_length: int,
        max_length: int,
        strip_punctuation: bool,
    ) -> Template:
        """Tokenise the fixed parts of a template, as `Task.template_for` gives it.

        parts: plain text, ``{column}``, ``{prompt}`` or ``{mask}``. prompt_length counts only where there is a
        ``{prompt}``. Raises `InputError` for an unknown name, for text that spells a special token, and where
        `max_length` leaves under one token a field.
        """
        special = SpecialTokens.of(tokenizer)
        slots = prompt_length if f"{{{PROMPT}}}" in parts else 0
        if slots < 1 and f"{{{PROMPT}}}" in parts:
            raise InputError(f"`prompt_length` must be at least 1, found {prompt_length}")
        body = [_resolve(part, columns, tokenizer, special, slots) for part in parts]
        for name in (MASK, *columns):
            if parts.count(f"{{{name}}}") != 1:
                raise InputError(f"the template {' '.join(parts)} needs {{{name}}} exactly once")
        pieces = (special.prefix, *body, special.suffix)
        room = _room(pieces, columns, max_length)
        return cls(tokenizer, special, pieces, len(columns), room, slots, strip_punctuation)

    @classmethod
    def plain(cls, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Template:
        """Return the input of plain fine-tuning: the fields as they are, parted as the tokenizer parts two texts.

        Raises `InputError` where `max_length` leaves under one token a field.
        """
        special, between = SpecialTokens.of(tokenizer), separator(tokenizer)
        body: list[Fixed | int] = [0]
        for field in range(1, len(columns)):
            body += [between, field]
        pieces = (special.prefix, *body, special.suffix)
        room = _room(pieces, columns, max_length)
        return cls(tokenizer, special, pieces, len(columns), room, 0, strip_punctuation=False)

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoded]:
        """Fill the template with each example's fields; only fields are ever shortened (see `kept_lengths`)."""
        cleaned = [clean(text, self.strip_punctuation) for text in chain.from_iterable(texts)]
        ids = encode(self.tokenizer, cleaned)
        return [self._fill(ids[start : start + self.fields]) for start in range(0, len(ids), self.fields)]

    def _fill(self, fields: Sequence[list[int]]) -> Encoded:
        kept = kept_lengths([len(field) for field in fields], self.room)
        ids: list[int] = []
        for piece in self.pieces_of:
            ids.extend(fields[piece][: kept[piece]] if isinstance(piece, int) else piece)
        return Encoded(np.array(ids, np.int64), ids.index(self.special.mask) if self.masked else 0)

    @cached_property
    def masked(self) -> bool:
        """Whether a mask stands in the template; in that of plain fine-tuning none does."""
        return (self.special.mask,) in self.pieces_of

    def pieces(self, example: Encoded) -> list[str]:
        """Return a filled template as tokens to show, slots of the prompt as ``<p1>`` to ``<pn>``."""
        tokens = self.tokenizer.convert_ids_to_tokens
        return [f"<p{slot_code(id_) + 1}>" if id_ < 0 else str(tokens(id_)) for id_ in example.ids.tolist()]


def clean(text: str, strip_punctuation: bool) -> str:
    """Return a text without outer white space and trailing ASCII punctuation, unless nothing would be left."""
    text = text.strip()
    if not strip_punctuation:
        return text
    return text.rstrip(string.punctuation).rstrip() or text


def kept_lengths(lengths: Sequence[int], room: int) -> list[int]:
    """Return how much of each field is kept so that at most `room` tokens remain.

    Longest first: as if one token at a time were cut from the end of the longest field, the later one of equals.
    That levels the longest fields, and what the level leaves over falls to the earliest of them.
    """
    if sum(lengths) <= room:
        return list(lengths)
    level, rest = 0, room
    for shorter, length in enumerate(sorted(lengths)):
        level = rest // (len(lengths) - shorter)
        if length > level:
            break
        rest -= length
    over = room - sum(min(length, level) for length in lengths)
    kept = []
    for length in lengths:
        extra = int(length > level and over > 0)
        over -= extra
        kept.append(min(length, level) + extra)
    return kept


def _room(pieces: Sequence[Fixed | int], columns: Sequence[str], max_length: int) -> int:
    """Return the number of tokens that the fixed pieces leave for the fields."""
    fixed = sum(len(piece) for piece in pieces if not isinstance(piece, int))
    if max_length - fixed < len(columns):
        raise InputError(
            f"`max_length` {max_length} is too short: the template alone takes {fixed} tokens and each of "
            f"{', '.join(columns)} needs at least one; raise `max_length` to {fixed + len(columns)} or more"
        )
    return max_length - fixed


def _resolve(
    part: str, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, special: SpecialTokens, slots: int
) -> Fixed | int:
    """Return the ids of a fixed part, or the index of the column that it names."""
    name = placeholder(part)
    if name is None:
        _refuse_special(part, tokenizer)
        return tuple(encode(tokenizer, [part])[0])
    if name == MASK:
        return (special.mask,)
    if name == PROMPT:
        return tuple(slot_code(slot) for slot in range(slots))
    if name not in columns:
        raise InputError(f"unknown name {part!r} in a template; {choices(name, [*columns, PROMPT, MASK])}")
    return list(columns).index(name)


def _refuse_special(part: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `InputError` where a plain part spells a special token, which would be read as an unknown one."""
    for token in tokenizer.convert_ids_to_tokens(sorted(special_ids(tokenizer))):
        if token in part:
            mend = f"write {{{MASK}}}" if token == tokenizer.mask_token else "remove it, it is added where it belongs"
            raise InputError(f"the part {part!r} of a template spells the special token {token!r}; {mend}")
