from __future__ import annotations

import sys
from io import BytesIO, TextIOWrapper

import pytest

from ltprompt.cli.streams import delivered


class Screen(BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("raw", "encoding", "expected"),
    [
        (BytesIO(), "ascii", "θ é".encode()),
        (Screen(), "ascii", rb"\u03b8 \xe9"),
        (BytesIO(), "latin-1", b"\\u03b8 \xe9"),
        (Screen(), "utf-8", "θ é".encode()),
    ],
)
def test_every_character_is_printed(
    monkeypatch: pytest.MonkeyPatch, raw: BytesIO, encoding: str, expected: bytes
) -> None:
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(raw, encoding=encoding))
    assert delivered(lambda: print("θ é", end="") or 0) == 0
    assert raw.getvalue() == expected


def test_the_status_is_the_command_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert delivered(lambda: 130) == 130
    monkeypatch.setattr(sys, "stdout", None)
    assert delivered(lambda: 2) == 2


def test_an_error_of_the_command_is_no_error_of_the_output() -> None:
    def fail() -> int:
        raise PermissionError("the command's own")

    with pytest.raises(PermissionError, match="own"):
        delivered(fail)
