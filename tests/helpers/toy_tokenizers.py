"""Tokenizers small enough to read, built as XLM-R's and BERT's are, and the embedded real one."""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ltprompt.backbone.loading import load_tokenizer

WORDS: tuple[str, ...] = ("right", "wrong", "maybe", "good", "bad", "no", "sí", "talvez", "是", "否", "也许")
WORDS += ("Que", "s", "tion", "An", "swer", "问题", "答案", "：", "the", "cat", "sat", "on", "a", "mat")


@cache
def unigram() -> PreTrainedTokenizerBase:
    """Like XLM-R: Unigram over Metaspace; `是` and `.` take a lone `▁` before them, as there."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(token, 0.0) for token in special] + [("▁", -4.0)]
    pieces += [(f"▁{word}", -3.0) for word in WORDS if word.isascii()]
    pieces += [(word, -3.5) for word in (*WORDS, *"?.:,!;'")]
    pieces += [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz" if letter not in WORDS]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


@cache
def wordpiece() -> PreTrainedTokenizerBase:
    """Like BERT: lower-casing WordPiece."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [prefix + letter for letter in "abcdefghijklmnopqrstuvwxyz" for prefix in ("", "##")]
    words = [word.lower() for word in WORDS if word.lower() not in letters]
    vocabulary = dict.fromkeys([*special, *words, *"?.:,!;'", *letters])
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )


@cache
def mini() -> PreTrainedTokenizerBase:
    """The real tokenizer of the embedded backbone."""
    return load_tokenizer("mini", None)


TOKENIZERS = [unigram, wordpiece, mini]
