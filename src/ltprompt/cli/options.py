"""What the commands share: options that more than one takes, settings as flags, lists, errors that name flags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args

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
OtherRevision = Annotated[
    str | None, typer.Option("--revision", help="branch, tag or commit of the backbone's hub id [as recorded]")
]
AdapterDir = Annotated[Path, typer.Argument(metavar="ADAPTER_DIR", help="folder that `train --out` wrote")]
OtherBackbone = Annotated[str | None, typer.Option("--backbone", help="where the backbone now is, if it has moved")]

TaskName = Annotated[str, typer.Option(help="xnli, americasnli or a task file .yaml")]
Language = Annotated[str | None, typer.Option(help="language of label words and pattern [the task's own]")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write JSON to this file; - is stdout")]
BARE_JSON = "[FILE]"
BareJson = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar=BARE_JSON,
        help="JSON to stdout (alone or as -) or to a file, which beside a list of files ends in .json",
    ),
]

_FIELD = re.compile(r"`([a-z]\w*)`")


class Command(TyperCommand):
    """A command that takes a list behind an option that may be repeated, and whose errors name its flags."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line's words, lists and a bare `--json` spelt out."""
        parameters = self.get_params(ctx)
        return super().parse_args(ctx, spell_lists(spell_json(args, parameters), parameters))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an `LtpError` leaves it with flags in place of fields."""
        try:
            return super().invoke(ctx)
        except LtpError as error:
            error.args = (name_flags(str(error), self.params),)
            raise


class SettingsCommand(Command):
    """A command with a flag for every field of a settings class, which gets what was given as its context's `obj`.

    The class is imported, and with it pydantic, only when this command is run or asked for help.
    """

    settings: ClassVar[str]

    def __init__(self, *given: Any, **named: Any) -> None:
        self._whole = False
        super().__init__(*given, **named)

    @property
    def params(self) -> list[Any]:
        """All parameters; the settings stand before `--revision`, where those of the machine begin."""
        if not self._whole:
            place = next(place for place, one in enumerate(self._params) if one.name == "revision")
            self._params[place:place] = settings_options(self.settings)
            self._whole = True
        return self._params

    @params.setter
    def params(self, own: list[Any]) -> None:
        """Take the command's own parameters, as click sets them."""
        self._params = own

    def invoke(self, ctx: Any) -> Any:
        """Run the command with the settings, None where one is not given, apart from its other parameters."""
        ctx.obj = {name: ctx.params.pop(name) for name in settings_class(self.settings).model_fields}
        return super().invoke(ctx)


def settings_class(name: str) -> Any:
    """Return a class of settings by its name."""
    from ltprompt import settings

    return getattr(settings, name)


def settings_options(name: str) -> list[Any]:
    """Return click's options for the fields of a class of settings, in their order; what is not given is None."""

    def command(**given: Any) -> None:
        """Take every setting."""

    command.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(field, Parameter.KEYWORD_ONLY, default=None, annotation=_option(field, info))
            for field, info in settings_class(name).model_fields.items()
        ]
    )
    command.__annotations__ = {}
    app = typer.Typer(add_completion=False)
    app.command()(command)
    found: list[Any] = typer.main.get_command(app).params
    for option in found:
        option.help = name_flags(option.help, found)
    return found


def _option(name: str, info: Any) -> Any:
    """Return the annotation of a setting's option: its kind of value, its description and its default in brackets."""
    text = info.description
    usual = "" if text.endswith("]") else _usual(name, info.default)
    return Annotated[_kind(info.annotation) | None, typer.Option(help=f"{text} [{usual}]" if usual else text)]


def _usual(name: str, default: Any) -> str:
    """Return a setting's default as help shows it: its own, or by method where the recipes have it."""
    if default is not None:
        return "" if isinstance(default, bool) else str(default)
    from ltprompt.stage2.methods import METHODS

    values = {
        method: getattr(found.recipe, name, found.rank if name == "size" else None) for method, found in METHODS.items()
    }
    usual = values["ltp"]
    others: dict[Any, list[str]] = {}
    for method, value in values.items():
        if value != usual:
            others.setdefault(value, []).append(method)
    parts = [f"{', '.join(methods)}: {value}" for value, methods in others.items()]
    return "; ".join([*([] if usual is None else [str(usual)]), *parts])


def _kind(annotation: Any) -> Any:
    """Return the type of a field's words on a command line: bool, int, float or str."""
    if annotation in (bool, int, float):
        return annotation
    return next((kind for part in get_args(annotation) if (kind := _kind(part)) is not str), str)


def one_place(argument: Path | None, out: Path | None) -> Path:
    """Return the place to write, which a command takes as its last argument or as `--out`."""
    given = [place for place in (argument, out) if place is not None]
    if len(given) != 1:
        raise typer.BadParameter("give the place to write once, as --out")
    return given[0]


def spell_json(words: Sequence[str], parameters: Sequence[Any]) -> list[str]:
    """Return a command's words with a bare `--json`, where the command takes it so, spelt `--json -`.

    Before there were files it was a flag, and what follows may be an argument of the command. It is the flag's file
    where it is `-` or ends in .json, and where a command of so many arguments has them all elsewhere.
    """
    if not any(option.metavar == BARE_JSON for option in parameters):
        return list(words)
    endless = any(parameter.nargs == -1 for parameter in parameters if parameter.param_type_name == "argument")
    return list(_json_words(words, complete=not endless and _lists(words, parameters)[1] <= 0))


def _json_words(words: Sequence[str], complete: bool) -> Iterator[str]:
    for place, word in enumerate(words):
        yield word
        if word == "--json" and "--" not in words[:place]:
            following = words[place + 1] if place + 1 < len(words) else ""
            is_file = following == "-" or following.endswith(".json")
            if not (is_file or (complete and following and not following.startswith("-"))):
                yield "-"


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
