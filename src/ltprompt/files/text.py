"""Reading the user's text files: a missing file or bytes that are not UTF-8 give one clear line."""

from __future__ import annotations

import difflib
from pathlib import Path

from ltprompt.errors import InputError


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
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise InputError(f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8; convert the file to UTF-8") from error


def split_lines(text: str) -> list[str]:
    """Return the physical lines of a file, without the empty ones at its end.

    Only line feeds part lines: `str.splitlines` would also part at separators that are text, such as U+2028.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
