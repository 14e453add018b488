"""Reading text files whole, by line or by JSON record: what is missing or makes no sense gives one clear line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ltprompt.errors import InputError, brief

Line = tuple[str, str]  # where it stands, for messages, and its text
Record = tuple[str, Mapping[str, Any]]  # where it stands, and its columns

EMPTY_LINE = "an empty line; remove it"


def existing_file(path: Path, what: str) -> Path:
    """Return `path` if it is a file, else raise `InputError` with the nearest name in its folder."""
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected {what}")
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"{path} does not exist (nor does the folder {folder}); expected {what}")
    near = difflib.get_close_matches(path.name, sorted(entry.name for entry in folder.iterdir()), n=1)
    hint = f"; did you mean {folder / near[0]}?" if near else f"; expected {what}"
    raise InputError(f"{path} does not exist{hint}")


def read_utf8(path: Path, what: str) -> str:
    """Return the text of a UTF-8 file without its byte order mark, line ends as they are in the file.

    Raises `InputError` where the file is missing or unreadable, and for undecodable bytes with their line.
    """
    try:
        data = existing_file(path, what).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _not_utf8(f"{path}, line {line}", error) from error


def read_lines(path: Path, what: str) -> Iterator[Line]:
    """Yield the physical lines of a UTF-8 file, one in memory at a time, without the empty ones at its end.

    Only line feeds part lines: `str.splitlines` would also part at separators that are text, such as U+2028. A byte
    order mark is dropped. `what` says what was expected where there is no file.

    Raises `InputError` where the file is missing or unreadable, and for undecodable bytes with their line.
    """
    empty: list[Line] = []
    try:
        with existing_file(path, what).open("rb") as file:
            for number, data in enumerate(file, 1):
                line = _line(f"{path}, line {number}", data, first=number == 1)
                empty.append(line)
                if line[1]:
                    yield from empty
                    empty.clear()
    except OSError as error:
        raise _unreadable(path, error) from error


def json_records(lines: Iterable[Line]) -> Iterator[Record]:
    """Yield the object on each line. Raises `InputError` for a line that is none."""
    for where, text in lines:
        if not text.strip():
            raise InputError(f"{where}: {EMPTY_LINE}")
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not valid JSON ({error}); write one object a line") from error
        if not isinstance(record, dict):
            raise InputError(f"{where}: expected one JSON object a line, found {brief(record)}")
        yield where, record


def _line(where: str, data: bytes, *, first: bool) -> Line:
    try:
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise _not_utf8(where, error) from error
    return where, text.removeprefix("\ufeff") if first else text


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot read {path}: {error.strerror}")


def _not_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    return InputError(f"{where}: byte 0x{error.object[error.start]:02x} is not UTF-8; convert the file to UTF-8")
