"""Tickets: sets of eligible parameters cut from scores, as packed bitmaps (paper section 3, stage 1 to 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from types import NoneType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltprompt.backbone.parameters import EligibleParameter, total
from ltprompt.errors import InputError, MismatchError, choices
from ltprompt.files.artifacts import TensorFile, write_tensors
from ltprompt.tickets.header import CRITERIA, Header, read_field
from ltprompt.tickets.selection import SCOPES, Bitmap

KIND = "ticket"
READY = {f"mini-{size}": Path(__file__).parents[1] / "mini" / f"ticket-{size}.safetensors" for size in (20, 75)}
COMBINATIONS = ("union", "intersection")
MIXED = "mixed"  # scope or layers of a combination of tickets that differ in it


@dataclass(frozen=True, eq=False)
class Ticket:
    """A set of entries of the eligible parameters of one backbone.

    parameters: the whole eligible set, in parameter order.
    bitmaps: name -> uint8 array of ceil(numel / 8) bytes, one bit an entry in flat order, the first entry in the lowest
        bit, padding bits zero. Tensors without an entry are absent.
    tied: whether input and output embeddings share one matrix (strategy ``tied``), so that both sides move.
    fingerprint: the backbone's, hexadecimal.
    strategy, ratio, scope, layers: how the scores were found and the ticket was cut; of a union or an intersection its
        own active ratio, and ``mixed`` where its tickets have different scopes or layers.
    zero_entries: how many entries have score 0; 0 for a union or an intersection, whose entries have no one score.
    scores_sha256: digest of the scores that the ticket was cut from, where known.
    criterion: what the entries were ranked by, one of CRITERIA (``delta`` is the movement in stage 1), or ``union`` or
        ``intersection``.
    seed: of the draw, with criterion ``random`` only.
    """

    parameters: tuple[EligibleParameter, ...]
    bitmaps: Mapping[str, Bitmap]
    tied: bool
    fingerprint: str
    strategy: str
    ratio: float
    scope: str
    layers: str
    zero_entries: int
    scores_sha256: str | None = None
    criterion: str = "delta"
    seed: int | None = None

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {p.name: popcount(self.bitmaps[p.name]) if p.name in self.bitmaps else 0 for p in self.parameters}

    @cached_property
    def _by_name(self) -> dict[str, EligibleParameter]:
        return {parameter.name: parameter for parameter in self.parameters}

    @property
    def size(self) -> int:
        """K, the number of entries."""
        return sum(self._counts.values())

    @property
    def active_ratio(self) -> float:
        """The number of entries over that of the whole eligible set."""
        return self.size / total(self.parameters)

    def count(self, name: str) -> int:
        """Return the number of entries in one tensor."""
        return self._counts[self._parameter(name).name]

    def indices(self, name: str) -> Tensor:
        """Return the flat indices of one tensor's entries, ascending, int64 (count,)."""
        return torch.from_numpy(np.flatnonzero(self._flat_mask(name)))

    def mask(self, name: str) -> Tensor:
        """Return a boolean tensor of the parameter's shape, true at the entries."""
        return torch.from_numpy(self._flat_mask(name)).reshape(self._parameter(name).shape)

    def check(self, fingerprint: str) -> None:
        """Raise `MismatchError` unless the ticket was cut for the backbone with this fingerprint."""
        if fingerprint != self.fingerprint:
            raise MismatchError(
                f"the ticket is for the backbone {self.fingerprint[:12]}, this backbone is {fingerprint[:12]}; "
                "use the backbone that the scores were found with, or find scores for this one and cut anew"
            )

    def save(self, path: Path | str) -> None:
        """Write the ticket; equal tickets give equal bytes. Raises `OutputError`."""
        tensors = {name: torch.from_numpy(bitmap) for name, bitmap in self.bitmaps.items()}
        metadata = {
            **Header(self.parameters, self.strategy, self.fingerprint, self.criterion, self.seed).to_json(),
            "counts": {name: count for name, count in self._counts.items() if count},
            "ratio": float(self.ratio),  # 1 and 1.0 must give the same bytes
            "scope": self.scope,
            "layers": self.layers,
            "zero_entries": self.zero_entries,
            "scores_sha256": self.scores_sha256,
        }
        write_tensors(Path(path), KIND, tensors, metadata)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read and check a ticket: a file, or else ``mini-20`` or ``mini-75``, which come with the embedded backbone.

        Raises `InputError` where it is missing, `FileFormatError` where damaged.
        """
        place = Path(path) if Path(path).exists() else READY.get(str(path), Path(path))
        with TensorFile(place, KIND, READY) as file:
            file.verify()
            header = Header.read(file, (*CRITERIA, *COMBINATIONS))
            ticket = cls(
                parameters=header.parameters,
                bitmaps=_read_bitmaps(file, header.parameters),
                tied=header.strategy == "tied",
                fingerprint=header.fingerprint,
                strategy=header.strategy,
                ratio=float(read_field(file, "ratio", (float, int))),
                scope=read_field(file, "scope", str),
                layers=read_field(file, "layers", str),
                zero_entries=read_field(file, "zero_entries", int),
                scores_sha256=read_field(file, "scores_sha256", (str, NoneType)),
                criterion=header.criterion,
                seed=header.seed,
            )
            scopes = (*SCOPES, MIXED) if ticket.criterion in COMBINATIONS else SCOPES
            if ticket.scope not in scopes or not 0 <= ticket.ratio <= 1:
                raise file.damaged("its header holds an unknown scope, or a ratio outside [0, 1]")
            if not 0 <= ticket.zero_entries <= ticket.size:
                raise file.damaged(f"it tells of {ticket.zero_entries} zero-score entries among {ticket.size}")
            return ticket

    def __repr__(self) -> str:
        entries = f"{self.size:,} of {total(self.parameters):,} entries"
        return f"Ticket({entries}, {self.strategy}, {100 * self.active_ratio:.3g} %)"

    def _parameter(self, name: str) -> EligibleParameter:
        if name not in self._by_name:
            raise InputError(f"no eligible parameter is named {name!r}; {choices(name, self._by_name)}")
        return self._by_name[name]

    def _flat_mask(self, name: str) -> NDArray[np.bool_]:
        numel = self._parameter(name).numel
        if name not in self.bitmaps:
            return np.zeros(numel, dtype=np.bool_)
        return np.unpackbits(self.bitmaps[name], count=numel, bitorder="little").view(np.bool_)


def union(tickets: Sequence[Ticket]) -> Ticket:
    """Return the ticket of the entries that stand in at least one of several tickets.

    Raises `InputError` for fewer than two, `MismatchError` where their backbones, strategies or eligible sets differ.
    """
    return _combined(tickets, "union", np.bitwise_or)


def intersection(tickets: Sequence[Ticket]) -> Ticket:
    """Return the ticket of the entries that stand in each of several tickets; the errors are those of `union`."""
    return _combined(tickets, "intersection", np.bitwise_and)


def popcount(bitmap: Bitmap) -> int:
    """Return the number of set bits."""
    return int(np.bitwise_count(bitmap).sum(dtype=np.int64))


def _combined(tickets: Sequence[Ticket], criterion: str, operation: Callable[[Bitmap, Bitmap], Bitmap]) -> Ticket:
    """Return the ticket whose bitmaps are those of `tickets` joined bit by bit, in memory of one more ticket."""
    if len(tickets) < 2:
        raise InputError(f"{len(tickets)} ticket(s) have no {criterion}; give two or more")
    first = tickets[0]
    for other in tickets[1:]:
        _check_alike(first, other)
    nothing = np.zeros(1, dtype=np.uint8)  # broadcast to the other bitmaps of its tensor
    joined = {
        parameter.name: reduce(operation, [ticket.bitmaps.get(parameter.name, nothing) for ticket in tickets])
        for parameter in first.parameters
    }
    bitmaps = {name: bitmap for name, bitmap in joined.items() if bitmap.any()}
    digests = {ticket.scores_sha256 for ticket in tickets}
    return Ticket(
        parameters=first.parameters,
        bitmaps=bitmaps,
        tied=first.tied,
        fingerprint=first.fingerprint,
        strategy=first.strategy,
        ratio=sum(map(popcount, bitmaps.values())) / total(first.parameters),
        scope=_common({ticket.scope for ticket in tickets}),
        layers=_common({ticket.layers for ticket in tickets}),
        zero_entries=0,
        scores_sha256=first.scores_sha256 if len(digests) == 1 else None,
        criterion=criterion,
    )


def _common(values: set[str]) -> str:
    return values.pop() if len(values) == 1 else MIXED


def _check_alike(first: Ticket, other: Ticket) -> None:
    """Raise `MismatchError`, naming what differs and both values, unless two tickets can be combined."""
    different = None
    if first.fingerprint != other.fingerprint:
        different = f"are for different backbones, {first.fingerprint[:12]} and {other.fingerprint[:12]}"
    elif first.strategy != other.strategy:
        different = f"have different strategies, {first.strategy} and {other.strategy}"
    elif differing := set(first.parameters) ^ set(other.parameters):
        sizes = f"of {total(first.parameters):,} and {total(other.parameters):,} entries"
        different = f"have different eligible sets, {sizes} (see {min(p.name for p in differing)})"
    if different:
        raise MismatchError(f"the tickets {different}; combine tickets of one backbone, strategy and eligible set")


def _read_bitmaps(file: TensorFile, parameters: Sequence[EligibleParameter]) -> dict[str, Bitmap]:
    """Return copies of a ticket's bitmaps, each of the right length, without padding bits and with its count."""
    counts = read_field(file, "counts", dict)
    numel = {parameter.name: parameter.numel for parameter in parameters}
    if file.names != counts.keys() or not file.names <= numel.keys():
        raise file.damaged("its bitmaps, its counts and its eligible set name different tensors")
    bitmaps = {}
    for name in sorted(file.names):
        # copied, so that a ticket in use does not depend on its file
        bitmap: Bitmap = file.get(name, shape=(-(-numel[name] // 8),), dtype=torch.uint8).numpy().copy()
        padding = -numel[name] % 8
        if padding and bitmap[-1] >> (8 - padding):
            raise file.damaged(f"{name!r} has entries beyond its end")
        if popcount(bitmap) != counts[name] or counts[name] == 0:
            raise file.damaged(f"{name!r} has {popcount(bitmap)} entries, its header says {counts[name]}")
        bitmaps[name] = bitmap
    return bitmaps
