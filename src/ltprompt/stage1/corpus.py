"""Unlabelled text for stage 1: read, hashed and kept as flat arrays of token ids."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ltprompt.backbone.tokens import CHUNK, SpecialTokens, encode, special_ids
from ltprompt.errors import InputError
from ltprompt.files import text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_lines(paths: str | Path | Iterable[str | Path]) -> list[str]:
    """Return the lines of one or several UTF-8 text files, stripped, without the empty: a sentence or paragraph each.

    Raises `InputError` for a missing file, for undecodable bytes with their line, and where no text is left.
    """
    names = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    found = chain.from_iterable(text.read_lines(path, "a text file") for path in names)
    stripped = (line.strip() for _, line in found)
    lines = [line for line in stripped if line]
    if not lines:
        raise InputError(f"no text in {', '.join(map(str, names)) or 'no files'}; give a sentence or paragraph a line")
    return lines


def text_sha256(lines: Iterable[str]) -> str:
    """Return the SHA-256 of lines, each ended by a line feed, as hexadecimal."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


class TokenizedCorpus:
    """Token ids of every usable line, with special tokens around, in one flat array.

    flat: int32 [tokens]. offsets: int64 [lines + 1], line i being flat[offsets[i]:offsets[i + 1]]; both read-only.
    special: the special tokens that stand around each line. dropped: lines that gave no ordinary token.
    """

    def __init__(
        self, flat: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], special: SpecialTokens, dropped: int
    ) -> None:
        self.flat = flat
        self.offsets = offsets
        self.special = special
        self.dropped = dropped
        self.flat.flags.writeable = False
        self.offsets.flags.writeable = False

    @classmethod
    def build(
        cls,
        lines: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> TokenizedCorpus:
        """Tokenise lines, each cut to `max_length` tokens with its special ones.

        progress: called with the lines done and their total after every chunk.
        Raises `InputError` where `max_length` leaves no room or no line gives a token.
        """
        special = SpecialTokens.of(tokenizer)
        room = max_length - special.count
        if room < 1:
            raise InputError(f"`max_length` {max_length} leaves no room for text; give at least {special.count + 1}")
        ignored = special_ids(tokenizer)
        flat, ends = array("i"), array("q", [0])  # grow in place: no Python list of all ids
        for start in range(0, len(lines), CHUNK):
            chunk = lines[start : start + CHUNK]
            for ids in encode(tokenizer, chunk):
                kept = ids[:room]
                if not ignored.issuperset(kept):
                    flat.extend((*special.prefix, *kept, *special.suffix))
                    ends.append(len(flat))
            if progress is not None:
                progress(start + len(chunk), len(lines))
        if len(ends) == 1:
            raise InputError(f"none of {len(lines)} lines gives a token that the tokenizer knows; give other text")
        return cls(np.frombuffer(flat, np.int32), np.frombuffer(ends, np.int64), special, len(lines) - len(ends) + 1)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> npt.NDArray[np.int32]:
        """Return the ids of line `index` (0-based), int32 [length], as a view."""
        if not 0 <= index < len(self):
            raise IndexError(f"line {index} of {len(self)}")
        return self.flat[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each line with its special ones, int64 [lines]."""
        return np.diff(self.offsets)
