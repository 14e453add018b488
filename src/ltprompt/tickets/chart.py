"""Charts: the distribution of tickets over layers as bars (paper Figure 3), and the style that all charts share.

They are readable at column width, in colours that the colour-blind can tell apart.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltprompt.errors import InputError, choices
from ltprompt.files.artifacts import atomic_path
from ltprompt.tickets.distribution import Distribution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# No time and no program in the file: the same chart gives the same bytes.
FORMS: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
# Okabe and Ito's palette without its yellow, which is too light for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_SIZE = 8  # points
_WIDTH = 3.4  # inches, a column's
_LEGEND_HEIGHT = 0.16  # inches a line of the legend


def draw_distribution(distributions: Mapping[str, Distribution], path: Path | str) -> None:
    """Draw, for each named ticket, its share by layer and that share over the layer's share of the parameters.

    path: where to write, a PNG or PDF by its suffix. Layer 0 denotes the embeddings, as in the paper's Figure 3.

    Raises `InputError` for another suffix or no ticket, `OutputError` where the file cannot be written.
    """
    path = Path(path)
    form = chart_form(path)
    if not distributions:
        raise InputError("there is no ticket to draw; give at least one")
    picture = render(lambda: _figure(distributions), form)
    with atomic_path(path) as temporary:
        temporary.write_bytes(picture)


def chart_form(path: Path) -> str:
    """Return the form of a chart's file, png or pdf, by its suffix. Raises `InputError` for another suffix."""
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMS:
        raise InputError(f"cannot draw a chart as {path.name!r}; give a name that ends in .png or .pdf")
    return form


def render(build: Callable[[], Figure], form: str) -> bytes:
    """Return a figure as the bytes of a PNG or PDF file; `build` is called with the style in force.

    Raises `InputError` for another form.
    """
    if form not in FORMS:
        raise InputError(f"cannot draw a chart as {form!r}: {choices(form, FORMS)}")
    # imported here: a command that draws nothing should not wait for matplotlib
    from matplotlib import rc_context

    out = io.BytesIO()
    with rc_context({"font.size": _SIZE, "axes.linewidth": 0.6, "pdf.fonttype": 42}):
        build().savefig(out, format=form, dpi=300, metadata=FORMS[form])
    return out.getvalue()


def open_figure(labels: Sequence[str], height: float) -> Figure:
    """Return an empty figure of a column's width. labels: of its legend. height: of the rest, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    legend = _LEGEND_HEIGHT * -(-len(labels) // _legend_columns(labels))
    figure = Figure(figsize=(_WIDTH, height + legend), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def add_legend(figure: Figure, labels: Sequence[str]) -> None:
    """Explain above a figure what has been drawn in it so far."""
    columns = _legend_columns(labels)
    figure.legend(loc="outside upper center", ncols=columns, frameon=False, fontsize=_SIZE - 1)


def draw_bars(axes: Axes, ticks: Sequence[float], bars: Sequence[tuple[str, Mapping[Any, float]]]) -> None:
    """Draw bars side by side at every tick, such as a layer. bars: a label each, and heights by tick."""
    width = 0.8 / len(bars)
    for index, (label, heights) in enumerate(bars):
        offset = (index - (len(bars) - 1) / 2) * width
        places = [ticks.index(tick) + offset for tick in heights]
        axes.bar(places, list(heights.values()), width, label=label, color=COLOURS[index % len(COLOURS)])
    axes.set_xticks(range(len(ticks)), [f"{tick:.10g}" for tick in ticks])


def rule_axes(axes: Axes) -> None:
    """Lay light horizontal lines behind what the axes hold."""
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)


def _legend_columns(labels: Sequence[str]) -> int:
    return 2 if len(labels) > 1 and max(map(len, labels)) < 22 else 1


def _figure(distributions: Mapping[str, Distribution]) -> Figure:
    layers = sorted({layer for each in distributions.values() for layer in each.by_layer})
    by_layer = [(name, each.by_layer.items()) for name, each in distributions.items()]
    labels = list(distributions)
    figure = open_figure(labels, 3.6)
    shares, enrichments = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    draw_bars(shares, layers, [(name, {layer: 100 * part.share for layer, part in parts}) for name, parts in by_layer])
    add_legend(figure, labels)
    draw_bars(
        enrichments, layers, [(name, {layer: part.enrichment for layer, part in parts}) for name, parts in by_layer]
    )
    enrichments.axhline(1, color="black", linewidth=0.8, linestyle="--")
    shares.set_ylabel("share of the ticket (%)")
    enrichments.set_ylabel("over share of\nparameters")
    enrichments.set_xlabel("layer (0 denotes the embeddings)")
    for axes in (shares, enrichments):
        rule_axes(axes)
    return figure
