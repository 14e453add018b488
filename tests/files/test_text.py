from __future__ import annotations

from pathlib import Path

import pytest

from ltprompt.errors import InputError
from ltprompt.files.text import json_records, read_lines, read_utf8


def test_only_line_feeds_part_lines_and_empty_ones_at_the_end_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028still\x0bone\r\n\r\n\ntwo\ufeff\n\r\n\n".encode())
    assert list(read_lines(path, "a table")) == [
        (f"{path}, line 1", "one\u2028still\x0bone"),
        (f"{path}, line 2", ""),
        (f"{path}, line 3", ""),
        (f"{path}, line 4", "two\ufeff"),
    ]
    path.write_bytes(b"\n\n")
    assert list(read_lines(path, "a table")) == []


def test_lines_come_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntw\xff\n")
    lines = read_lines(path, "a table")
    assert next(lines) == (f"{path}, line 1", "one")
    with pytest.raises(InputError, match=r"a\.txt, line 2: byte 0xff is not UTF-8; convert"):
        next(lines)


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntw\xff\n")
    with pytest.raises(InputError, match=r"a\.txt, line 2: byte 0xff is not UTF-8; convert"):
        read_utf8(path, "a table")


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"b\.txt does not exist; did you mean .*a\.txt"):
        list(read_lines(tmp_path / "b.txt", "a table"))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    for read in (read_utf8, lambda *given: list(read_lines(*given))):
        with pytest.raises(InputError, match=r"cannot read .*a\.txt: Permission denied"):
            read(tmp_path / "a.txt", "a table")


def test_json_records() -> None:
    assert list(json_records([("here", '{"a": 1}')])) == [("here", {"a": 1})]
    for text, message in (
        ("{", "here: not valid JSON .*; write one object a line"),
        ("[1]", r"here: expected one JSON object a line, found \[1\]"),
        (" ", "here: an empty line; remove it"),
        ("[" * 200_000, "here: not valid JSON"),
    ):
        with pytest.raises(InputError, match=message):
            list(json_records([("here", text)]))
