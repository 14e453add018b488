"""Adapters: what training leaves of a backbone and a prompt, saved, loaded, applied and reverted bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltprompt.backbone.changes import Change
from ltprompt.backbone.model import Backbone
from ltprompt.errors import FileFormatError, InputError, MismatchError, OutputError
from ltprompt.files.artifacts import (
    ADAPTER_RECORD,
    ADAPTER_TENSORS,
    FORMAT_VERSION,
    TensorFile,
    canonical_json,
    read_json,
    sha256,
    write_json,
    write_tensors,
)

KIND = "adapter"
# Names of the tensors, kept from when prompts alone were folded.
FOLDED = "prompt"
STATE = "prompt_encoder/"


@dataclass(frozen=True, eq=False)
class Adapter:
    """What training leaves.

    changes: new values of backbone entries, each name once. shapes: the full shape of each changed parameter.
    folded: what trained beside the backbone as one matrix, fp32: a prompt [n, width], with n = 0 for methods without
    one, or a classifier, see `PooledClassifier`. moves_output: whether changes to a tied embedding matrix move the
    output side too. fingerprint, backbone, revision: of the backbone it belongs to; only the fingerprint is compared.
    settings: task, method, language, lengths: all that rebuilds template and verbaliser. record: how it was trained.
    state: the same before folding, by name, where it was kept to train on.
    """

    changes: tuple[Change, ...]
    shapes: dict[str, tuple[int, ...]]
    folded: Tensor
    moves_output: bool
    fingerprint: str
    backbone: str
    revision: str | None
    settings: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of changed backbone entries."""
        return sum(len(change.index) for change in self.changes)

    @property
    def dtype(self) -> str | None:
        """Name of the matmul dtype that it was trained in; None where its record does not say."""
        return self.record.get("dtype")

    def apply(self, backbone: Backbone) -> None:
        """Put the changes on a backbone; an adapter that is on it is taken off first.

        Where other threads use the backbone too, hold it: ``with backbone.applied(adapter):``.
        Raises `MismatchError` where the adapter belongs to another backbone.
        """
        with backbone.applied(self):
            pass  # it stays on

    def revert(self, backbone: Backbone) -> None:
        """Take this adapter off a backbone, bit for bit; where it is not on it, nothing happens."""
        backbone.overlay.take_off(self)

    def check(self, backbone: Backbone) -> None:
        """Raise `MismatchError` unless the adapter was trained on this backbone."""
        if self.fingerprint != backbone.fingerprint:
            raise MismatchError(
                f"this adapter was trained on {self.backbone} ({self.fingerprint[:12]}), not on {backbone.name} "
                f"({backbone.fingerprint[:12]}); load the backbone it was trained on"
            )
        for name, shape in self.shapes.items():
            if name not in backbone.parameters or tuple(backbone.parameters[name].shape) != shape:
                raise MismatchError(f"the adapter changes {name} {shape}, which {backbone.name} does not have")

    def __repr__(self) -> str:
        method = f"{self.settings['method']}, " if "method" in self.settings else ""
        return f"Adapter({method}{self.size:,} changed entries of {self.backbone or 'a backbone'})"

    def save(self, directory: Path | str) -> None:
        """Write adapter.safetensors and adapter.json; each holds the other's checksum, and the second comes last."""
        directory = Path(directory)
        tensors: dict[str, Tensor] = {FOLDED: self.folded}
        tensors |= {STATE + name: tensor for name, tensor in self.state.items()}
        for change in self.changes:
            tensors |= _packed(change, self.shapes[change.name])
        record = {key: getattr(self, key) for key in _RECORDED} | {"format": FORMAT_VERSION}
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        header = {"shapes": shapes, "record_sha256": _record_digest(record)}
        digest = write_tensors(directory / ADAPTER_TENSORS, KIND, tensors, header)
        try:
            write_json(directory / ADAPTER_RECORD, record | {"tensors_sha256": digest})
        except OutputError:
            (directory / ADAPTER_TENSORS).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, directory: Path | str) -> Adapter:
        """Read and check what `save` wrote. Raises `InputError` or `FileFormatError` with what is wrong."""
        directory = Path(directory)
        record = read_record(directory)
        tensors_sha256 = record.pop("tensors_sha256", None)
        with TensorFile(directory / ADAPTER_TENSORS, KIND) as file, file.verified():
            if file.metadata["sha256"] != tensors_sha256:
                raise FileFormatError(
                    f"{directory}: {ADAPTER_RECORD} and {ADAPTER_TENSORS} are of different trainings; copy both again"
                )
            shapes = {name: tuple(shape) for name, shape in file.metadata["shapes"].items()}
            state = {n.removeprefix(STATE): file.get(n).clone() for n in file.names if n.startswith(STATE)}
            folded = file.get(FOLDED).clone()
            if folded.ndim != 2 or not folded.isfinite().all():
                raise file.damaged("the prompt is not a matrix of finite numbers")
            changes = tuple(_unpacked(file, name, shape) for name, shape in shapes.items())
        if _record_digest(record) != file.metadata.get("record_sha256"):
            raise FileFormatError(f"{directory / ADAPTER_RECORD} was altered; copy it again or train anew")
        fields = {key: record[key] for key in _RECORDED}
        return cls(changes=changes, shapes=shapes, folded=folded, state=state, **fields)


