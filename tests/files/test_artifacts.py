from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ltprompt.errors import FileFormatError, InputError, LtpError, OutputError
from ltprompt.files import artifacts as files

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.tensor([1, 0, 1], dtype=torch.uint8),
    "empty": torch.zeros(0, 4),
    "half": torch.ones(3, dtype=torch.bfloat16),
}
METADATA = {"ratio": 0.2, "layers": {"0": 3, "10": 1, "2": 2}, "word": "Nαί"}


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_in_safetensors(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def write(path: Path) -> str:
    return files.write_tensors(path, "ticket", TENSORS, METADATA)


def read(path: Path, kind: str = "ticket") -> dict[str, Any]:
    with files.TensorFile(path, kind) as file:
        file.verify()
        return file.metadata


# --- the writer


def test_text_is_written_whole_with_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "text.txt"
    files.write_text(path, "Nαί\n")
    assert path.read_text(encoding="utf-8") == "Nαί\n"
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode
    assert os.listdir(path.parent) == ["text.txt"]


@pytest.mark.parametrize("error", [ValueError("stop"), KeyboardInterrupt()])
def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "text.txt"
    path.write_text("old")

    def fail_midway() -> None:
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail_midway()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["text.txt"]


@pytest.mark.parametrize(
    ("where", "what", "call"),
    [
        (Path, "write_text", lambda path: files.write_text(path, "new")),
        (Path, "write_text", lambda path: files.write_json(path, {"a": 1})),
        (os, "fsync", lambda path: files.write_text(path, "new")),
        (os, "fsync", write),
    ],
)
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: object, what: str, call: Callable[[Path], object]
) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"old")
    monkeypatch.setattr(where, what, full_disk)
    with pytest.raises(OutputError) as caught:
        call(path)
    assert (
        str(caught.value) == f"cannot write {path}: no space left on the disk; free some space or choose another place"
    )
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["result"]


def test_a_full_disk_met_inside_safetensors_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "save_file", full_disk_in_safetensors)
    with pytest.raises(OutputError, match="no space left on the disk"):
        write(tmp_path / "ticket")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OutputError, match="cannot write"):
        files.write_text(tmp_path / "file" / "inside", "text")


def test_a_killed_writer_leaves_the_old_file_intact(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("old")
    program = (
        "import os, pathlib, signal, sys\n"
        "from ltprompt.files import artifacts as files\n"
        "with files.atomic_path(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_json_refuses_what_is_not_json_before_touching_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "record.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert files.canonical_json({"b": "é", "a": [1, 2.5]}) == '{"a":[1,2.5],"b":"é"}'
    assert files.canonical_json({"a": [1, 2.5], "b": "é"}) == '{"a":[1,2.5],"b":"é"}'


# --- tensors


def test_equal_input_gives_equal_bytes_in_any_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    digest = write(first)
    backwards = dict(reversed(TENSORS.items()))
    strided = backwards | {"b": TENSORS["b"].T.contiguous().T}
    assert files.write_tensors(second, "ticket", strided, dict(reversed(METADATA.items()))) == digest
    assert first.read_bytes() == second.read_bytes()
    write(first)
    assert first.read_bytes() == second.read_bytes()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    digest = write(path)
    with files.TensorFile(path, "ticket") as file:
        file.verify()
        assert file.names == set(TENSORS)
        assert file.metadata == {**METADATA, "kind": "ticket", "format": files.FORMAT_VERSION, "sha256": digest}
        for name, tensor in TENSORS.items():
            assert torch.equal(file.get(name, tuple(tensor.shape), tensor.dtype), tensor)


def test_metadata_that_json_changes_is_still_readable(tmp_path: Path) -> None:
    files.write_tensors(tmp_path / "ticket", "ticket", {}, {"counts": {1: (1, 2), 10: (), 2: ()}})
    assert read(tmp_path / "ticket")["counts"] == {"1": [1, 2], "10": [], "2": []}


@pytest.mark.parametrize("change", ["name", "dtype", "shape", "value"])
def test_the_digest_covers_name_dtype_shape_and_value(change: str) -> None:
    tensor = torch.tensor([1.0, 2.0])
    other = {
        "name": {"b": tensor},
        "dtype": {"a": tensor.view(torch.int32)},
        "shape": {"a": tensor.reshape(2, 1)},
        "value": {"a": tensor + 1},
    }[change]
    assert files.tensors_digest({"a": tensor}) != files.tensors_digest(other)


def test_a_tensor_of_another_name_shape_or_dtype_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "ticket")
    with files.TensorFile(tmp_path / "ticket", "ticket") as file:
        with pytest.raises(FileFormatError, match="the tensor 'c' is missing"):
            file.get("c")
        with pytest.raises(FileFormatError, match=r"'b' has shape \(2, 3\), not \(3, 2\)"):
            file.get("b", (3, 2))
        with pytest.raises(FileFormatError, match=r"'b' has dtype torch.float32, not torch.float64"):
            file.get("b", dtype=torch.float64)


# --- the reader's refusals: one line each, with the file's name


def refusal(path: Path, kind: str = "ticket") -> LtpError:
    with pytest.raises(LtpError) as caught:
        read(path, kind)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return caught.value


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path / "ticket")
    assert isinstance(error, InputError)
    assert "does not exist; expected a ticket file" in str(error)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    write(path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert isinstance(refusal(path), FileFormatError), size


@pytest.mark.parametrize("bit", [0, 5])
def test_every_flipped_bit_is_refused(tmp_path: Path, bit: int) -> None:
    path = tmp_path / "ticket"
    write(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        assert isinstance(refusal(path), FileFormatError), place


def test_another_kind_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "file")
    assert "is a ticket file; expected a scores file" in str(refusal(tmp_path / "file", "scores"))


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(files, "FORMAT_VERSION", 2)
        write(tmp_path / "ticket")
    assert "has format 2, this version reads 1; update ltprompt" in str(refusal(tmp_path / "ticket"))


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"ltprompt": "not json"}, {"ltprompt": "[]"}])
def test_a_safetensors_file_of_another_program_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "model", metadata=metadata)
    assert "was not written by ltprompt" in str(refusal(tmp_path / "model"))


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ticket").write_text("premise\thypothesis\tlabel\n")
    assert "truncated or not a safetensors file" in str(refusal(tmp_path / "ticket"))


# --- records


def test_a_record_is_read_back(tmp_path: Path) -> None:
    files.write_json(tmp_path / "record.json", METADATA)
    assert files.read_json(tmp_path / "record.json", "a record") == METADATA


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": ', "is not valid JSON"),
        (b"\xff\xfe{}", "is not valid JSON"),
        (json.dumps([1]).encode(), "does not hold a JSON object; expected a record"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=message) as caught:
        files.read_json(path, "a record")
    assert str(path) in str(caught.value)


def test_a_missing_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; expected a record"):
        files.read_json(tmp_path / "record.json", "a record")
