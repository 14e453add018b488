"""Where a ticket's entries lie (paper section 5, Figure 3) and how far two tickets agree."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from ltprompt.backbone.parameters import EligibleParameter, total
from ltprompt.errors import MismatchError
from ltprompt.terminal import Sheet
from ltprompt.tickets.ticket import Ticket, popcount

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Part:
    """The part of a ticket that lies in one layer or in one kind of module.

    entries: number of the ticket's entries there.
    share: entries over the ticket's size; 0 for an empty ticket.
    parameters: number of eligible scalars there.
    parameter_share: parameters over the size of the eligible set.
    enrichment: share over parameter_share; 1 where a random ticket would be, 0 for an empty ticket.
    """

    entries: int
    share: float
    parameters: int
    parameter_share: float
    enrichment: float


@dataclass(frozen=True)
class Distribution:
    """A ticket's entries by layer (0 = the embeddings) and by kind of module; parts without an entry are listed too.

    entries: K, the ticket's size. parameters: size of the eligible set. active_ratio: entries over parameters.
    zero_entries: entries whose score is 0.
    """

    by_layer: dict[int, Part]
    by_kind: dict[str, Part]
    entries: int
    parameters: int
    active_ratio: float
    zero_entries: int

    def to_json(self) -> dict[str, Any]:
        """Return the distribution as plain JSON."""
        return _plain(asdict(self))

    def sheets(self) -> list[Sheet]:
        """Return what is shown: the entries by layer, then by kind of module."""
        return [_parts("layer", self.by_layer), _parts("module", self.by_kind)]

    def _repr_html_(self) -> str:
        return "".join(sheet.html() for sheet in self.sheets())

    def __repr__(self) -> str:
        parts = f"{len(self.by_layer)} layers, {len(self.by_kind)} kinds of module"
        return f"Distribution({self.entries:,} of {self.parameters:,} entries, {parts})"


@dataclass(frozen=True)
class Overlap:
    """How far two tickets a and b agree in some part of the eligible set.

    a, b: their entries there. parameters: the eligible scalars there, n.
    intersection, union: entries in both, entries in either. iou: their quotient, 0 where the union is empty.
    chance_intersection: a * b / n, what two random tickets of these sizes are expected to share.
    chance_iou: the quotient that this intersection gives.
    """

    a: int
    b: int
    parameters: int
    intersection: int
    union: int
    iou: float
    chance_intersection: float
    chance_iou: float


@dataclass(frozen=True)
class Comparison:
    """The overlap of two tickets, as a whole and by layer (0 = the embeddings)."""

    overall: Overlap
    by_layer: dict[int, Overlap]

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain JSON."""
        return _plain(asdict(self))

    def sheet(self) -> Sheet:
        """Return what is shown: the overlap as a whole, then by layer."""
        header = ["layer", "first", "second", "in both", "by chance", "IoU", "IoU by chance"]
        parts = {"all": self.overall, **{str(layer): part for layer, part in self.by_layer.items()}}
        return Sheet(header, [[name, *_cells(part)] for name, part in parts.items()])

    def _repr_html_(self) -> str:
        return self.sheet().html()

    def __repr__(self) -> str:
        found = self.overall
        return f"Comparison({found.intersection:,} in both, IoU {found.iou:.3f}, {found.chance_iou:.3f} by chance)"


def distribution(ticket: Ticket) -> Distribution:
    """Count a ticket's entries by layer and by kind of module."""
    return Distribution(
        by_layer={layer: _part(ticket, group) for layer, group in _group(ticket.parameters, _layer).items()},
        by_kind={kind: _part(ticket, group) for kind, group in _group(ticket.parameters, _kind).items()},
        entries=ticket.size,
        parameters=total(ticket.parameters),
        active_ratio=ticket.active_ratio,
        zero_entries=ticket.zero_entries,
    )


