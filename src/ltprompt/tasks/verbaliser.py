"""Verbalisers: label -> word -> pieces of the vocabulary, and the labels' logits from the pieces' (section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ltprompt.backbone.tokens import SpecialTokens, encode
from ltprompt.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORD_START = "▁"  # SentencePiece's mark; a lone one carries nothing of the word that follows


@dataclass(frozen=True, eq=False)
class Verbaliser:
    """The words of a label set in a tokenizer's vocabulary.

    labels, words: in the order of the classes. piece_ids: the pieces whose mean logit scores each label.
    flat_ids: the rows of the output matrix that are needed, each once, ascending.
    notes: a line for every word that is not one piece. average: fp64 [labels, len(flat_ids)], rows sum to 1.
    """

    labels: tuple[str, ...]
    words: tuple[str, ...]
    piece_ids: tuple[tuple[int, ...], ...]
    flat_ids: tuple[int, ...]
    notes: tuple[str, ...]
    average: Tensor

    @classmethod
    def build(cls, words: Mapping[str, str], tokenizer: PreTrainedTokenizerBase) -> Verbaliser:
        """Tokenise label -> word, each word on its own and without outer white space.

        Raises `InputError` for a word that the tokenizer does not know and for two labels with equal pieces.
        """
        words = {label: word.strip() for label, word in words.items()}
        unknown = SpecialTokens.of(tokenizer).unknown
        whole = [tuple(ids) for ids in encode(tokenizer, list(words.values()))]
        tokens = [tuple(tokenizer.convert_ids_to_tokens(list(ids))) for ids in whole]
        for (label, word), ids, shown in zip(words.items(), whole, tokens, strict=True):
            if unknown in ids or not "".join(shown).strip(WORD_START):
                raise InputError(f"the tokenizer does not know the word {word!r} of label {label!r}; choose another")
        piece_ids = tuple(
            ids[1:] if len(ids) > 1 and shown[0] == WORD_START else ids
            for ids, shown in zip(whole, tokens, strict=True)
        )
        _refuse_equal(words, piece_ids)
        flat_ids = tuple(sorted({id_ for ids in piece_ids for id_ in ids}))
        notes = tuple(
            _note(label, word, shown, len(ids))
            for (label, word), shown, ids in zip(words.items(), tokens, piece_ids, strict=True)
            if len(shown) > 1
        )
        return cls(tuple(words), tuple(words.values()), piece_ids, flat_ids, notes, _average(piece_ids, flat_ids))

    def label_logits(self, piece_logits: Tensor) -> Tensor:
        """Return [batch, labels] from the logits of `flat_ids`, [batch, len(flat_ids)], in their dtype.

        A product and a sum, not a matrix product: autocast would run that one in its lower precision.
        """
        return (piece_logits.unsqueeze(1) * self.average.to(piece_logits)).sum(-1)


def _average(piece_ids: tuple[tuple[int, ...], ...], flat_ids: tuple[int, ...]) -> Tensor:
    average = torch.zeros(len(piece_ids), len(flat_ids), dtype=torch.float64)
    for row, ids in enumerate(piece_ids):
        for id_ in ids:  # a piece may stand twice in a word
            average[row, flat_ids.index(id_)] += 1 / len(ids)
    return average


def _refuse_equal(words: Mapping[str, str], piece_ids: tuple[tuple[int, ...], ...]) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for label, ids in zip(words, piece_ids, strict=True):
        other = seen.setdefault(tuple(sorted(ids)), label)  # the mean does not see the order of pieces
        if other != label:
            raise InputError(
                f"the words {words[other]!r} of label {other!r} and {words[label]!r} of label {label!r} have equal "
                "pieces, so no logit can tell them apart; choose another word for one"
            )


def _note(label: str, word: str, shown: tuple[str, ...], scored: int) -> str:
    how = f"scored by {shown[-1]}" if scored == 1 else f"scored by the mean logit of {' '.join(shown[-scored:])}"
    return f"the word {word!r} of label {label!r} is {len(shown)} pieces ({' '.join(shown)}), {how}"
