"""What a run is and what it leaves: plain, frozen, JSON in and out; the contract between running and reporting.

A run's identity is the SHA-256 over every resolved field of its `RunSpec`, so a changed default is a new run; a field
that is added gets its default by `settings.later`, so that runs made before keep their identity. A record holds no
time, no place and no machine: those stand in the ledger, so that equal runs leave equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import AliasChoices, Field

from ltprompt.files.artifacts import canonical_json, sha256
from ltprompt.settings import Frozen

RECORD_FORMAT = 1
Setting = Literal["zero-shot", "in-language"]
# What a report may hold, by the name that a grid asks for it.
TABLES = {
    "table1": "Table 1: zero-shot cross-lingual transfer",
    "table2": "Table 2: AmericasNLI",
    "table3": "Table 3: in-language prompting",
}
FIGURES = {
    "figure2a": "Figure 2a: accuracy of strategies and layers",
    "figure2b": "Figure 2b: accuracy of active ratios",
    "figure3": "Figure 3: where the tickets lie",
}
# Roles of the objects that a run needs; a test table's is this and its language.
TASK, TICKET, TRAIN, DEV, TEST = "task", "ticket", "train", "dev", "test/"


class DataRef(Frozen):
    """A table of a run, by content.

    name: where it came from, for people (no part of the identity). sha256: over its rows, as `sources.digest` gives it.
    examples: its number of rows.
    """

    name: str
    sha256: str
    examples: int


class TicketSpec(Frozen):
    """How a ticket is cut.

    criterion: ``delta`` (movement in stage 1), ``random``, ``magnitude``, ``gradient`` or ``fisher``; stored as
    ``select``. strategy: of stage 1, ``decoupled``, ``tied`` or ``frozen-embeddings``. ratio, scope, layers: as
    `selection.select` takes them. seed: of a random choice, else None. sha256: digest of the ticket's contents, empty
    until it is made. name: of the file of a ready ticket, for people and no part of the identity.
    """

    criterion: str = Field(validation_alias=AliasChoices("select", "criterion"), serialization_alias="select")
    strategy: str
    ratio: float
    scope: str
    layers: str
    seed: int | None
    sha256: str
    name: str = ""


class RunSpec(Frozen):
    """One training with its evaluations, every field resolved.

    backbone, revision, fingerprint: the backbone's name and revision, to load it by, and its fingerprint. task: its
    name. task_sha256: digest of the whole task. source: what the training data are called in tables, such as MultiNLI.
    language: of the training data, whose label words and pattern are used. shots: examples a class. method: as
    `methods.METHODS` names it. ticket: None for methods without. settings: every resolved setting of training, the
    recipe included. dtype: of matrix products. train, dev: training and dev rows. tests: language -> test rows.
    """

    format: int = RECORD_FORMAT
    backbone: str
    fingerprint: str
    task: str
    task_sha256: str
    source: str
    setting: Setting
    language: str
    shots: int
    seed: int
    method: str
    ticket: TicketSpec | None
    settings: dict[str, Any]
    dtype: str
    revision: str | None = None
    train: DataRef
    dev: DataRef | None
    tests: dict[str, DataRef]

    @property
    def id(self) -> str:
        """The run's identity, 64 hexadecimal digits."""
        plain = self.model_dump(mode="json", exclude={"backbone", "revision"})
        for named in (plain["train"], plain["dev"], plain["ticket"], *plain["tests"].values()):
            if named is not None:
                del named["name"]
        return sha256(canonical_json(plain))


@dataclass(frozen=True)
class Job:
    """A run and what its worker needs for it. assets: role, such as ``train``, -> key of a shared object."""

    spec: RunSpec
    assets: Mapping[str, str]


class LanguageResult(Frozen):
    """What a run reached in one language.

    accuracy, macro_f1: shares, the second with a class that does not occur as 0. confusion[gold][predicted]: counts.
    hits: one character an example, in the test table's order, ``1`` where the prediction is right and ``0`` where it is
    not. note: what a reader must know of the test rows, such as that they are the rest of a development set; empty
    otherwise.
    """

    accuracy: float
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]
    hits: str
    note: str = ""


class RunResult(Frozen):
    """What a run leaves.

    kept_epoch: its number from 1. dev_accuracy: of that epoch, None without dev. losses, dev_accuracies: by epoch.
    changed_entries: how many entries of the backbone training changed. languages: results by language.
    """

    kept_epoch: int
    dev_accuracy: float | None
    losses: tuple[float, ...]
    dev_accuracies: tuple[float | None, ...]
    changed_entries: int
    languages: dict[str, LanguageResult]


class RunRecord(Frozen):
    """A finished run: what it was and what it left."""

    spec: RunSpec
    result: RunResult


class TicketRecord(Frozen):
    """A ticket that a grid made: how it was cut, for which backbone, and where its entries lie.

    distribution: as `Distribution.to_json` gives it.
    """

    spec: TicketSpec
    fingerprint: str
    distribution: dict[str, Any]


@dataclass(frozen=True)
class Results:
    """All that a report is made of.

    name: of the grid. layouts: which tables and figures it is for. runs: the finished ones, ascending by id. tickets:
    those that the grid made, in the same order at every reading. planned: how many runs the grid has in all.
    """

    name: str
    layouts: tuple[str, ...]
    runs: tuple[RunRecord, ...]
    tickets: tuple[TicketRecord, ...]
    planned: int

    def __repr__(self) -> str:
        return f"Results({self.name}, {len(self.runs):,} of {self.planned:,} runs, {len(self.tickets):,} tickets)"
