from __future__ import annotations

import re
import string
from collections.abc import Callable

import pytest
from helpers.toy_tokenizers import TOKENIZERS, mini, unigram, wordpiece
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from ltprompt.errors import InputError
from ltprompt.tasks import Task, load_task, parse_task
from ltprompt.tasks.template import Template, clean, kept_lengths

Maker = Callable[[], PreTrainedTokenizerBase]
XNLI = load_task("xnli")
PAIR = ("The cat sat on a mat.", " maybe no cat! ")


def build(tokenizer: PreTrainedTokenizerBase, style: str, language: str = "en", max_length: int = 256) -> Template:
    return Template.build(
        XNLI.template_for(style, language),
        XNLI.columns,
        tokenizer,
        prompt_length=4,
        max_length=max_length,
        strip_punctuation=True,
    )


def reference(tokenizer: PreTrainedTokenizerBase, pieces: list[str | int]) -> list[int]:
    """Tokenise each piece plainly, put the ids together and the special tokens around."""
    ids = [tokenizer.cls_token_id]
    for piece in pieces:
        ids += [piece] if isinstance(piece, int) else tokenizer(piece, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id or tokenizer.sep_token_id]


@pytest.mark.parametrize("make", TOKENIZERS)
@pytest.mark.parametrize(
    ("language", "question", "answer"),
    [("en", "Question:", "Answer:"), ("zh", "问题：", "答案："), ("vi", "Câu hỏi:", "Câu trả lời:")],
)
def test_ids_piece_by_piece(make: Maker, language: str, question: str, answer: str) -> None:
    tokenizer = make()
    mask = tokenizer.mask_token_id
    premise, hypothesis = "The cat sat on a mat", "maybe no cat"
    expected = {
        "soft": [premise, ".", hypothesis, "?", -1, -2, -3, -4, mask, "."],
        "discrete": [premise, ".", question, hypothesis, "?", answer, mask, "."],
        "mixed": [premise, ".", question, hypothesis, "?", -1, -2, -3, -4, answer, mask, "."],
    }
    for style, pieces in expected.items():
        (example,) = build(tokenizer, style, language).encode([PAIR])
        assert example.ids.tolist() == reference(tokenizer, pieces)
        assert example.ids[example.read_at] == mask


def test_the_real_full_stop_is_two_pieces() -> None:
    template = build(mini(), "soft")
    (example,) = template.encode([("right.", "wrong")])
    assert " ".join(template.pieces(example)) == (
        "<s> ▁right ▁ . ▁wrong ▁? <p1> <p2> <p3> <p4> <mask> ▁ . </s>"
    )  # fmt: skip


def test_pieces_of_a_toy() -> None:
    template = build(wordpiece(), "mixed")
    (example,) = template.encode([("right!", "wrong")])
    shown = "[CLS] right . que ##s ##t ##i ##o ##n : wrong ? <p1> <p2> <p3> <p4> an ##s ##w ##e ##r : [MASK] . [SEP]"
    assert " ".join(template.pieces(example)) == shown


@pytest.mark.parametrize("make", TOKENIZERS)
def test_a_special_token_in_a_text_is_unknown(make: Maker) -> None:
    tokenizer = make()
    text = f"a {tokenizer.mask_token} cat {tokenizer.pad_token} sat"
    (example,) = build(tokenizer, "soft").encode([(text, "no")])
    ids = example.ids.tolist()
    assert ids.count(tokenizer.mask_token_id) == 1
    assert ids.count(tokenizer.pad_token_id) == 0
    assert ids.count(tokenizer.unk_token_id) >= 2
    assert ids[example.read_at] == tokenizer.mask_token_id


def longest_first(lengths: list[int], room: int) -> list[int]:
    """Cut one token at a time from the longest field, the later one of equals."""
    kept = list(lengths)
    while sum(kept) > room:
        longest = max(kept)
        kept[max(index for index, length in enumerate(kept) if length == longest)] -= 1
    return kept


@given(st.lists(st.integers(0, 25), min_size=1, max_size=4), st.integers(0, 40))
def test_kept_lengths_equal_one_at_a_time(lengths: list[int], slack: int) -> None:
    room = len(lengths) + slack
    assert kept_lengths(lengths, room) == longest_first(lengths, room)


words = st.lists(
    st.sampled_from(("the", "cat", "sat", "on", "a", "mat", "no", ".", ",", "是", "zq")), min_size=1, max_size=30
).map(" ".join)


