"""How runs are called in tables and figures, and in which order they stand."""

from __future__ import annotations

from ltprompt.experiments.records import RunSpec, TicketSpec
from ltprompt.tickets.ticket import COMBINATIONS

BASELINES = ("ft", "dp", "sp", "mp")
CONTROLS = ("random", "magnitude", "gradient", "fisher")
_NAMES = {
    **{name: name.upper() for name in (*BASELINES, "ltp")},
    "bitfit": "BitFit",
    "lora": "LoRA",
    "shira": "SHiRA",
    "super-tuning": "Super-Tuning",
    "prompt-only": "Prompt only",
}
_OTHERS = tuple(name for name in _NAMES if name not in (*BASELINES, "ltp"))


def is_lottery(spec: RunSpec) -> bool:
    """Whether a run trains a winning ticket: the entries that moved most in stage 1, or such tickets combined."""
    return spec.method == "ltp" and spec.ticket is not None and spec.ticket.criterion in ("delta", *COMBINATIONS)


def is_control(spec: RunSpec) -> bool:
    """Whether a run trains a ticket chosen otherwise, such as at random."""
    return spec.method == "ltp" and not is_lottery(spec)


def method_label(spec: RunSpec) -> str:
    """Return a method and its ticket as tables call them, such as ``LTP 20 %`` or ``Random 20 % (middle)``.

    A ready ticket stands there by its name, such as ``LTP 20 % (english)``.
    """
    return _label(spec, spec.ticket.name or cut_label(spec.ticket)) if spec.ticket else _label(spec, "")


def cut_method_label(spec: RunSpec) -> str:
    """Return a method and its ticket by how it is cut, whether it was ready or not."""
    return _label(spec, cut_label(spec.ticket) if spec.ticket else "")


def cut_label(ticket: TicketSpec) -> str:
    """Return how a ticket is cut where that is not the paper's way: decoupled, across all layers; else nothing."""
    layers = "" if ticket.layers == "all" else ticket.layers
    parts = (
        ticket.criterion if ticket.criterion in COMBINATIONS else "",
        "" if ticket.strategy == "decoupled" else ticket.strategy,
        f"layers {layers}" if layers[:1].isdigit() else layers,
        "" if ticket.scope == "global" else f"scope {ticket.scope}",
    )
    return ", ".join(part for part in parts if part)


def percent(ratio: float) -> str:
    """Return a share as a percentage, such as ``20 %`` or ``7.5 %``."""
    return f"{100 * ratio:.4g} %"


def place(spec: RunSpec) -> tuple[int, int, str, float, str]:
    """Return a key that sorts methods: FT, DP, SP, MP, LTP by ratio, the controls, then all others."""
    cut = (spec.ticket.ratio, cut_label(spec.ticket)) if spec.ticket else (0.0, "")
    if spec.method in BASELINES:
        return 0, BASELINES.index(spec.method), spec.method, *cut
    if is_lottery(spec):
        return 1, 0, "", *cut
    if is_control(spec):
        criterion = spec.ticket.criterion if spec.ticket else ""
        return 2, _rank(criterion, CONTROLS), criterion, *cut
    return 3, _rank(spec.method, _OTHERS), spec.method, *cut


def _label(spec: RunSpec, special: str) -> str:
    name = _NAMES.get(spec.method, spec.method)
    if spec.ticket is None:
        return name
    if is_control(spec):
        name = spec.ticket.criterion.capitalize()
    return f"{name} {percent(spec.ticket.ratio)}" + (f" ({special})" if special else "")


def _rank(name: str, known: tuple[str, ...]) -> int:
    return known.index(name) if name in known else len(known)
