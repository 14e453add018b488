"""The paper's Figures 2a, 2b and 3 as data: curves over shots, over active ratios, and tickets by layer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from ltprompt.experiments.labels import cut_label, is_lottery, other_template, percent
from ltprompt.experiments.records import FIGURES, Results, RunRecord, TicketRecord, TicketSpec
from ltprompt.experiments.report.rows import Row, group_rows
from ltprompt.experiments.report.statistics import mean_and_deviation
from ltprompt.experiments.report.tables import AMERICAS

_ORDER = ("", "tied", "frozen-embeddings", "lower", "middle", "higher")
# The ratio of the paper's Figures 2a and 3.
_USUAL_RATIO = 0.2


@dataclass(frozen=True)
class Point:
    """A point of a curve: y, in the chart's unit, is the mean over seeds, deviation their sample deviation."""

    x: float
    y: float
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class Curve:
    """A line or a set of bars. rows: the table rows that its points are the means of; none for the bars of a ticket."""

    label: str
    points: tuple[Point, ...]
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A figure to be drawn. bars: bars and not lines. log: whether x grows by doubling. ticks: of the x axis."""

    layout: str
    title: str
    caption: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    bars: bool = False
    log: bool = False

    @property
    def ticks(self) -> tuple[float, ...]:
        """The x values of all points, ascending."""
        return tuple(sorted({point.x for curve in self.curves for point in curve.points}))

    @property
    def compares(self) -> bool:
        """Whether the figure shows more than tables do: cuts for 2a, ratios for 2b, any ticket for 3."""
        if self.layout == "figure2a":
            return len(self.curves) > 1
        return self.bars or len(self.ticks) > 1


def build_chart(results: Results, layout: str) -> Chart | None:
    """Return one of `FIGURES`; None where nothing of it is there yet."""
    if layout == "figure3":
        return _distributions(results.tickets)
    rows, seeds = _lottery_rows(results.runs)
    build = _strategies if layout == "figure2a" else _ratios
    return build(rows, seeds) if rows else None


@dataclass(frozen=True)
class _Mean:
    """A row with its mean accuracy over languages."""

    row: Row
    ticket: TicketSpec
    point: Point


def _lottery_rows(runs: Sequence[RunRecord]) -> tuple[list[_Mean], int]:
    """Return the zero-shot LTP rows with a mean over all languages, and how many seeds the zero-shot runs have.

    Runs of AmericasNLI count only where there are no others.
    """
    zero_shot = [run for run in runs if run.spec.setting == "zero-shot"]
    rows = group_rows([run for run in zero_shot if run.spec.task != AMERICAS] or zero_shot)
    languages = sorted({language for row in rows for language in row.languages})
    found = []
    for row in rows:
        values = row.accuracies(languages)
        if values and row.spec.ticket and is_lottery(row.spec) and not other_template(row.spec):
            mean, deviation = mean_and_deviation(values)
            found.append(_Mean(row, row.spec.ticket, Point(0, mean, deviation, len(values))))
    return found, len({seed for row in rows for seed, _ in row.results})


def _strategies(means: Sequence[_Mean], seeds: int) -> Chart:
    ratio = _ratio([each.ticket for each in means])
    chosen = [each for each in means if each.ticket.ratio == ratio]
    return Chart(
        layout="figure2a",
        title=FIGURES["figure2a"],
        caption=f"Active ratio {percent(ratio)}. {_explained(chosen, seeds)}",
        x_label="shots (examples a class)",
        y_label="mean accuracy over languages (%)",
        curves=_curves(
            chosen,
            lambda each: _joined(each.ticket.name or _cut(each.ticket), each.row.variant),
            lambda each: each.row.spec.shots,
        ),
        log=True,
    )


def _ratios(means: Sequence[_Mean], seeds: int) -> Chart:
    families: dict[Hashable, set[float]] = {}
    for each in means:
        families.setdefault(_ratio_family(each), set()).add(each.ticket.ratio)
    most = min(2, max(len(ratios) for ratios in families.values()))
    chosen = [each for each in means if len(families[_ratio_family(each)]) >= most]
    plain = len({cut_label(each.ticket) for each in chosen}) == 1
    return Chart(
        layout="figure2b",
        title=FIGURES["figure2b"],
        caption=_explained(chosen, seeds),
        x_label="active ratio (%)",
        y_label="mean accuracy over languages (%)",
        curves=_curves(
            chosen,
            lambda each: _joined(_shots(each.row.spec.shots), "" if plain else _cut(each.ticket), each.row.variant),
            lambda each: 100 * each.ticket.ratio,
        ),
    )


def _distributions(tickets: Sequence[TicketRecord]) -> Chart | None:
    moved = [ticket for ticket in tickets if ticket.spec.criterion == "delta"]
    whole = [ticket for ticket in moved if ticket.spec.layers == "all"] or moved
    if not whole:
        return None
    ratio = _ratio([ticket.spec for ticket in whole])
    chosen = sorted(
        (ticket for ticket in whole if ticket.spec.ratio == ratio),
        key=lambda ticket: (_rank(cut_label(ticket.spec)), ticket.spec.sha256, ticket.fingerprint),
    )
    names = [_cut(ticket.spec) for ticket in chosen]
    curves = [
        Curve(name if names.count(name) == 1 else f"{name} {ticket.spec.sha256[:8]}", _layers(ticket))
        for name, ticket in zip(names, chosen, strict=True)
    ]
    return Chart(
        layout="figure3",
        title=FIGURES["figure3"],
        caption=f"Entries of the tickets by layer at an active ratio of {percent(ratio)}; 0 denotes the embeddings.",
        x_label="layer (0 denotes the embeddings)",
        y_label="entries of the ticket",
        curves=tuple(curves),
        bars=True,
    )


def _layers(ticket: TicketRecord) -> tuple[Point, ...]:
    layers = ticket.distribution["by_layer"]
    return tuple(Point(int(layer), layers[layer]["entries"], None, 0) for layer in sorted(layers, key=int))


def _curves(means: Sequence[_Mean], name: Callable[[_Mean], str], x: Callable[[_Mean], float]) -> tuple[Curve, ...]:
    groups: dict[tuple[Hashable, str], list[_Mean]] = {}
    for each in means:
        groups.setdefault((_rank(cut_label(each.ticket)), name(each)), []).append(each)
    curves = []
    for (_, label), group in sorted(
        groups.items(), key=lambda item: (item[0][0], item[1][0].row.spec.shots, item[0][1])
    ):
        ordered = sorted(group, key=x)
        points = tuple(Point(x(each), each.point.y, each.point.deviation, each.point.seeds) for each in ordered)
        curves.append(Curve(label, points, tuple(each.row for each in ordered)))
    return tuple(curves)


def _ratio(tickets: Sequence[TicketSpec]) -> float:
    """Return the ratio at which most cuts can be compared; of equals the one next to the paper's 20 %."""
    cuts: dict[float, set[str]] = {}
    for ticket in tickets:
        cuts.setdefault(ticket.ratio, set()).add(cut_label(ticket))
    return max(cuts, key=lambda ratio: (len(cuts[ratio]), -abs(ratio - _USUAL_RATIO), -ratio))


def _ratio_family(each: _Mean) -> Hashable:
    return each.row.spec.shots, cut_label(each.ticket), each.row.variant


def _explained(means: Sequence[_Mean], seeds: int) -> str:
    text = "Bars: sample standard deviation over seeds."
    fewest = min(each.point.seeds for each in means)
    return text if fewest == seeds else f"{text} Some points have {fewest} of {seeds} seeds only."


def _rank(cut: str) -> tuple[int, str]:
    return (_ORDER.index(cut) if cut in _ORDER else len(_ORDER)), cut


def _cut(ticket: TicketSpec) -> str:
    return cut_label(ticket) or "decoupled"


def _shots(number: int) -> str:
    return "1 shot" if number == 1 else f"{number} shots"


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
