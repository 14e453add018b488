"""Charts: the distribution of tickets over layers as bars (paper Figure 3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltprompt.errors import InputError
from ltprompt.files.artifacts import atomic_path
from ltprompt.tickets.distribution import Distribution, Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# No time in the file: the same tickets give the same chart.
_METADATA: dict[str, dict[str, Any]] = {"png": {}, "pdf": {"CreationDate": None}}


def draw_distribution(distributions: Mapping[str, Distribution], path: Path | str) -> None:
    """Draw, for each named ticket, its share by layer and that share over the layer's share of the parameters.

    path: where to write, a PNG or PDF by its suffix. Layer 0 denotes the embeddings, as in the paper's Figure 3.

    Raises `InputError` for another suffix or no ticket, `OutputError` where the file cannot be written.
    """
    path = Path(path)
    form = path.suffix.lower().removeprefix(".")
    if form not in _METADATA:
        raise InputError(f"cannot draw a chart as {path.name!r}; give a name that ends in .png or .pdf")
    if not distributions:
        raise InputError("there is no ticket to draw; give at least one")
    figure = _figure(distributions)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=form, dpi=150, metadata=_METADATA[form])


def _figure(distributions: Mapping[str, Distribution]) -> Figure:
    # imported here: a command that draws nothing should not wait for matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers = sorted({layer for each in distributions.values() for layer in each.by_layer})
    figure = Figure(figsize=(max(5.0, 0.55 * len(layers)), 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    shares, enrichments = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    width = 0.8 / len(distributions)
    for place, (name, each) in enumerate(distributions.items()):
        offset = (place - (len(distributions) - 1) / 2) * width
        parts = [each.by_layer.get(layer, Part(0, 0.0, 0, 0.0, 0.0)) for layer in layers]
        at = [index + offset for index in range(len(layers))]
        shares.bar(at, [100 * part.share for part in parts], width, label=name)
        enrichments.bar(at, [part.enrichment for part in parts], width)
    shares.set_ylabel("share of the ticket (%)")
    shares.legend()
    enrichments.axhline(1, color="black", linewidth=0.8, linestyle="--")
    enrichments.set_ylabel("over share of\nparameters")
    enrichments.set_xlabel("layer (0 denotes the embeddings)")
    enrichments.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    return figure
