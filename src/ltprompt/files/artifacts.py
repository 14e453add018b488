"""The one atomic writer and the one checked reader that every artifact goes through, and every file name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ltprompt.errors import FileFormatError, InputError, OutputError
from ltprompt.files.places import check_folder

FORMAT_VERSION = 1
METADATA_KEY = "ltprompt"
HEADER_DIGEST = "header_sha256"

SCORES_TENSORS = "scores.safetensors"
SCORES_RECORD = "scores.json"
SCORES_CHECKPOINT = "checkpoint.safetensors"
ADAPTER_TENSORS = "adapter.safetensors"
ADAPTER_RECORD = "adapter.json"
SPLIT_TRAIN = "train.{shots}.jsonl"
SPLIT_DEV = "dev.{shots}.jsonl"
SPLIT_REST = "rest.jsonl"
GRID_FILE = "grid.yaml"
GRID_LEDGER = "ledger.sqlite"
GRID_PLAN = "plan.json"
GRID_RUNS = "runs"
GRID_PACKED = "records.jsonl"
GRID_SCORES = "scores"
GRID_TICKETS = "tickets"
GRID_REPORT = "report"
REPORT_HTML = "report.html"
REPORT_LATEX = "report.tex"
REPORT_CSV = "report.csv"
REPORT_COMPARISONS = "comparisons.csv"


def check_place(out: str | Path, file: str, what: str) -> None:
    """Raise `InputError` where `out` holds a finished result or cannot be made; commands ask before their long work."""
    out = Path(out)
    if (out / file).exists():
        raise InputError(f"{out} already holds {what}; use it, choose another `out`, or delete it")
    check_folder(out, "out")


def canonical_json(data: Any) -> str:
    """Return the one JSON text of `data`: sorted keys, no spaces, UTF-8 kept, NaN refused."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256(text: str) -> str:
    """Return the SHA-256 of a text as hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; flush it and rename it over `path` when the block succeeds.

    When the block fails nothing is left behind and an older `path` stays as it was.
    Raises `OutputError` where the file system refuses, for instance with no space left.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; flush its files and rename it to `path` when the block succeeds.

    `path` must not exist. When the block fails nothing is left behind.
    Raises `OutputError` where the file system refuses, for instance with no space left.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
        yield temporary
        for file in temporary.iterdir():
            _flush(file)
            file.chmod(0o666 & ~_umask())
        temporary.chmod(0o777 & ~_umask())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON with sorted keys, atomically."""
    write_text(path, json_text(data))


def json_text(data: Any) -> str:
    """Return what `write_json` writes. Raises `ValueError` for NaN."""
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_tensors(path: Path, kind: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> str:
    """Write tensors and metadata as one safetensors file, atomically, and return the tensors' SHA-256.

    All metadata stands under one key as canonical JSON (safetensors shuffles several keys), with the kind of
    artifact, the format's version and the digests of tensors and header that `TensorFile` checks; equal input gives
    equal bytes.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digest = tensors_digest(plain)
    header = {**metadata, "kind": kind, "format": FORMAT_VERSION, "sha256": digest}
    # The digest is of what a reader will parse: JSON turns keys into strings and tuples into lists.
    header[HEADER_DIGEST] = _header_digest(json.loads(canonical_json(header)))
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata={METADATA_KEY: canonical_json(header)})
    return digest


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of tensors on the CPU, in the names' order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        update_digest(digest, name, tensors[name])
    return digest.hexdigest()


def update_digest(digest: Any, name: str, tensor: torch.Tensor) -> None:
    """Feed one contiguous CPU tensor, with its name, dtype and shape, to a hash."""
    digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
    if tensor.numel():
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())


class TensorFile:
    """A safetensors artifact of this project, checked when opened; its tensors are read only when asked for.

    names: what a user may give instead of a path, named where the file is missing. Raises `InputError` there, and
    `FileFormatError` where the file is truncated, altered, of another kind or of a newer format.
    """

    def __init__(self, path: Path, kind: str, names: Iterable[str] = ()) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            expected = ", ".join(filter(None, (f"a {kind} file", " or ".join(names))))
            raise InputError(f"{self.path} does not exist; expected {expected}")
        try:
            self._file = safe_open(self.path, framework="pt").__enter__()
            header = json.loads((self._file.metadata() or {})[METADATA_KEY])
        except (SafetensorError, OSError) as error:
            raise self.damaged(f"it is truncated or not a safetensors file ({error})") from error
        except (KeyError, ValueError) as error:
            raise FileFormatError(f"{self.path} was not written by ltprompt; expected a {kind} file") from error
        if not isinstance(header, dict):
            raise FileFormatError(f"{self.path} was not written by ltprompt; expected a {kind} file")
        if header.get("kind") != kind:
            raise FileFormatError(f"{self.path} is a {header.get('kind')} file; expected a {kind} file")
        if header.get("format") != FORMAT_VERSION:
            raise FileFormatError(
                f"{self.path} has format {header.get('format')}, this version reads {FORMAT_VERSION}; "
                "update ltprompt or make the file anew"
            )
        if header.pop(HEADER_DIGEST, None) != _header_digest(header):
            raise self.damaged("its header does not match the checksum in it")
        self.metadata: dict[str, Any] = header
        self.names = frozenset(self._file.keys())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def damaged(self, why: str) -> FileFormatError:
        """Return the error that says that this file cannot be trusted, and the mend."""
        return FileFormatError(f"{self.path} is damaged: {why}; copy it again or make it anew")

    def get(self, name: str, shape: tuple[int, ...] | None = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return one tensor, backed by the file, after checking its presence, shape and dtype."""
        if name not in self.names:
            raise self.damaged(f"the tensor {name!r} is missing")
        tensor: torch.Tensor = self._file.get_tensor(name)
        if shape is not None and tuple(tensor.shape) != tuple(shape):
            raise self.damaged(f"{name!r} has shape {tuple(tensor.shape)}, not {tuple(shape)}")
        if dtype is not None and tensor.dtype != dtype:
            raise self.damaged(f"{name!r} has dtype {tensor.dtype}, not {dtype}")
        return tensor

    @contextmanager
    def verified(self) -> Iterator[None]:
        """Verify while the block takes tensors out: both wait for memory more than for each other.

        Raises what `verify` raises, also where the block fails, on what may be damaged.
        """
        with ThreadPoolExecutor(1) as pool:
            verdict = pool.submit(self.verify)
            try:
                yield
            finally:
                verdict.result()

    def verify(self) -> None:
        """Raise `FileFormatError` unless the tensors' bytes are those that were written."""
        digest = hashlib.sha256()
        for name in sorted(self.names):
            update_digest(digest, name, self._file.get_tensor(name))
        if digest.hexdigest() != self.metadata.get("sha256"):
            raise self.damaged("its contents do not match the checksum in its header")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Return the JSON object in a file. Raises `InputError` where it is missing, `FileFormatError` where damaged."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected {what}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileFormatError(f"{path} is not valid JSON ({error}); copy it again or make it anew") from error
    if not isinstance(data, dict):
        raise FileFormatError(f"{path} does not hold a JSON object; expected {what}")
    return data


def _header_digest(header: dict[str, Any]) -> str:
    return sha256(canonical_json(header))


def _flush(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _reason(error: Exception) -> str:
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text:
        return "no space left on the disk; free some space or choose another place"
    return text
