from __future__ import annotations

from pathlib import Path

import pytest

from ltprompt.errors import InputError
from ltprompt.experiments.data.lines import json_records, read_lines, shown, value


def test_only_line_feeds_part_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028still\x0bone\r\n\r\n\ntwo\ufeff".encode())
    assert list(read_lines(path, "a table")) == [
        (f"{path}, line 1", "one\u2028still\x0bone"),
        (f"{path}, line 4", "two\ufeff"),
    ]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntw\xff\n")
    with pytest.raises(InputError, match=r"a\.txt, line 2: byte 0xff is not UTF-8; convert"):
        list(read_lines(path, "a table"))


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"b\.txt does not exist; did you mean .*a\.txt"):
        list(read_lines(tmp_path / "b.txt", "a table"))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"cannot read .*a\.txt: Permission denied"):
        list(read_lines(tmp_path / "a.txt", "a table"))


def test_json_records() -> None:
    assert list(json_records([("here", '{"a": 1}')])) == [("here", {"a": 1})]
    for text, message in (
        ("{", "here: not valid JSON .*; write one object a line"),
        ("[1]", "here: expected one JSON"),
    ):
        with pytest.raises(InputError, match=message):
            list(json_records([("here", text)]))
    with pytest.raises(InputError, match="here: not valid JSON"):
        list(json_records([("here", "[" * 200_000)]))


def test_a_missing_column_shows_those_that_are_there() -> None:
    assert value({"a": 1}, "a", "here") == 1
    with pytest.raises(InputError, match=r"here: no column 'b'; found a, x"):
        value({"a": 1, "x": 2}, "b", "here")
    assert len(shown(["word"] * 1000)) <= 200