def compare(a: Ticket, b: Ticket) -> Comparison:
    """Measure how far two tickets of one backbone agree.

    Their strategies may differ. A ticket found with ``frozen-embeddings`` has a smaller eligible set: it is compared
    within the larger one, where it simply has no entry in the embeddings, so that the other's embedding entries count
    in the union. The overlap by chance, a * b / n with n of the larger set, then still is what a random ticket gives.

    Raises `MismatchError` for tickets of different backbones, or where neither eligible set contains the other.
    """
    if a.fingerprint != b.fingerprint:
        raise MismatchError(
            f"the tickets are for different backbones, {a.fingerprint[:12]} and {b.fingerprint[:12]}; "
            "compare tickets of one backbone"
        )
    larger, smaller = (a, b) if len(a.parameters) >= len(b.parameters) else (b, a)
    outside = set(smaller.parameters) - set(larger.parameters)
    if outside:
        names = ", ".join(sorted(parameter.name for parameter in outside)[:3])
        raise MismatchError(
            f"the tickets have different eligible sets (only one holds {names}); compare tickets of one backbone"
        )
    by_layer = _group(larger.parameters, _layer)
    return Comparison(
        overall=_overlap(a, b, larger.parameters),
        by_layer={layer: _overlap(a, b, group) for layer, group in by_layer.items()},
    )


def _layer(parameter: EligibleParameter) -> int:
    return parameter.layer


def _kind(parameter: EligibleParameter) -> str:
    return parameter.kind


def _group(
    parameters: Sequence[EligibleParameter], key: Callable[[EligibleParameter], Key]
) -> dict[Key, list[EligibleParameter]]:
    """Return the parameters by key, the keys in the order of their first parameter."""
    groups: dict[Key, list[EligibleParameter]] = {}
    for parameter in parameters:
        groups.setdefault(key(parameter), []).append(parameter)
    return groups


def _part(ticket: Ticket, group: Sequence[EligibleParameter]) -> Part:
    entries = sum(ticket.count(parameter.name) for parameter in group)
    parameters = total(group)
    share = _quotient(entries, ticket.size)
    parameter_share = _quotient(parameters, total(ticket.parameters))
    return Part(entries, share, parameters, parameter_share, _quotient(share, parameter_share))


def _overlap(a: Ticket, b: Ticket, group: Sequence[EligibleParameter]) -> Overlap:
    names = [parameter.name for parameter in group]
    entries_a = _entries(a, names)
    entries_b = _entries(b, names)
    intersection = sum(popcount(a.bitmaps[n] & b.bitmaps[n]) for n in names if n in a.bitmaps and n in b.bitmaps)
    union = entries_a + entries_b - intersection
    parameters = total(group)
    chance = _quotient(entries_a * entries_b, parameters)
    return Overlap(
        a=entries_a,
        b=entries_b,
        parameters=parameters,
        intersection=intersection,
        union=union,
        iou=_quotient(intersection, union),
        chance_intersection=chance,
        chance_iou=_quotient(chance, entries_a + entries_b - chance),
    )


def _entries(ticket: Ticket, names: Sequence[str]) -> int:
    """Return the ticket's entries in the named tensors; one that is not eligible for it has none."""
    return sum(popcount(ticket.bitmaps[name]) for name in names if name in ticket.bitmaps)


def _parts(name: str, parts: Mapping[Any, Part]) -> Sheet:
    header = [name, "entries", "of ticket", "of parameters", "enrichment"]
    rows = [
        [str(key), f"{part.entries:,}", f"{part.share:.2%}", f"{part.parameter_share:.2%}", f"{part.enrichment:.2f}"]
        for key, part in parts.items()
    ]
    return Sheet(header, rows)


def _cells(part: Overlap) -> list[str]:
    counts = (f"{part.a:,}", f"{part.b:,}", f"{part.intersection:,}", f"{part.chance_intersection:,.0f}")
    return [*counts, f"{part.iou:.3f}", f"{part.chance_iou:.3f}"]


def _quotient(over: float, under: float) -> float:
    """Return over / under, and 0 for a quotient over nothing, so that every number can be written as JSON."""
    return over / under if under else 0.0


def _plain(data: dict[Any, Any]) -> dict[str, Any]:
    """Return nested dictionaries with text keys, as JSON has them."""
    return {str(key): _plain(value) if isinstance(value, dict) else value for key, value in data.items()}
