"""Results as text for people: aligned tables, which on a terminal that is too narrow lack columns and say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ltprompt.terminal import stdout_width, table
from ltprompt.tickets.ticket import COMBINATIONS

if TYPE_CHECKING:
    from ltprompt.classifier import PromptClassifier
    from ltprompt.stage2.measures import Evaluation
    from ltprompt.tasks.check import TableReport, TaskReport
    from ltprompt.tickets.distribution import Comparison, Distribution


def show_distribution(header: Mapping[str, Any], found: Distribution) -> str:
    """Return a ticket's size and its entries by layer (0 = embeddings) and by kind of module.

    header: the ticket's strategy, ratio, scope and layers, and, unless they are ``delta`` and None, criterion and seed.
    """
    criterion, seed = header.get("criterion", "delta"), header.get("seed")
    zero = "that never moved (score 0)" if criterion == "delta" else "of score 0"
    lines = [
        f"{found.entries:,} of {found.parameters:,} eligible parameters ({found.active_ratio:.2%}); "
        f"strategy {header['strategy']}, ratio {header['ratio']:g}, scope {header['scope']}, layers {header['layers']}"
        f", criterion {criterion}{'' if seed is None else f', seed {seed}'}",
        *([] if criterion in COMBINATIONS else [f"entries {zero}: {found.zero_entries:,}"]),
        "",
        "\n\n".join(sheet.text(stdout_width()) for sheet in found.sheets()),
        "",
        "layer 0: the embeddings; enrichment: share of the ticket over share of the parameters",
    ]
    return "\n".join(lines)


def show_comparison(first: str, second: str, found: Comparison) -> str:
    """Return the overlap of two tickets, as a whole and by layer."""
    return f"first: {first}\nsecond: {second}\n{found.sheet().text(stdout_width())}"


def show_evaluation(found: Evaluation) -> str:
    """Return accuracy and macro-F1 by language, their means and the confusion matrices."""
    width = stdout_width()
    return "\n\n".join(sheet.text(width) for sheet in found.sheets(width))


def show_precision(classifier: PromptClassifier, asked: str) -> str:
    """Return the dtype that a loaded classifier computes in, beside the one that it was trained in.

    asked: what ``--dtype`` was.
    """
    used = classifier.resolved.compute.dtype_name
    trained = None if classifier.adapter is None else classifier.adapter.dtype
    if trained in (used, None):
        return f"computed in {used}{', as trained' if trained else ''}"
    why = f", for which {classifier.resolved.compute.device} has no instructions here" if asked == "auto" else ""
    return f"computed in {used}; the adapter was trained in {trained}{why}"


def show_task_report(found: TaskReport) -> str:
    """Return a task as a tokenizer sees it: templates, label words and, by table, labels, lengths and splitting."""
    blocks = [f"task {found.task} on the tokenizer of {found.backbone}; label words and pattern in {found.language!r}"]
    for style, filled in found.templates.items():
        tokens = " ".join(filled.tokens)
        blocks.append(f"{style} template\n  {filled.text}\n  {len(filled.tokens)} tokens: {tokens}")
    words = [[label, word.word, " ".join(word.pieces)] for label, word in found.words.items()]
    blocks.append(
        "\n".join(
            [table(["label", "word", "scored by"], words, stdout_width()), *(f"note: {note}" for note in found.notes)]
        )
    )
    if not found.tables:
        return "\n\n".join([*blocks, "add --data TABLE for lengths, label counts and how your language is split"])
    blocks.append("\n".join(f"{part.name}: {_rows_and_labels(part)}" for part in found.tables))
    blocks.append(_lengths(found))
    blocks.append(_splitting(found))
    blocks.append("\n".join(f"{part.name}: {part.advice}" for part in found.tables))
    return "\n\n".join(blocks)


def _rows_and_labels(part: TableReport) -> str:
    if part.labels is None:
        return f"{part.rows:,} rows, read without labels"
    counts = ", ".join(f"{label} {count:,}" for label, count in part.labels.items())
    missing = [label for label, count in part.labels.items() if not count]
    if missing:
        verdict = f"no example of {', '.join(missing)}, so it cannot be trained on"
    elif len(set(part.labels.values())) == 1:
        verdict = "balanced"
    else:
        verdict = f"not balanced: {min(part.labels.values()):,} to {max(part.labels.values()):,} a class"
    return f"{part.rows:,} rows; {counts} ({verdict})"


def _lengths(found: TaskReport) -> str:
    header = ["tokens a row, uncut", "min", "median", "95 %", "max", f"cut at {found.max_length}"]
    rows = [
        [
            f"{part.name}, {style}",
            *map(str, (length.minimum, length.median, length.percentile_95, length.maximum)),
            f"{length.truncated:,} of {part.rows:,}",
        ]
        for part in found.tables
        for style, length in part.lengths.items()
    ]
    return table(header, rows, stdout_width())


def _splitting(found: TaskReport) -> str:
    parts = [(part.name, part.splitting, part.times_english) for part in found.tables]
    rows = [
        [name, f"{part.words:,}", _two_digits(part.pieces_a_word), _two_digits(times), f"{part.unknown_share:.1%}"]
        for name, part, times in [*parts, ("English (embedded)", found.english, 1.0)]
    ]
    return table(["how texts are split", "words", "pieces a word", "times English", "unknown"], rows, stdout_width())


def _two_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
