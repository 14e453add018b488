"""From a grid's wishes to runs: data, backbones and tickets looked at, every problem found, every field resolved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ltprompt.backbone.model import Backbone
from ltprompt.classifier import PromptClassifier, resolved_recipe
from ltprompt.errors import LtpError
from ltprompt.experiments.data.settings import DataSettings
from ltprompt.experiments.data.sources import Sources, TestTable, digest
from ltprompt.experiments.grid.backbones import Backbones
from ltprompt.experiments.grid.schema import TicketWish, Wish
from ltprompt.experiments.grid.tickets import Tickets, spec_of
from ltprompt.experiments.records import DEV, TASK, TEST, TICKET, TRAIN, DataRef, Job, RunSpec, TicketSpec
from ltprompt.files.artifacts import canonical_json, sha256
from ltprompt.settings import TrainSettings
from ltprompt.stage2.methods import find_method, resolved_rank
from ltprompt.tasks import Rows, Task, load_task

Part = tuple[str, DataRef]  # the key of a table among the assets, and what it is
NOT_YET = ""  # digest of a ticket that has not been made


@dataclass
class Planner:
    """Turns wishes into runs.

    base: what the grid's paths are seen from. assets: key -> object, of all jobs made so far.
    """

    base: Path
    backbones: Backbones
    tickets: Tickets
    assets: dict[str, Any] = field(default_factory=dict)
    _tasks: dict[str, Task] = field(default_factory=dict)
    _sources: dict[tuple[DataSettings, str], Sources] = field(default_factory=dict)
    _known_parts: dict[Any, dict[str, Part]] = field(default_factory=dict)

    def problems(self, wishes: Sequence[Wish], tickets: Sequence[TicketWish]) -> list[str]:
        """Return every reason why the runs or tickets could not be made, each once."""
        found: list[str] = []
        broken: set[str] = set()
        for name in dict.fromkeys(wish.task for wish in wishes):
            found += _problem_of(lambda name=name: self.task(name), broken, name)
        named = [(one.backbone, one.revision) for one in wishes] + [(one.backbone, one.revision) for one in tickets]
        for name, revision in dict.fromkeys(named):
            found += _problem_of(
                lambda key=(name, revision): self.backbones.fingerprint(*key), broken, name
            )  # fmt: skip
        sound = [wish for wish in wishes if not {wish.task, wish.backbone} & broken]
        with self.backbones.phase("reading the data"):
            found += self._data_problems(sound)
        for ticket in dict.fromkeys(self._needed(sound, [one for one in tickets if one.backbone not in broken])):
            found += self.tickets.problems(ticket)
        found += self._method_problems(sound)
        return list(dict.fromkeys(found))

    def jobs(self, wishes: Sequence[Wish]) -> list[Job]:
        """Return the runs, each once, in-language ones a language each, with every field resolved.

        Tickets that do not exist yet have no digest; `make_tickets` comes before.
        """
        return list({job.spec.id: job for wish in wishes for job in self._jobs(wish)}.values())

    def make_tickets(self, wishes: Iterable[Wish], tickets: Iterable[TicketWish]) -> None:
        """Make the tickets whose digest is not known yet, so that every run has its identity."""
        for ticket in dict.fromkeys(self._needed(wishes, tickets)):
            if ticket.file is not None:
                self.tickets.record_ready(ticket)
            elif self.tickets.describe(ticket) is None:
                self.tickets.make(ticket)

    def load_tickets(self, jobs: Iterable[Job], wishes: Iterable[Wish]) -> None:
        """Take into the assets the tickets that some jobs need, made anew where only their record is there."""
        wanted = {job.assets[TICKET] for job in jobs if TICKET in job.assets}
        for ticket in dict.fromkeys(wish.ticket for wish in wishes if wish.ticket is not None):
            spec = self.tickets.describe(ticket)
            key = _ticket_key(spec)
            if spec is not None and key in wanted and key not in self.assets:
                self.assets[key] = self.tickets.make(ticket)

    def task(self, name: str) -> Task:
        """Return a task by name, or by its file, seen from the grid's."""
        if name not in self._tasks:
            self._tasks[name] = load_task(self.base / name if name.endswith((".yaml", ".yml")) else name)
        return self._tasks[name]

    def sources(self, data: DataSettings, task: str) -> Sources:
        """Return the rows that a ``data`` section describes."""
        if (data, task) not in self._sources:
            self._sources[data, task] = Sources(data, self.task(task), self.base)
        return self._sources[data, task]

    def _jobs(self, wish: Wish) -> list[Job]:
        sources = self.sources(wish.data, wish.task)
        if wish.setting == "zero-shot":
            return [self._job(wish, sources, sources.source_language, sources.languages)]
        return [self._job(wish, sources, language, (language,)) for language in sources.languages]

    def _job(self, wish: Wish, sources: Sources, language: str, tested: Sequence[str]) -> Job:
        task = self.task(wish.task)
        task_digest = sha256(canonical_json(task.model_dump(mode="json")))
        parts = self._parts(wish, sources, language, tested)
        settings = wish.settings.model_copy(update={"language": language_of_words(task, language)})
        ticket = self.tickets.describe(wish.ticket) if wish.ticket is not None else None
        spec = RunSpec(
            backbone=self.backbones.place(wish.backbone),
            revision=wish.revision,
            fingerprint=self.backbones.fingerprint(wish.backbone, wish.revision),
            task=task.name,
            task_sha256=task_digest,
            source=sources.source_name,
            setting=wish.setting,
            language=language,
            shots=wish.shots,
            seed=wish.seed,
            method=wish.method,
            ticket=spec_of(wish.ticket, NOT_YET) if wish.ticket is not None and ticket is None else ticket,
            settings=resolve_settings(wish.method, settings),
            dtype=self.backbones.compute.dtype_name,
            train=parts[TRAIN][1],
            dev=parts[DEV][1] if DEV in parts else None,
            tests={one: parts[f"{TEST}{one}"][1] for one in tested},
        )
        assets = {role: key for role, (key, _) in parts.items()} | {TASK: self._keep(f"task/{task_digest}", task)}
        if wish.ticket is not None:
            assets[TICKET] = _ticket_key(ticket)
        return Job(spec, assets)

    def _parts(self, wish: Wish, sources: Sources, language: str, tested: Sequence[str]) -> dict[str, Part]:
        """Return the key and reference of each table of a run, by role."""
        key = (wish.data, wish.task, language, wish.shots, tuple(tested))
        if key not in self._known_parts:
            train, dev = sources.train(language, wish.shots)
            found: dict[str, Rows | TestTable] = {TRAIN: train}
            if dev is not None:
                found[DEV] = dev
            found |= {f"{TEST}{one}": sources.test(one, wish.shots) for one in tested}
            self._known_parts[key] = {role: self._part(table, wish.task) for role, table in found.items()}
        return self._known_parts[key]

    def _part(self, table: Rows | TestTable, task: str) -> Part:
        rows, note = (table.rows, table.note) if isinstance(table, TestTable) else (table, None)
        reference = DataRef(name=rows.name, sha256=digest(rows, self.task(task)), examples=len(rows))
        kind = "rows" if note is None else f"test/{note}"
        return self._keep(f"{kind}/{reference.sha256}", table), reference

    def _keep(self, key: str, value: Any) -> str:
        self.assets.setdefault(key, value)
        return key

    def _needed(self, wishes: Iterable[Wish], tickets: Iterable[TicketWish]) -> list[TicketWish]:
        return [*(wish.ticket for wish in wishes if wish.ticket is not None), *tickets]

    def _data_problems(self, wishes: Sequence[Wish]) -> list[str]:
        found = []
        asked: dict[tuple[DataSettings, str, Any], dict[int, None]] = {}
        for wish in wishes:
            asked.setdefault((wish.data, wish.task, wish.setting), {})[wish.shots] = None
        for (data, task, setting), shots in asked.items():
            sources = self.sources(data, task)
            found += sources.problems(setting, sources.languages, list(shots))
        return found

    def _method_problems(self, wishes: Sequence[Wish]) -> list[str]:
        """Return what a classifier of each method would refuse: templates, words, lengths, sizes."""
        found = []
        for wish in dict.fromkeys(replace(one, seed=0, ticket=None, shots=1) for one in wishes):
            task, sources = self.task(wish.task), self.sources(wish.data, wish.task)
            trained = sources.languages if wish.setting == "in-language" else (sources.source_language,)
            for language in dict.fromkeys(language_of_words(task, one) for one in trained):
                settings = wish.settings.model_copy(update={"language": language})
                found += _problem_of(
                    lambda wish=wish, task=task, settings=settings: self._try(wish, task, settings), set(), ""
                )  # fmt: skip
        return found

    def _try(self, wish: Wish, task: Task, settings: TrainSettings) -> None:
        resolved_rank(find_method(wish.method), settings.size)
        backbone: Backbone = self.backbones.get(wish.backbone, wish.revision)
        PromptClassifier(backbone, task, wish.method, None, compute=self.backbones.compute, settings=settings)


def language_of_words(task: Task, language: str) -> str:
    """Return the language whose words and pattern a training uses: its own, else, without any, the task's default."""
    return language if language in task.words else task.default_language


def _ticket_key(spec: TicketSpec | None) -> str:
    return f"ticket/{spec.sha256 if spec is not None else NOT_YET}"


def _problem_of(call: Any, broken: set[str], name: str) -> list[str]:
    """Return the message of a call that fails, and note the name it fails for."""
    try:
        call()
    except LtpError as error:
        broken.add(name)
        return [str(error)]
    return []


def resolve_settings(method: str, settings: TrainSettings) -> dict[str, Any]:
    """Return every setting of a training but its seed, defaults filled in: part of a run's identity."""
    found = find_method(method)
    own = settings.model_dump(include={"prompt_length", "max_length", "language"})
    return {**asdict(resolved_recipe(found, settings)), **own, "size": resolved_rank(found, settings.size)}