@given(
    st.lists(st.tuples(words, words), min_size=1, max_size=3),
    st.sampled_from(["soft", "discrete", "mixed"]),
    st.sampled_from([unigram, wordpiece]),
    st.integers(2, 30),
)
def test_truncation_shortens_only_the_texts(texts: list[tuple[str, str]], style: str, make: Maker, room: int) -> None:
    tokenizer = make()
    whole = build(tokenizer, style, max_length=10_000)
    max_length = 10_000 - whole.room + room
    cut = build(tokenizer, style, max_length=max_length)
    for pair, example in zip(texts, cut.encode(texts), strict=True):
        fields = [
            tokenizer(clean(text, True), add_special_tokens=False)["input_ids"] for text in pair
        ]  # fmt: skip
        kept = longest_first([len(field) for field in fields], room)
        slots = [-1, -2, -3, -4] if style != "discrete" else []
        question, answer = ([], []) if style == "soft" else (["Question:"], ["Answer:"])
        after = reference(tokenizer, ["?", *slots, *answer, tokenizer.mask_token_id, "."])[1:]
        between = reference(tokenizer, [".", *question])[1:-1]
        expected = [tokenizer.cls_token_id, *fields[0][: kept[0]], *between, *fields[1][: kept[1]], *after]
        assert example.ids.tolist() == expected
        assert len(expected) <= max_length
        assert example.read_at == len(expected) - len(after) + after.index(tokenizer.mask_token_id)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" a cat. ", "a cat"),
        ("a cat ?!", "a cat"),
        ("...", "..."),
        (" ?! ", "?!"),
        ("(a) cat", "(a) cat"),
        ("是。", "是。"),
        (f"x{string.punctuation}", "x"),
        ("a 'b' .", "a 'b'"),
    ],
)
def test_trailing_punctuation(text: str, expected: str) -> None:
    assert clean(text, True) == expected
    assert clean(text, False) == text.strip()


def test_single_text_task() -> None:
    task = Task(
        name="mood",
        labels=("up", "down"),
        columns=("text",),
        templates={"soft": ("{prompt}", "{text}", "{mask}")},
        words={"en": {"up": "good", "down": "bad"}},
        strip_punctuation=False,
        languages=("en",),
    )
    template = Template.build(
        task.template_for("soft", "en"),
        task.columns,
        wordpiece(),
        prompt_length=2,
        max_length=7,
        strip_punctuation=task.strip_punctuation,
    )
    example, short = template.encode([("the cat sat.",), ("no",)])
    assert template.pieces(example) == ["[CLS]", "<p1>", "<p2>", "the", "cat", "[MASK]", "[SEP]"]
    assert template.pieces(short) == ["[CLS]", "<p1>", "<p2>", "no", "[MASK]", "[SEP]"]
    assert (example.read_at, template.prompt_length) == (5, 2)


def test_discrete_has_no_prompt() -> None:
    assert build(unigram(), "discrete").prompt_length == 0
    assert build(unigram(), "soft").encode([]) == []


def test_too_short_a_length_names_the_need() -> None:
    with pytest.raises(InputError, match=r"takes 10 tokens .*premise, hypothesis .*raise `max_length` to 12 or more"):
        build(wordpiece(), "soft", max_length=11)
    template = build(wordpiece(), "soft", max_length=12)
    assert "the . no ?" in " ".join(template.pieces(template.encode([("the cat", "no cat")])[0]))


@pytest.mark.parametrize(
    ("parts", "length", "message"),
    [
        (["{premise}", "{hypotesis}", "{mask}"], 4, "unknown name '{hypotesis}'.* did you mean 'hypothesis'"),
        (["{premise}", "{hypothesis}"], 4, "needs {mask} exactly once"),
        (["{premise}", "{premise}", "{hypothesis}", "{mask}"], 4, "needs {premise} exactly once"),
        (["{premise}", "{hypothesis}", "{prompt}", "{mask}"], 0, "`prompt_length` must be at least 1, found 0"),
    ],
)
def test_unsound_parts(parts: list[str], length: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Template.build(
            parts, XNLI.columns, unigram(), prompt_length=length, max_length=64, strip_punctuation=True
        )  # fmt: skip


@pytest.mark.parametrize("make", TOKENIZERS)
def test_a_part_that_spells_a_special_token_is_refused(make: Maker) -> None:
    tokenizer = make()
    mends = {tokenizer.mask_token: r"write {mask}$", tokenizer.sep_token: "remove it, it is added where it belongs$"}
    for token, mend in mends.items():
        parts = ["{premise}", "{hypothesis}", f"is {token}.", "{mask}"]
        with pytest.raises(InputError, match=re.escape(f"'is {token}.' of a template spells") + f".*{mend}"):
            Template.build(parts, XNLI.columns, tokenizer, prompt_length=4, max_length=64, strip_punctuation=True)


def test_a_pattern_word_that_spells_the_mask_is_refused() -> None:
    patterns = {language: {**words, "answer": "<mask>"} for language, words in XNLI.pattern_words.items()}
    task = parse_task({**XNLI.model_dump(), "pattern_words": patterns}, "toy")
    with pytest.raises(InputError, match=r"spells the special token '<mask>'; write \{mask\}$"):
        Template.build(
            task.template_for("mixed", "sw"),
            task.columns,
            unigram(),
            prompt_length=4,
            max_length=64,
            strip_punctuation=True,
        )
