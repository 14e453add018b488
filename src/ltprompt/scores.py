"""Scores: how far stage 1 moved every eligible parameter, |theta^l - theta| (paper section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ltprompt.eligible import EligibleParameter
from ltprompt.errors import FileFormatError, InputError, OutputError, choices
from ltprompt.files import (
    SCORES_RECORD,
    SCORES_TENSORS,
    TensorFile,
    read_json,
    tensors_digest,
    write_json,
    write_tensors,
)
from ltprompt.ticket import STRATEGIES, Scope, Ticket, read_field, read_parameters, select

KIND = "scores"
DIGEST_KEY = "scores_sha256"


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one backbone, corpus and strategy.

    parameters: the eligible set in parameter order; with strategy ``frozen-embeddings`` it has no embeddings.
    tensors: name -> fp32 tensor of the parameter's shape on the CPU, non-negative. After `load` they are mapped from
        the file and read only when used.
    strategy: ``decoupled``, ``tied`` or ``frozen-embeddings``.
    fingerprint: the backbone's, hexadecimal.
    sha256: digest over names, dtypes, shapes and bytes of the tensors; computed where it is not given.
    """

    parameters: tuple[EligibleParameter, ...]
    tensors: Mapping[str, Tensor]
    strategy: str
    fingerprint: str
    sha256: str = ""

    def __post_init__(self) -> None:
        """Raise `InputError` for an unknown strategy or tensors that do not fit the parameters."""
        if self.strategy not in STRATEGIES:
            raise InputError(f"unknown strategy {self.strategy!r}; {choices(self.strategy, STRATEGIES)}")
        for name in {p.name for p in self.parameters} ^ self.tensors.keys():
            raise InputError(f"the scores and the eligible set differ in {name!r}; give one tensor a parameter")
        if not self.sha256:
            object.__setattr__(self, "sha256", tensors_digest(self.tensors))

    def tensor(self, name: str) -> Tensor:
        """Return the scores of one parameter, fp32, of its shape. Raises `InputError` for an unknown name."""
        if name not in self.tensors:
            raise InputError(f"no eligible parameter is named {name!r}; {choices(name, self.tensors)}")
        return self.tensors[name]

    def select(self, ratio: float, scope: Scope = "global", layers: str = "all") -> Ticket:
        """Cut a ticket: see `ltprompt.ticket.select` for the rule, the arguments and the errors."""
        pairs = [(parameter, self.tensors[parameter.name]) for parameter in self.parameters]
        selection = select(pairs, ratio=ratio, scope=scope, layers=layers)
        return Ticket(
            parameters=self.parameters,
            bitmaps=selection.bitmaps,
            tied=self.strategy == "tied",
            fingerprint=self.fingerprint,
            strategy=self.strategy,
            ratio=ratio,
            scope=scope,
            layers=layers,
            zero_entries=selection.zero_entries,
            scores_sha256=self.sha256,
        )

    def save(self, directory: Path | str, record: Mapping[str, Any]) -> None:
        """Write ``scores.safetensors``, then ``scores.json`` with the record and the digest. Raises `OutputError`."""
        directory = Path(directory)
        metadata = {
            "parameters": [parameter.to_json() for parameter in self.parameters],
            "strategy": self.strategy,
            "fingerprint": self.fingerprint,
        }
        digest = write_tensors(directory / SCORES_TENSORS, KIND, self.tensors, metadata)
        try:
            write_json(directory / SCORES_RECORD, {**record, DIGEST_KEY: digest})
        except OutputError:
            (directory / SCORES_TENSORS).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Open the scores in a directory, or in a file given by its own path, and check them.

        Raises `InputError` where they are missing, `FileFormatError` where they are damaged or ``scores.json`` beside
        them belongs to other scores.
        """
        path = Path(path)
        path = path / SCORES_TENSORS if path.is_dir() else path
        file = TensorFile(path, KIND)
        file.verify()
        parameters = read_parameters(file)
        if file.names != {parameter.name for parameter in parameters}:
            raise file.damaged("its tensors are not those of its eligible set")
        strategy = read_field(file, "strategy", str)
        if strategy not in STRATEGIES:
            raise file.damaged(f"its strategy {strategy!r} is unknown")
        digest = read_field(file, "sha256", str)
        _check_record(path, digest)
        # safetensors maps the file: a tensor that is not used is not read
        tensors = {p.name: file.get(p.name, shape=p.shape, dtype=torch.float32) for p in parameters}
        return cls(parameters, tensors, strategy, read_field(file, "fingerprint", str), digest)


def _check_record(path: Path, digest: str) -> None:
    """Raise `FileFormatError` where the record beside the scores tells of other scores."""
    record_path = path.parent / SCORES_RECORD
    if path.name != SCORES_TENSORS or not record_path.exists():
        return
    record = read_json(record_path, "the record of the scores")
    if record.get(DIGEST_KEY) != digest:
        raise FileFormatError(
            f"{record_path} does not belong to {path}: their checksums differ; find the scores anew, "
            f"or remove {SCORES_RECORD} to use the scores without their record"
        )
