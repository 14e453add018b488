"""Lines and records of large published files, one at a time, each with its place for messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from ltprompt.errors import InputError
from ltprompt.files.text import existing_file

Line = tuple[str, str]  # where it stands, for messages, and its text
Record = tuple[str, Mapping[str, Any]]


def read_lines(path: Path, what: str) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file that are not empty. `what` says what was expected where there is no file.

    Raises `InputError` where the file is missing or unreadable, and for undecodable bytes with their line.
    """
    try:
        file = existing_file(path, what).open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            try:
                text = line.decode().removesuffix("\n").removesuffix("\r")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                raise InputError(f"{where}: byte 0x{byte:02x} is not UTF-8; convert the file to UTF-8") from error
            text = text.removeprefix("\ufeff") if number == 1 else text
            if text:
                yield where, text


def json_records(lines: Iterable[Line]) -> Iterator[Record]:
    """Yield the object on each line. Raises `InputError` for a line that is none."""
    for where, text in lines:
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not valid JSON ({error}); write one object a line") from error
        if not isinstance(record, dict):
            raise InputError(f"{where}: expected one JSON object a line, found {text[:60]!r}")
        yield where, record


def value(record: Mapping[str, Any], column: str, where: str) -> Any:
    """Return a record's value. Raises `InputError` where it has no such column."""
    if column not in record:
        raise InputError(f"{where}: no column {column!r}; found {shown(record)}")
    return record[column]


def shown(names: Iterable[str]) -> str:
    """Return names for a message, cut where they are long."""
    return shorten(", ".join(names), 200, placeholder=" ...")
