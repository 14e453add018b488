"""A grid's plan and records as JSON lines in one file: the form in which finished grids are kept and passed on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from ltprompt.errors import FileFormatError, InputError
from ltprompt.files.artifacts import canonical_json, write_text
from ltprompt.files.text import json_records, read_lines

Kind = Literal["plan", "run", "ticket"]
Key = tuple[Kind, str]  # kind, and the id of a run or the name of a ticket; a plan has none
Entries = Mapping[Key, Mapping[str, Any]]

_KINDS: tuple[Kind, ...] = get_args(Kind)
_MEND = "copy the file again, or delete the line and run the grid again, which makes only what is missing"


def read_packed(path: Path) -> Entries:
    """Return what is packed in a file, nothing where there is none. A file is parsed once as long as it is the same.

    Raises `FileFormatError`, with the line, for one that is not as `write_packed` writes it.
    """
    try:
        found = path.stat()
    except OSError:
        return {}
    return _read(path, found.st_mtime_ns, found.st_size, found.st_ino)


def write_packed(path: Path, entries: Entries) -> None:
    """Write entries, atomically: the plan, runs, then tickets, a line each. Equal entries give equal bytes."""
    lines = [{kind: entries[kind, name]} | ({"id": name} if name else {}) for kind, name in sorted(entries)]
    write_text(path, "".join(f"{canonical_json(line)}\n" for line in lines))


@lru_cache(maxsize=8)
def _read(path: Path, *_version: int) -> Entries:
    entries: dict[Key, Mapping[str, Any]] = {}
    try:
        for where, line in json_records(read_lines(path, "a packed grid")):
            key, data = _entry(line, where)
            if key in entries:
                raise FileFormatError(f"{where}: the {key[0]} {key[1]} stands twice; {_MEND}")
            entries[key] = data
    except InputError as error:
        raise FileFormatError(f"{error}; {_MEND}") from error
    return entries


def _entry(line: Mapping[str, Any], where: str) -> tuple[Key, Mapping[str, Any]]:
    name = line.get("id", "")
    kinds = [kind for kind in _KINDS if isinstance(line.get(kind), dict)]
    if len(kinds) != 1 or not isinstance(name, str) or len(line) != 1 + ("id" in line):
        raise FileFormatError(f"{where}: expected an id and one of {', '.join(_KINDS)}; {_MEND}")
    try:
        canonical_json(line)
    except ValueError as error:  # a number that is none
        raise FileFormatError(f"{where}: {error}; {_MEND}") from error
    return (kinds[0], name), line[kinds[0]]
