"""Drawing a report's charts as PNG and PDF, in the style of `ltprompt.tickets.chart`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltprompt.experiments.report.figures import Chart, Curve
from ltprompt.tickets.chart import COLOURS, add_legend, draw_bars, open_figure, render, rule_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "os^DvPX"
_STYLES = ("-", "--", "-.", ":")


def draw_chart(chart: Chart, form: str) -> bytes:
    """Return a chart as the bytes of a PNG or PDF file. Raises `InputError` for another form."""
    return render(lambda: _figure(chart), form)


def _figure(chart: Chart) -> Figure:
    labels = [curve.label for curve in chart.curves]
    figure = open_figure(labels, 2.4)
    axes = figure.subplots()
    (_bars if chart.bars else _lines)(axes, chart)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    rule_axes(axes)
    add_legend(figure, labels)
    return figure


def _lines(axes: Axes, chart: Chart) -> None:
    for index, curve in enumerate(chart.curves):
        axes.errorbar(
            _beside(chart, curve, index - (len(chart.curves) - 1) / 2),
            [point.y for point in curve.points],
            [point.deviation or 0 for point in curve.points],
            label=curve.label,
            color=COLOURS[index % len(COLOURS)],
            marker=_MARKERS[index % len(_MARKERS)],
            linestyle=_STYLES[index // len(COLOURS) % len(_STYLES)],
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

    bars = [(curve.label, {point.x: point.y for point in curve.points}) for curve in chart.curves]
    draw_bars(axes, chart.ticks, bars)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