_RECORDED = ("moves_output", "fingerprint", "backbone", "revision", "settings", "record")


def _record_digest(record: Mapping[str, Any]) -> str:
    """Return the digest of what decides an adapter's predictions: where its backbone was found does not."""
    return sha256(canonical_json({key: record[key] for key in record if key not in ("backbone", "revision")}))


def read_record(directory: Path | str) -> dict[str, Any]:
    """Return an adapter's adapter.json, complete. Raises `InputError` where there is none, `FileFormatError` if bad."""
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory} does not exist; expected an adapter folder as `ltprompt train` writes")
    record = read_json(directory / ADAPTER_RECORD, "an adapter folder as `ltprompt train` writes")
    for key in _RECORDED:
        if key not in record:
            raise FileFormatError(f"{directory / ADAPTER_RECORD} lacks {key!r}; copy it again or train anew")
    return record


def revert(backbone: Backbone) -> None:
    """Take off whatever adapter is on a backbone."""
    backbone.overlay.take_off()


def _packed(change: Change, shape: tuple[int, ...]) -> Mapping[str, Tensor]:
    """Return a change as tensors: values, a bitmap over the rows that hold any, and those rows' numbers if not all."""
    width = shape[-1] if len(shape) > 1 else 1
    mask = np.zeros((int(np.prod(shape)) // width, width), np.bool_)
    mask.reshape(-1)[change.index.numpy()] = True
    rows = np.flatnonzero(mask.any(axis=1))
    tensors = {f"values/{change.name}": change.values}
    if len(rows) * width > len(change.index):
        tensors[f"bits/{change.name}"] = torch.from_numpy(np.packbits(mask[rows], bitorder="little"))
    if len(rows) < len(mask):
        tensors[f"rows/{change.name}"] = torch.from_numpy(rows.astype(np.int32))
    return tensors


def _unpacked(file: TensorFile, name: str, shape: tuple[int, ...]) -> Change:
    width = shape[-1] if len(shape) > 1 else 1
    height = int(np.prod(shape)) // width
    values = file.get(f"values/{name}", dtype=torch.float32).clone()
    rows = np.arange(height, dtype=np.int64)
    if f"rows/{name}" in file.names:
        rows = file.get(f"rows/{name}", dtype=torch.int32).numpy().astype(np.int64)
    if len(rows) == 0 or rows[0] < 0 or rows[-1] >= height or (np.diff(rows) <= 0).any():
        raise file.damaged(f"rows of {name!r} are not ascending numbers below {height}")
    size = len(rows) * width
    if f"bits/{name}" in file.names:
        packed = file.get(f"bits/{name}", shape=((size + 7) // 8,), dtype=torch.uint8).numpy()
        index = np.flatnonzero(np.unpackbits(packed, count=size, bitorder="little").view(np.bool_))
    else:
        index = np.arange(size)
    if len(rows) < height:  # the entries of a kept row lie as far on as rows are left out before it
        index += (rows - np.arange(len(rows)))[index // width] * width
    # A sum in float64 cannot overflow, so it is finite exactly if every value is.
    if len(index) != len(values) or not values.sum(dtype=torch.float64).isfinite():
        raise file.damaged(f"{name!r} has {len(values)} values for {len(index)} entries, or values that are not finite")
    return Change(name, torch.from_numpy(index.astype(np.int32)), values)
