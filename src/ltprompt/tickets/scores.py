"""Scores: how far stage 1 moved every eligible parameter, |theta^l - theta| (paper section 3), or a rival criterion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Self

import torch
from torch import Tensor

from ltprompt.backbone.parameters import EligibleParameter, total
from ltprompt.errors import FileFormatError, InputError, OutputError, choices
from ltprompt.files.artifacts import (
    SCORES_RECORD,
    SCORES_TENSORS,
    TensorFile,
    read_json,
    tensors_digest,
    write_json,
    write_tensors,
)
from ltprompt.tickets.header import CRITERIA, STRATEGIES, Header, read_field
from ltprompt.tickets.selection import Scope, select
from ltprompt.tickets.ticket import Ticket

KIND = "scores"
DIGEST_KEY = "scores_sha256"
READ_WEIGHTS = ("magnitude", "gradient", "fisher")  # criteria that need the backbone
READ_TEXT = ("gradient", "fisher")


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one backbone, corpus and strategy by one criterion.

    parameters: the eligible set in parameter order; with strategy ``frozen-embeddings`` it has no embeddings.
    tensors: name -> fp32 tensor of the parameter's shape on the CPU, non-negative. After `load` they are mapped from
        the file and read only when used.
    strategy: ``decoupled``, ``tied`` or ``frozen-embeddings``.
    fingerprint: the backbone's, hexadecimal.
    sha256: digest over names, dtypes, shapes and bytes of the tensors; computed where it is not given.
    criterion: what the scores are: ``delta``, the movement in stage 1, or a rival, see `ltprompt.stage1.criteria`.
    seed: of the draw, with criterion ``random`` only.
    """

    parameters: tuple[EligibleParameter, ...]
    tensors: Mapping[str, Tensor]
    strategy: str
    fingerprint: str
    sha256: str = ""
    criterion: str = "delta"
    seed: int | None = None

    def __post_init__(self) -> None:
        """Raise `InputError` for an unknown strategy or criterion, a stray seed or tensors of other parameters."""
        if self.strategy not in STRATEGIES:
            raise InputError(f"unknown strategy {self.strategy!r}; {choices(self.strategy, STRATEGIES)}")
        if self.criterion not in CRITERIA:
            raise InputError(f"unknown criterion {self.criterion!r}; {choices(self.criterion, CRITERIA)}")
        if (self.seed is None) == (self.criterion == "random"):
            raise InputError(f"criterion {self.criterion!r} with seed {self.seed}: random has a seed, and no other has")
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
        """Cut a ticket: see `ltprompt.tickets.selection.select` for the rule, the arguments and the errors."""
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
            criterion=self.criterion,
            seed=self.seed,
        )

    def save(self, directory: Path | str, record: Mapping[str, Any] | None = None) -> None:
        """Write ``scores.safetensors``, then ``scores.json`` with the record and the digest. Raises `OutputError`.

        record: where the scores come from, as plain JSON; `find_scores` with `out` writes one itself.
        """
        directory = Path(directory)
        header = Header(self.parameters, self.strategy, self.fingerprint, self.criterion, self.seed)
        digest = write_tensors(directory / SCORES_TENSORS, KIND, self.tensors, header.to_json())
        try:
            write_json(directory / SCORES_RECORD, {**(record or {}), DIGEST_KEY: digest})
        except OutputError:
            (directory / SCORES_TENSORS).unlink(missing_ok=True)
            raise

    def __repr__(self) -> str:
        return f"Scores({total(self.parameters):,} parameters, {self.strategy}, {self.criterion})"

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Open the scores in a directory, or in a file given by its own path, and check them.

        Raises `InputError` where they are missing, `FileFormatError` where they are damaged or ``scores.json`` beside
        them belongs to other scores.
        """
        path = _tensors_path(path)
        file = TensorFile(path, KIND)
        file.verify()
        header = Header.read(file)
        if file.names != {parameter.name for parameter in header.parameters}:
            raise file.damaged("its tensors are not those of its eligible set")
        digest = read_field(file, "sha256", str)
        _check_record(path, digest)
        # safetensors maps the file: a tensor that is not used is not read
        tensors = {p.name: file.get(p.name, shape=p.shape, dtype=torch.float32) for p in header.parameters}
        return cls(
            header.parameters, tensors, header.strategy, header.fingerprint, digest, header.criterion, header.seed
        )


@dataclass(frozen=True)
class Origin:
    """Where scores come from, as far as ``scores.json`` says: the backbone's name and revision, and tokens a line."""

    backbone: str | None = None
    revision: str | None = None
    max_length: int | None = None


def read_origin(path: Path | str) -> Origin:
    """Return where the scores that `Scores.load` opens at `path` come from; all None where no record lies beside them.

    Raises `FileFormatError` for a damaged record.
    """
    record_path = _tensors_path(path).parent / SCORES_RECORD
    if _tensors_path(path).name != SCORES_TENSORS or not record_path.exists():
        return Origin()
    record = read_json(record_path, "the record of the scores")
    settings = record.get("settings")
    length = settings.get("max_length") if isinstance(settings, dict) else None
    origin = Origin(record.get("backbone") or None, record.get("revision"), length)
    names = (origin.backbone, origin.revision)
    if not all(isinstance(name, (str, NoneType)) for name in names) or not isinstance(length, (int, NoneType)):
        raise FileFormatError(f"{record_path} was altered; copy it again or find the scores anew")
    return origin


def check_criterion(
    criterion: str, *, seed: object, backbone: object, texts: object, lines: object, revision: object = None
) -> None:
    """Raise `InputError` for an unknown criterion, and where what it needs is missing or what it ignores is given.

    seed, backbone, texts, lines, revision: what was given, None where nothing was. A missing backbone is no error
    here: the scores' record may name it.
    """
    if criterion not in CRITERIA:
        raise InputError(f"unknown criterion {criterion!r}; {choices(criterion, CRITERIA)}")
    users = {
        "seed": ("random",),
        "backbone": READ_WEIGHTS,
        "revision": READ_WEIGHTS,
        "texts": READ_TEXT,
        "lines": READ_TEXT,
    }
    given = {"seed": seed, "backbone": backbone, "revision": revision, "texts": texts, "lines": lines}
    for name, value in given.items():
        if value is not None and criterion not in users[name]:
            raise InputError(
                f"criterion {criterion!r} takes no {name}; leave `{name}` out, or choose {' or '.join(users[name])}"
            )
    if criterion in READ_TEXT and texts is None:
        raise InputError(f"criterion {criterion!r} needs text to take gradients on; give some as `texts`")


def _tensors_path(path: Path | str) -> Path:
    return Path(path) / SCORES_TENSORS if Path(path).is_dir() else Path(path)


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
