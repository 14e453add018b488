"""What a task looks like to a tokenizer: filled templates, label words, lengths, and how a language is split."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ltprompt.backbone.tokens import CHUNK, encode
from ltprompt.errors import InputError
from ltprompt.tasks import Rows, Task, label_counts, load_task, read_rows
from ltprompt.tasks.task import MASK, PROMPT, placeholder
from ltprompt.tasks.template import Template, clean
from ltprompt.tasks.verbaliser import Verbaliser

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Rules of thumb, not measurements: where the advice changes.
FINER = 1.5  # times the pieces a word of English
UNREADABLE = 0.1  # share of unknown pieces
PATCHY = 0.01
SHOWN_WORDS = 5

# Scripts written without spaces between words, as Unicode names of letters begin. A run of letters longer than a word
# tells raw text from text that was cut into words beforehand.
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
LONGEST_MEAN_WORD = 6


@dataclass(frozen=True)
class FilledTemplate:
    """One template with one example in it.

    text: its parts with a space between, as a person reads it. tokens: what the backbone reads, cut to the length
    allowed.
    """

    text: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class LabelWord:
    """A label's word and the pieces whose mean logit scores it."""

    word: str
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class Lengths:
    """Lengths in tokens of one template filled with each row, special tokens included, before anything is cut.

    Percentiles are lengths that occur: the smallest that at least that share of the rows does not exceed.
    truncated: rows longer than the length allowed, whose texts are cut.
    """

    minimum: int
    median: int
    percentile_95: int
    maximum: int
    truncated: int


@dataclass(frozen=True)
class Splitting:
    """How finely a tokenizer splits texts.

    words: what white space parts, where a letter or digit is in it. pieces: tokens, special ones apart.
    pieces_a_word: None for texts without words and for those written without spaces. unknown_share: unknown tokens
    over pieces. unknown_words: the most frequent words that give one.
    """

    words: int
    pieces: int
    pieces_a_word: float | None
    unknown_share: float
    unknown_words: tuple[str, ...]


@dataclass(frozen=True)
class TableReport:
    """One table of the user's.

    labels: label -> rows, or None where it was read without labels. lengths: style of template -> lengths.
    times_english: its pieces a word over English's, or None where words cannot be counted.
    """

    name: str
    rows: int
    labels: dict[str, int] | None
    lengths: dict[str, Lengths]
    splitting: Splitting
    times_english: float | None
    advice: str


