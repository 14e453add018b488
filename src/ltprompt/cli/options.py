"""What the commands share: options that more than one takes, lists behind an option, errors that name flags."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ltprompt.cli.process import DTYPE_HELP, THREADS_HELP, TRAINED_DTYPE_HELP
from ltprompt.errors import LtpError

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps")]
Dtype = Annotated[str, typer.Option(help=DTYPE_HELP)]
TrainedDtype = Annotated[str, typer.Option("--dtype", help=TRAINED_DTYPE_HELP)]
Threads = Annotated[int | None, typer.Option(help=THREADS_HELP)]

BackboneName = Annotated[str, typer.Argument(metavar="BACKBONE", help="hub id, folder or mini")]
Revision = Annotated[str | None, typer.Option(help="branch, tag or commit of a hub id")]
AdapterDir = Annotated[Path, typer.Argument(metavar="ADAPTER_DIR", help="folder that `train --out` wrote")]
OtherBackbone = Annotated[str | None, typer.Option("--backbone", help="where the backbone now is, if it has moved")]

TaskName = Annotated[str, typer.Option(help="xnli, americasnli or a task file .yaml")]
Language = Annotated[str | None, typer.Option(help="language of label words and pattern [the task's own]")]
Json = Annotated[bool, typer.Option("--json", help="print JSON to stdout")]

_FIELD = re.compile(r"`([a-z]\w*)`")


class Command(TyperCommand):
    """A command that takes a list behind an option that may be repeated, and whose errors name its flags."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line's words, lists spelt out."""
        return super().parse_args(ctx, spell_lists(args, self.get_params(ctx)))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an `LtpError` leaves it with flags in place of fields."""
        try:
            return super().invoke(ctx)
        except LtpError as error:
            error.args = (name_flags(str(error), self.params),)
            raise


def spell_lists(words: Sequence[str], parameters: Sequence[Any]) -> list[str]:
    """Return a command's words with `--text A B`, as a shell's wildcard gives it, spelt `--text A --text B`.

    words: what stands behind the command's name. parameters: click's, which say what options there are, which of them
    take a value, which may be repeated, and how many arguments the command has. Arguments that are missing elsewhere
    are a list's last words: `--data en=A sw=B ADAPTER_DIR`. Where two lists could hold them, all is left as it is, for
    the parser to refuse.
    """
    flags, missing = _lists(words, parameters)
    if missing > 0:
        places = sorted(flags)
        in_one_list = not places or places[-1] - places[0] < len(places)
        flags = {place: flags[place] for place in places[:-missing]} if in_one_list else {}
    return [part for place, word in enumerate(words) for part in ([flags[place], word] if place in flags else [word])]


def _lists(words: Sequence[str], parameters: Sequence[Any]) -> tuple[dict[int, str], int]:
    """Return place -> flag of the words that may go on with an option's list, and how many arguments are missing."""
    options = {flag: option for option in parameters for flag in option.opts if option.param_type_name == "option"}
    missing = sum(parameter.param_type_name == "argument" for parameter in parameters)
    flags: dict[int, str] = {}
    place, flag = 0, ""
    while place < len(words) and words[place] != "--":
        word = words[place]
        if word.startswith("-") and len(word) > 1:
            option = options.get(word)
            flag = word if option and option.multiple else ""
            place += bool(option and not option.is_flag)  # its value, which may look like a flag
        elif flag:
            flags[place] = flag
        else:
            missing -= 1
        place += 1
    return flags, missing - len(words[place + 1 :])  # behind `--` all are arguments


def name_flags(text: str, parameters: Sequence[Any]) -> str:
    """Return an error's text with each field in backticks, such as `max_length`, named as the command line has it.

    parameters: click's, of the command that runs. A field that is none of them stays as it is: it is a grid's key.
    """
    names = {part.name: part.metavar if part.param_type_name == "argument" else part.opts[0] for part in parameters}
    return _FIELD.sub(lambda found: str(names.get(found[1], found[0])), text)
