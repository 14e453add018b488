from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ltprompt.errors import InputError
from ltprompt.files import places
from ltprompt.files.places import check_file, check_folder, check_new


def test_what_can_be_written_is_let_through_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    check_file(tmp_path / "old", "csv")
    check_file(tmp_path / "new" / "deep" / "file", "csv")
    check_folder(tmp_path, "out")
    check_folder(tmp_path / "new" / "deep", "out")
    check_new(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_file_stands_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for check, place in ((check_file, "file/new"), (check_folder, "file"), (check_folder, "file/a/b")):
        with pytest.raises(InputError) as error:
            check(tmp_path / place, "csv")
        blocked = f"{tmp_path / 'file'} is not a folder that lets you; choose another `csv`"
        assert str(error.value) == f"{tmp_path / place} cannot be written: {blocked}"


@pytest.mark.parametrize("place", [".", "/dev/null"])
def test_no_folder_and_no_device_is_replaced_by_a_file(place: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no file but a folder or a device; choose another `plot`"):
        check_file(tmp_path / place, "plot")


def test_a_folder_that_must_be_new(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already exists; choose another folder or delete it"):
        check_new(tmp_path)


def test_a_folder_without_the_right_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: mode != os.W_OK | os.X_OK or place != tmp_path)
    with pytest.raises(InputError, match="is not a folder that lets you"):
        check_file(tmp_path / "new", "out")


def test_the_question_costs_no_heavy_import() -> None:
    code = f"import sys, {places.__name__}; print(sorted({{'torch', 'numpy', 'pydantic'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
