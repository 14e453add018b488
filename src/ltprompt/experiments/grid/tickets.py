"""The scores and tickets that several runs of a grid share: made once, first, and only where a run still needs them.

A ticket's record says what it is and the digest of its entries, so that runs are known by it without the ticket.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from ltprompt.backbone.model import Backbone
from ltprompt.errors import InputError, MismatchError
from ltprompt.experiments.folder import GridFolder
from ltprompt.experiments.grid.backbones import Backbones
from ltprompt.experiments.grid.schema import ScoresSection, TicketWish
from ltprompt.experiments.records import TicketRecord, TicketSpec
from ltprompt.files.artifacts import SCORES_CHECKPOINT, SCORES_TENSORS, canonical_json, sha256, tensors_digest
from ltprompt.settings import ScoresSettings
from ltprompt.stage1.corpus import read_lines, text_sha256
from ltprompt.stage1.criteria import find_criterion, random_scores
from ltprompt.stage1.find_scores import find_scores
from ltprompt.stage1.training import Watcher
from ltprompt.stage1.weights import trainable
from ltprompt.tickets.distribution import distribution
from ltprompt.tickets.scores import READ_TEXT, READ_WEIGHTS, Scores, read_origin
from ltprompt.tickets.selection import eligible_layers
from ltprompt.tickets.ticket import READY, Ticket

STAGE_ONE = ("text", "folder", "strategy")  # keys of a scores section that are no settings of stage 1


@dataclass
class Tickets:
    """Makes and keeps a grid's scores and tickets in its folder.

    base: what the grid's paths are seen from. stage_one: opens the watcher of a stage 1. say: hears what is made.
    """

    folder: GridFolder
    base: Path
    backbones: Backbones
    stage_one: Callable[[], AbstractContextManager[Watcher | None]] = lambda: nullcontext(None)
    say: Callable[[str], None] = lambda text: None
    _texts: dict[tuple[str, ...], tuple[list[str], str]] = field(default_factory=dict)
    _scores: dict[Path, Scores] = field(default_factory=dict)

    def problems(self, wish: TicketWish) -> list[str]:
        """Return why a ticket could not be made, as far as can be told before."""
        checks = [partial(self.make, wish)] if wish.scores is None else self._checks(wish, wish.scores)
        problems = []
        for check in checks:
            try:
                check()
            except (InputError, MismatchError) as error:
                problems.append(str(error))
        return problems

    def describe(self, wish: TicketWish) -> TicketSpec | None:
        """Return what a ticket is, or None where it has not been made yet."""
        if wish.file is None:
            name = self.name(wish)
            return self.folder.read_ticket_record(name).spec if self.folder.has_ticket_record(name) else None
        ticket = Ticket.load(self._ready(wish.file))
        return spec_of(ticket, digest(ticket), Path(wish.file).stem)

    def make(self, wish: TicketWish) -> Ticket:
        """Return a ticket, made where it is not there yet, with its record beside it; a ready one is read.

        Where the record says that it is one of those shipped, no stage 1 is run for it.
        Raises `MismatchError` where what is made is not what the record says, and what stage 1 raises.
        """
        if wish.file is not None:
            ticket = Ticket.load(self._ready(wish.file))
            ticket.check(self._fingerprint(wish))
            return ticket
        name = self.name(wish)
        path, known = self.folder.ticket(name), self.describe(wish)
        ticket = Ticket.load(path) if path.is_file() else _shipped(known, self._fingerprint(wish)) or self._cut(wish)
        if known is not None and digest(ticket) != known.sha256:
            raise MismatchError(
                f"{path} was made anew and is not what {self.folder.ticket_record(name)} says, as scores found on "
                "another machine may be; give those scores as scores.folder, or choose another `out`"
            )
        if not path.is_file():
            ticket.save(path)
        if known is None:
            self._record(name, ticket)
        return ticket

    def name(self, wish: TicketWish) -> str:
        """Return the name of a cut ticket's files: how it is cut, and the start of its scores' identity."""
        seed = "" if wish.seed is None else f"-seed{wish.seed}"
        cut = f"{wish.strategy}-{wish.criterion}{seed}-{wish.ratio!r}-{wish.scope}-{wish.layers.replace(',', '+')}"
        return f"{cut}-{self._scores_identity(wish)[:12]}"

    def lacks_scores(self, wish: TicketWish) -> bool:
        """Return whether a stage 1 must run before a ticket can be cut."""
        if (
            wish.scores is None
            or wish.scores.folder
            or wish.criterion == "random"
            or self.folder.has_ticket_record(self.name(wish))
        ):
            return False
        return not (self.own_scores(wish) / SCORES_TENSORS).is_file()

    def lines(self, section: ScoresSection) -> list[str]:
        """Return the lines of the text that scores are found on."""
        return self._text(section)[0]

    def record_ready(self, wish: TicketWish) -> None:
        """Write the record of a ready ticket, for the report."""
        assert wish.file is not None
        ticket = self.make(wish)
        self._record(f"{Path(wish.file).stem}-{digest(ticket)[:12]}", ticket, Path(wish.file).stem)

    def _checks(self, wish: TicketWish, section: ScoresSection) -> list[Callable[[], object]]:
        """Return what can be tried before a ticket is cut: its layers, its scores or their settings, its text."""
        backbone = self._backbone(wish)

        def check_layers() -> None:
            parameters = trainable(backbone, wish.strategy)
            eligible_layers(parameters, ratio=wish.ratio, scope=wish.scope, layers=wish.layers)

        checks: list[Callable[[], object]] = [check_layers]
        if section.folder is not None:
            checks.append(partial(self._find, wish))
        else:
            checks.append(partial(backbone.check_length, _settings(wish).max_length))
        if section.folder is None or wish.criterion in READ_TEXT:
            checks.append(partial(self._text, section))
        return checks

    def _record(self, name: str, ticket: Ticket, shown: str = "") -> None:
        by_part = distribution(ticket).to_json()
        self.folder.write_ticket_record(
            name,
            TicketRecord(
                spec=spec_of(ticket, digest(ticket), shown), fingerprint=ticket.fingerprint, distribution=by_part
            ),
        )

    def _cut(self, wish: TicketWish) -> Ticket:
        scores = self._ranking(wish)
        with self.backbones.phase(f"cutting ticket {self.name(wish)}"):
            return scores.select(wish.ratio, wish.scope, wish.layers)

    def _ranking(self, wish: TicketWish) -> Scores:
        """Return the scores that a ticket is cut from; random ones need no stage 1."""
        if wish.criterion == "random":
            parameters = trainable(self._backbone(wish), wish.strategy)
            return random_scores(parameters, wish.strategy, self._fingerprint(wish), wish.seed or 0)
        scores = self._find(wish)
        if wish.criterion == "delta":
            return scores
        backbone = self._backbone(wish) if wish.criterion in READ_WEIGHTS else None
        with self.backbones.phase(f"scores by {wish.criterion}"):
            return find_criterion(
                scores, wish.criterion, backbone=backbone,
                texts=self._text(wish.scores)[0] if wish.scores is not None and wish.criterion in READ_TEXT else None,
                compute=self.backbones.compute,
                max_length=read_origin(self._scores_place(wish)).max_length,
            )  # fmt: skip

    def _find(self, wish: TicketWish) -> Scores:
        place = self._scores_place(wish)
        if place not in self._scores:
            self._scores[place] = Scores.load(place) if (place / SCORES_TENSORS).is_file() else self._stage_one(wish)
        scores = self._scores[place]
        if scores.fingerprint != self._fingerprint(wish) or scores.strategy != wish.strategy:
            raise MismatchError(
                f"{place} holds scores of strategy {scores.strategy} and backbone {scores.fingerprint[:12]}, "
                f"not of {wish.strategy} and {self._fingerprint(wish)[:12]}; name another scores.folder"
            )
        return scores

    def _stage_one(self, wish: TicketWish) -> Scores:
        assert wish.scores is not None
        place, (lines, _) = self.own_scores(wish), self._text(wish.scores)
        self.say(f"stage 1, {wish.strategy}, in {place}")
        with self.stage_one() as watcher:
            return find_scores(
                self._backbone(wish), lines, place, settings=_settings(wish), compute=self.backbones.compute,
                resume=(place / SCORES_CHECKPOINT).exists(), watcher=watcher,
            )  # fmt: skip

    def _scores_place(self, wish: TicketWish) -> Path:
        """Return the folder of the scores that a ticket is cut from: one that the user has, or the grid's own."""
        assert wish.scores is not None
        if wish.scores.folder is None:
            return self.own_scores(wish)
        place = self.base / wish.scores.folder.replace("{strategy}", wish.strategy)
        if not (place / SCORES_TENSORS).is_file():
            raise InputError(f"scores.folder: {place} holds no scores; expected what `ltprompt scores` writes")
        return place

    def own_scores(self, wish: TicketWish) -> Path:
        """Return the folder of scores that the grid finds itself."""
        return self.folder.scores / f"{wish.strategy}-{self._scores_identity(wish)[:12]}"

    def _scores_identity(self, wish: TicketWish) -> str:
        """Return what scores are known by: their settings, text, backbone and precision, or the user's own digest.

        What reads text beside the user's scores is known by text and precision too.
        """
        assert wish.scores is not None
        reads_text = wish.scores.folder is None or wish.criterion in READ_TEXT
        text, dtype = self._text(wish.scores)[1] if reads_text else "", self.backbones.compute.dtype_name
        if wish.scores.folder is not None:
            return sha256(canonical_json([self._find(wish).sha256, text, dtype if reads_text else ""]))
        return sha256(canonical_json([_settings(wish).model_dump(), text, self._fingerprint(wish), dtype]))

    def _text(self, section: ScoresSection) -> tuple[list[str], str]:
        if not section.text:
            raise InputError("scores.text is missing; gradient and fisher need text beside the folder of scores")
        if section.text not in self._texts:
            lines = read_lines([self.base / name for name in section.text])
            self._texts[section.text] = (lines, text_sha256(lines))
        return self._texts[section.text]

    def _ready(self, name: str) -> Path:
        return Path(name) if name in READY else self.base / name

    def _backbone(self, wish: TicketWish) -> Backbone:
        return self.backbones.get(wish.backbone, wish.revision)

    def _fingerprint(self, wish: TicketWish) -> str:
        return self.backbones.fingerprint(wish.backbone, wish.revision)