@dataclass(frozen=True)
class TaskReport:
    """A task seen through a tokenizer.

    templates: style -> filled template. words: label -> word and pieces. notes: a line for every word that is not one
    piece. english: how the embedded English sentences are split.
    """

    task: str
    backbone: str
    language: str
    max_length: int
    templates: dict[str, FilledTemplate]
    words: dict[str, LabelWord]
    notes: tuple[str, ...]
    english: Splitting
    tables: tuple[TableReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        return f"TaskReport({self.task}, {self.backbone}, {self.language}, {len(self.tables):,} tables)"


def report_task(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    tables: Sequence[Rows] = (),
    *,
    backbone: str,
    language: str,
    prompt_length: int,
    max_length: int,
) -> TaskReport:
    """Report on a task and its tables, the first row of the first table filling the templates.

    backbone: the tokenizer's name, for the record. Raises `InputError` for a language without words, a word that the
    tokenizer cannot tell from others, and a `max_length` that the template or the tokenizer does not allow.
    """
    if max_length > tokenizer.model_max_length:
        raise InputError(f"`max_length` {max_length} is more than {backbone} reads: {tokenizer.model_max_length}")
    words = Verbaliser.build(task.words_for(language), tokenizer)
    templates = {
        style: Template.build(
            task.template_for(style, language),
            task.columns,
            tokenizer,
            prompt_length=prompt_length,
            max_length=max_length,
            strip_punctuation=task.strip_punctuation,
        )
        for style in task.templates
    }
    example = tables[0].texts[0] if tables else tuple(f"an example {column}" for column in task.columns)
    filled = {
        style: _fill(template, task.template_for(style, language), task, example)
        for style, template in templates.items()
    }
    scored = {
        label: LabelWord(word, tuple(tokenizer.convert_ids_to_tokens(list(ids))))
        for label, word, ids in zip(words.labels, words.words, words.piece_ids, strict=True)
    }
    english = splitting(tokenizer, _cleaned(english_texts(), task))
    reports = tuple(_report_table(rows, task, templates, max_length, english) for rows in tables)
    return TaskReport(task.name, backbone, language, max_length, filled, scored, words.notes, english, reports)


def english_texts() -> list[str]:
    """Return the embedded English sentences, which every language is held against."""
    with as_file(files("ltprompt") / "data" / "nli" / "train.en.tsv") as path:
        rows = read_rows(path, load_task("xnli"), labelled=False)
    return list(chain.from_iterable(rows.texts))


def splitting(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Splitting:
    """Measure how finely a tokenizer splits texts."""
    lengths, unknown = _measure(tokenizer, texts)
    return _splitting(tokenizer, texts, int(lengths.sum()), unknown)


def advise(found: Splitting, times_english: float | None) -> str:
    """Say in one line what a splitting means for the user."""
    if not found.words:
        return "no words found: only punctuation or symbols"
    if found.unknown_share >= UNREADABLE:
        return f"{found.unknown_share:.0%} unknown: the tokenizer cannot read this script; choose another backbone"
    if times_english is None:
        verdict = "no spaces between words, so pieces a word cannot be held against English"
    elif times_english < FINER:
        verdict = f"fine: {times_english:.1f} times the pieces a word of English"
    else:
        verdict = (
            f"split {times_english:.1f} times as finely as English: expect weaker transfer; prefer in-language examples"
        )
    if found.unknown_share < PATCHY:
        return verdict
    some = ", ".join(found.unknown_words)
    return f"{found.unknown_share:.0%} unknown (such as {some}): lost to the model, so spell it otherwise; {verdict}"


def _fill(template: Template, parts: Sequence[str], task: Task, example: tuple[str, ...]) -> FilledTemplate:
    fields = dict(zip(task.columns, _cleaned(example, task), strict=True))
    fields[PROMPT] = " ".join(f"<p{slot}>" for slot in range(1, template.prompt_length + 1))
    fields[MASK] = str(template.tokenizer.mask_token)
    text = " ".join(fields.get(placeholder(part) or "", part) for part in parts)
    return FilledTemplate(text, tuple(template.pieces(template.encode([example])[0])))


def _report_table(
    rows: Rows, task: Task, templates: dict[str, Template], max_length: int, english: Splitting
) -> TableReport:
    tokenizer = next(iter(templates.values())).tokenizer
    texts = _cleaned(chain.from_iterable(rows.texts), task)
    lengths, unknown = _measure(tokenizer, texts)
    found = _splitting(tokenizer, texts, int(lengths.sum()), unknown)
    times = found.pieces_a_word / english.pieces_a_word if found.pieces_a_word and english.pieces_a_word else None
    row_lengths = lengths.reshape(len(rows), -1).sum(axis=1)
    return TableReport(
        name=rows.name,
        rows=len(rows),
        labels=None if rows.labels is None else label_counts(rows, task),
        lengths={
            style: _lengths(row_lengths, template.room, max_length - template.room)
            for style, template in templates.items()
        },
        splitting=found,
        times_english=times,
        advice=advise(found, times),
    )


def _lengths(row_lengths: npt.NDArray[np.int64], room: int, fixed: int) -> Lengths:
    """Describe rows of `row_lengths` tokens of text, int64 [rows], in a template of `fixed` tokens around `room`."""
    filled = row_lengths + fixed
    low, median, high, top = np.quantile(filled, [0, 0.5, 0.95, 1], method="inverted_cdf").astype(int).tolist()
    return Lengths(low, median, high, top, int((row_lengths > room).sum()))


def _measure(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], int]:
    """Return the tokens of each text, int64 [texts], and how many of all are unknown; the ids are not kept."""
    unknown_id, lengths, unknown = tokenizer.unk_token_id, [], 0
    for start in range(0, len(texts), CHUNK):
        for ids in encode(tokenizer, texts[start : start + CHUNK]):
            lengths.append(len(ids))
            unknown += ids.count(unknown_id)
    return np.array(lengths, np.int64), unknown


def _splitting(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], pieces: int, unknown: int) -> Splitting:
    words = Counter(word for text in texts for word in text.split() if any(map(str.isalnum, word)))
    count = words.total()
    return Splitting(
        words=count,
        pieces=pieces,
        pieces_a_word=pieces / count if count and not _unspaced(words) else None,
        unknown_share=unknown / max(pieces, 1),
        unknown_words=_unknown_words(tokenizer, texts) if unknown else (),
    )


def _unspaced(words: Counter[str]) -> bool:
    """Whether words, with how often each occurs, are runs of a script that parts none."""
    letters: Counter[str] = Counter()
    for word, count in words.items():
        for letter in filter(str.isalpha, word):
            letters[letter] += count
    unspaced = sum(n for letter, n in letters.items() if unicodedata.name(letter, "").startswith(UNSPACED))
    return 2 * unspaced > letters.total() > LONGEST_MEAN_WORD * words.total()


def _unknown_words(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> tuple[str, ...]:
    words = [word for word, _ in Counter(word for text in texts for word in text.split()).most_common()]
    unknown_id, ids_of = tokenizer.unk_token_id, zip(words, encode(tokenizer, words), strict=True)
    return tuple([word for word, ids in ids_of if unknown_id in ids][:SHOWN_WORDS])


def _cleaned(texts: Iterable[str], task: Task) -> list[str]:
    return [clean(text, task.strip_punctuation) for text in texts]
