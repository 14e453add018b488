"""Drawing charts as PNG and PDF: readable at column width, in colours that the colour-blind can tell apart."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ltprompt.errors import InputError, choices
from ltprompt.experiments.report.figures import Chart, Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# No time and no program in the file: the same chart gives the same bytes.
FORMS: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
# Okabe and Ito's palette without its yellow, which is too light for lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^DvPX"
_STYLES = ("-", "--", "-.", ":")
_SIZE = 8  # points
_LEGEND_HEIGHT = 0.16  # inches a line of the legend


def draw_chart(chart: Chart, form: str) -> bytes:
    """Return a chart as the bytes of a PNG or PDF file. Raises `InputError` for another form."""
    if form not in FORMS:
        raise InputError(f"cannot draw a chart as {form!r}: {choices(form, FORMS)}")
    # imported here: a command that draws nothing should not wait for matplotlib
    from matplotlib import rc_context

    out = io.BytesIO()
    with rc_context({"font.size": _SIZE, "axes.linewidth": 0.6, "pdf.fonttype": 42}):
        _figure(chart).savefig(out, format=form, dpi=300, metadata=FORMS[form])
    return out.getvalue()


def _figure(chart: Chart) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if len(chart.curves) > 1 and max(len(curve.label) for curve in chart.curves) < 22 else 1
    legend = _LEGEND_HEIGHT * -(-len(chart.curves) // columns)
    figure = Figure(figsize=(3.4, 2.4 + legend), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    (_bars if chart.bars else _lines)(axes, chart)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=columns, frameon=False, fontsize=_SIZE - 1)
    return figure


def _lines(axes: Axes, chart: Chart) -> None:
    for index, curve in enumerate(chart.curves):
        axes.errorbar(
            _beside(chart, curve, index - (len(chart.curves) - 1) / 2),
            [point.y for point in curve.points],
            [point.deviation or 0 for point in curve.points],
            label=curve.label,
            color=_COLOURS[index % len(_COLOURS)],
            marker=_MARKERS[index % len(_MARKERS)],
            linestyle=_STYLES[index // len(_COLOURS) % len(_STYLES)],
            markersize=3.5,
            linewidth=1.1,
            elinewidth=0.6,
            capsize=2,
        )
    if chart.log:
        axes.set_xscale("log", base=2)
    axes.set_xticks(chart.ticks, [f"{tick:.10g}" for tick in chart.ticks])
    axes.minorticks_off()


def _beside(chart: Chart, curve: Curve, places: float) -> list[float]:
    """Return a curve's x values, moved a little to the side so that its error bars do not hide others."""
    if chart.log:
        return [point.x * 2 ** (0.05 * places) for point in curve.points]
    width = chart.ticks[-1] - chart.ticks[0]
    return [point.x + 0.007 * width * places for point in curve.points]


def _bars(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import EngFormatter

    width = 0.8 / len(chart.curves)
    for index, curve in enumerate(chart.curves):
        offset = (index - (len(chart.curves) - 1) / 2) * width
        axes.bar(
            [chart.ticks.index(point.x) + offset for point in curve.points],
            [point.y for point in curve.points],
            width,
            label=curve.label,
            color=_COLOURS[index % len(_COLOURS)],
        )
    axes.set_xticks(range(len(chart.ticks)), [f"{tick:.10g}" for tick in chart.ticks])
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
