"""Commands for tickets: cut, combine, inspect and compare them. Imports happen when a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ltprompt.cli.options import BareJson, Command, Device, Dtype, Threads
from ltprompt.cli.process import computing
from ltprompt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltprompt.tickets.scores import Scores
    from ltprompt.tickets.selection import Scope
    from ltprompt.tickets.ticket import Ticket

ticket_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Cut, combine, inspect and compare tickets.")

HEADER = ("strategy", "criterion", "seed", "ratio", "scope", "layers", "fingerprint")


@ticket_app.command("cut", cls=Command)
def ticket_cut(
    scores_dir: Annotated[Path, typer.Argument(metavar="SCORES_DIR", help="folder that `scores --out` wrote")],
    ratio: Annotated[float, typer.Option(help="share of the eligible parameters, 0 to 1")],
    out: Annotated[Path, typer.Option(help="ticket file to write, such as en-20.safetensors")],
    scope: Annotated[str, typer.Option(help="rank across all layers (global) or within each (layer)")] = "global",
    layers: Annotated[str, typer.Option(help="all, lower, middle, higher, or a list such as 5-8")] = "all",
    criterion: Annotated[
        str, typer.Option("--select", help="criterion: delta (movement), random, magnitude, gradient or fisher")
    ] = "delta",
    seed: Annotated[int | None, typer.Option(min=0, help="of --select random [0]")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="of --select magnitude, gradient or fisher: where it now is, if it has moved")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="branch, tag or commit of that backbone's hub id [as recorded]")
    ] = None,
    texts: Annotated[
        list[Path] | None, typer.Option("--text", help="of --select gradient or fisher: text file; may be repeated")
    ] = None,
    lines: Annotated[int | None, typer.Option(min=1, help="lines drawn from --text [2048]")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = None,
) -> None:
    """Cut a ticket: keep the parameters that moved most, or as many by another criterion."""
    from ltprompt.cli.outputs import check_outputs
    from ltprompt.tickets.scores import Scores, check_criterion
    from ltprompt.tickets.selection import eligible_layers

    check_criterion(criterion, seed=seed, backbone=backbone, revision=revision, texts=texts, lines=lines)
    check_outputs(out=out)
    scores = Scores.load(scores_dir)
    eligible_layers(scores.parameters, ratio=ratio, scope=scope, layers=layers)
    if criterion == "random":
        from ltprompt.stage1.criteria import find_criterion

        scores = find_criterion(scores, criterion, seed=seed)
    elif criterion != "delta":
        scores = _scores_by(criterion, scores, scores_dir, backbone, revision, texts, lines, (device, dtype, threads))
    found = scores.select(ratio, cast("Scope", scope), layers)
    if found.zero_entries:
        what = "never moved (score 0)" if criterion == "delta" else "have score 0"
        print(f"note: {found.zero_entries:,} of the ticket's {found.size:,} entries {what}", file=sys.stderr)
    found.save(out)
    print(_written(found, out))


@ticket_app.command("combine", cls=Command)
def ticket_combine(
    out: Annotated[Path, typer.Option(help="ticket file to write")],
    union: Annotated[
        list[Path] | None, typer.Option(help="ticket file, two or more: what stands in any of them")
    ] = None,
    intersect: Annotated[
        list[Path] | None, typer.Option(help="ticket file, two or more: what stands in all of them")
    ] = None,
) -> None:
    """Combine tickets of one backbone and strategy, such as those of two languages, into one."""
    from ltprompt.cli.outputs import check_outputs
    from ltprompt.tickets import ticket

    if bool(union) == bool(intersect):
        raise typer.BadParameter("give --union or --intersect, one of them")
    files = union or intersect or []
    if len(files) < 2:
        raise typer.BadParameter("give two ticket files or more")
    check_outputs(out=out)
    combine = ticket.union if union else ticket.intersection
    found = combine([ticket.Ticket.load(file) for file in files])
    found.save(out)
    print(_written(found, out))


@ticket_app.command("inspect", cls=Command)
def ticket_inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="ticket file")],
    json_: BareJson = None,
    plot: Annotated[Path | None, typer.Option(help="write a bar chart by layer, PNG or PDF")] = None,
) -> None:
    """Show where a ticket's entries lie, by layer and by kind of module."""
    from ltprompt.cli.outputs import check_outputs, give_result, result_json
    from ltprompt.cli.show import show_distribution
    from ltprompt.tickets.chart import chart_form, draw_distribution
    from ltprompt.tickets.distribution import distribution
    from ltprompt.tickets.ticket import Ticket

    check_outputs(json_=json_, plot=plot)
    if plot is not None:
        chart_form(plot)
    ticket = Ticket.load(file)
    found = distribution(ticket)
    header = {name: getattr(ticket, name) for name in HEADER}
    give_result(show_distribution(header, found), result_json(header | found.to_json()), json_)
    if plot is not None:
        draw_distribution({file.stem: found}, plot)


@ticket_app.command("compare", cls=Command)
def ticket_compare(
    files: Annotated[list[Path], typer.Argument(metavar="FILE FILE...", help="two ticket files or more")],
    json_: BareJson = None,
) -> None:
    """Compare tickets pair by pair: overlap, and the overlap expected by chance."""
    from itertools import combinations

    from ltprompt.cli.outputs import check_outputs, give_result, result_json
    from ltprompt.cli.show import show_comparison
    from ltprompt.tickets.distribution import compare
    from ltprompt.tickets.ticket import Ticket

    if len(files) < 2:
        raise typer.BadParameter("give two ticket files or more")
    check_outputs(json_=json_)
    tickets = [(file, Ticket.load(file)) for file in files]
    pairs = [((a, b), compare(x, y)) for (a, x), (b, y) in combinations(tickets, 2)]
    text = "\n\n".join(show_comparison(str(a), str(b), found) for (a, b), found in pairs)
    data = result_json([{"files": [str(a), str(b)], **found.to_json()} for (a, b), found in pairs])
    give_result(text, data, json_)


def _scores_by(
    criterion: str,
    scores: Scores,
    scores_dir: Path,
    backbone: str | None,
    revision: str | None,
    text: Sequence[Path] | None,
    lines: int | None,
    hardware: tuple[str, str, int | None],
) -> Scores:
    """Return the scores by a criterion that reads the backbone: the one named, else that of the scores' record."""
    from ltprompt.backbone.model import Backbone
    from ltprompt.stage1.corpus import read_lines
    from ltprompt.stage1.criteria import LINES, find_criterion
    from ltprompt.terminal import bar
    from ltprompt.tickets.scores import read_origin

    origin = read_origin(scores_dir)
    name = backbone or origin.backbone
    if backbone is None:
        revision = revision or origin.revision
    if name is None:
        raise InputError(f"{scores_dir} does not say which backbone its scores are of; name it with --backbone")
    texts = None if text is None else read_lines(text)
    compute = computing(*hardware)
    loaded = Backbone.from_pretrained(name, revision=revision, device=compute.device)
    if texts is None:
        return find_criterion(scores, criterion, backbone=loaded)
    with bar(criterion, min(lines or LINES, len(texts)), "line") as advance:
        return find_criterion(
            scores,
            criterion,
            backbone=loaded,
            texts=texts,
            lines=lines,
            max_length=origin.max_length,
            compute=compute,
            on_lines=advance,
        )


def _written(ticket: Ticket, out: Path) -> str:
    return f"ticket of {ticket.size:,} entries ({ticket.active_ratio:.2%} of the eligible parameters) in {out}"