def _shipped(known: TicketSpec | None, fingerprint: str) -> Ticket | None:
    """Return the ready ticket that a record speaks of, if it is one: its scores may be gone, or another machine's."""
    if known is None:
        return None
    ready = [ticket for ticket in map(Ticket.load, READY.values()) if ticket.fingerprint == fingerprint]
    return next((ticket for ticket in ready if digest(ticket) == known.sha256), None)


def digest(ticket: Ticket) -> str:
    """Return the SHA-256 over a ticket's entries."""
    return tensors_digest({name: torch.from_numpy(bitmap) for name, bitmap in ticket.bitmaps.items()})


def spec_of(cut: Ticket | TicketWish, sha256: str, name: str = "") -> TicketSpec:
    """Return how a ticket is cut, for records. sha256: of its contents. name: of a ready ticket's file."""
    return TicketSpec(
        criterion=cut.criterion,
        strategy=cut.strategy,
        ratio=cut.ratio,
        scope=cut.scope,
        layers=cut.layers,
        seed=cut.seed,
        sha256=sha256,
        name=name,
    )


def _settings(wish: TicketWish) -> ScoresSettings:
    """Return the settings of the stage 1 behind a ticket."""
    assert wish.scores is not None
    return ScoresSettings.of(**wish.scores.model_dump(exclude=set(STAGE_ONE)), strategy=wish.strategy)
