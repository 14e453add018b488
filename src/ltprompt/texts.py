"""Results as text for people: aligned tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltprompt.distribution import Comparison, Distribution, Part
    from ltprompt.pipeline import Evaluation


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def show_distribution(header: Mapping[str, Any], found: Distribution, *, kinds: bool = True) -> str:
    """Return a ticket's size and its entries by layer (0 = embeddings) and, if wished, by kind of module."""
    lines = [
        f"{found.entries:,} of {found.parameters:,} eligible parameters ({found.active_ratio:.2%}); "
        f"strategy {header['strategy']}, ratio {header['ratio']:g}, scope {header['scope']}, layers {header['layers']}",
        f"entries that never moved (score 0): {found.zero_entries:,}",
        "",
        _parts("layer", {str(layer): part for layer, part in found.by_layer.items()}),
        "",
        *([_parts("module", found.by_kind), ""] if kinds else []),
        "layer 0: the embeddings; enrichment: share of the ticket over share of the parameters",
    ]
    return "\n".join(lines)


def show_comparison(first: str, second: str, found: Comparison) -> str:
    """Return the overlap of two tickets, as a whole and by layer."""
    header = ["layer", "first", "second", "in both", "by chance", "IoU", "IoU by chance"]
    parts = {"all": found.overall, **{str(layer): part for layer, part in found.by_layer.items()}}
    rows = [
        [
            name,
            f"{part.a:,}",
            f"{part.b:,}",
            f"{part.intersection:,}",
            f"{part.chance_intersection:,.0f}",
            f"{part.iou:.3f}",
            f"{part.chance_iou:.3f}",
        ]
        for name, part in parts.items()
    ]
    return f"first: {first}\nsecond: {second}\n{table(header, rows)}"


def show_evaluation(found: Evaluation) -> str:
    """Return accuracy and macro-F1 by language, their means and the confusion matrices."""
    rows = [
        [language, str(part.size), f"{part.accuracy:.2%}", f"{part.macro_f1:.2%}"]
        for language, part in found.by_language.items()
    ]
    mean = ["mean", "", f"{found.mean['accuracy']:.2%}", f"{found.mean['macro_f1']:.2%}"]
    parts = [table(["language", "examples", "accuracy", "macro-F1"], [*rows, mean])]
    for language, part in found.by_language.items():
        confusion = [[gold, *map(str, row)] for gold, row in zip(found.labels, part.confusion, strict=True)]
        parts.append(table([f"{language}: gold \\ predicted", *found.labels], confusion))
    return "\n\n".join(parts)


def _parts(name: str, parts: Mapping[str, Part]) -> str:
    header = [name, "entries", "of ticket", "of parameters", "enrichment"]
    rows = [
        [key, f"{part.entries:,}", f"{part.share:.2%}", f"{part.parameter_share:.2%}", f"{part.enrichment:.2f}"]
        for key, part in parts.items()
    ]
    return table(header, rows)
