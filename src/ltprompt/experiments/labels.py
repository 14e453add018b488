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
# What trains beside a template that makes no named method of the pair.
_TRAINED = {
    "ticket": "LTP",
    "nothing": "Frozen",
    "everything": "Everything",
    "encoder": "Encoder",
    "biases": "BitFit",
    **{name: _NAMES[name] for name in ("lora", "shira", "super-tuning")},
}
_OTHERS = tuple(name for name in _NAMES if name not in (*BASELINES, "ltp"))


def trains_ticket(spec: RunSpec) -> bool:
    """Whether a run trains a ticket, by `ltp` or with another template."""
    return spec.method == "ltp" or spec.method.endswith("+ticket")


def other_template(spec: RunSpec) -> str:
    """Return the template of a method that is called ``TEMPLATE+TRAINS``; nothing where it has a name of its own."""
    template, plus, _ = spec.method.partition("+")
    return template if plus else ""


def is_lottery(spec: RunSpec) -> bool:
    """Whether a run trains a winning ticket: the entries that moved most in stage 1, or such tickets combined."""
    return trains_ticket(spec) and spec.ticket is not None and spec.ticket.criterion in ("delta", *COMBINATIONS)


def is_control(spec: RunSpec) -> bool:
    """Whether a run trains a ticket chosen otherwise, such as at random."""
    return trains_ticket(spec) and not is_lottery(spec)


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
    template = other_template(spec)
    if is_lottery(spec):
        return 1, 0, template, *cut
    if is_control(spec):
        criterion = spec.ticket.criterion if spec.ticket else ""
        return 2, _rank(criterion, CONTROLS), f"{criterion}{template}", *cut
    return 3, _rank(spec.method, _OTHERS), spec.method, *cut


def _label(spec: RunSpec, special: str) -> str:
    template, trains = other_template(spec), spec.method.partition("+")[2]
    name = _TRAINED.get(trains, trains) if template else _NAMES.get(spec.method, spec.method)
    if is_control(spec) and spec.ticket is not None:
        name = spec.ticket.criterion.capitalize()
    ratio = f" {percent(spec.ticket.ratio)}" if spec.ticket else ""
    beside = ", ".join(part for part in (template, special) if part)
    return name + ratio + (f" ({beside})" if beside else "")


def _rank(name: str, known: tuple[str, ...]) -> int:
    return known.index(name) if name in known else len(known)
