"""Running a grid from its file to its ledger: plan, tickets, runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ltprompt.device import Compute, resolve
from ltprompt.errors import InputError
from ltprompt.experiments.backbones import Backbones
from ltprompt.experiments.execute import Job, OnEvent, Summary, execute
from ltprompt.experiments.folder import GridFolder
from ltprompt.experiments.grid import (
    Grid,
    TicketWish,
    Wish,
    expand,
    grid_text,
    join_problems,
    parse_grid,
    wished_tickets,
)
from ltprompt.experiments.ledger import Ledger
from ltprompt.experiments.on_ray import execute_on_ray
from ltprompt.experiments.plan import Planner
from ltprompt.experiments.tickets import Tickets
from ltprompt.experiments.worker import GridWorker, WorkerMaker
from ltprompt.files import write_text
from ltprompt.mlm import Watcher

StageOne = Callable[[], AbstractContextManager[Watcher | None]]


@dataclass(frozen=True)
class Where:
    """Where a grid runs.

    device, dtype, threads: as `device.resolve` takes them. workers, ray: as `execute_on_ray` takes them; neither is
    this process.
    """

    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    workers: int | None = None
    ray: str | None = None

    @property
    def here(self) -> bool:
        """Whether the runs are made in this process."""
        return self.workers is None and self.ray is None


@dataclass(frozen=True)
class Plan:
    """A grid that was checked: what it asks for, and the planner that knows its data."""

    grid: Grid
    text: str
    wishes: tuple[Wish, ...]
    tickets: tuple[TicketWish, ...]
    planner: Planner
    folder: GridFolder
    compute: Compute

    @property
    def notes(self) -> list[str]:
        """What is odd in the data, a line each."""
        sources = {id(one): one for wish in self.wishes for one in [self.planner.sources(wish.data, wish.task)]}
        return [note for one in sources.values() for note in one.notes()]


def plan_grid(
    name: str, out: Path, where: Where, *, base: Path | None = None, stage_one: StageOne, say: Callable[[str], None]
) -> Plan:
    """Read a grid and check it against data and backbones; nothing runs and nothing is written.

    name: a file, or a shipped grid's name. base: folder that the grid's paths are seen from; without it the file's
    own, for a shipped grid the current one. Raises `InputError` with all problems at once.
    """
    text, folder = grid_text(name)
    grid = parse_grid(text, name)
    wishes, tickets = expand(grid), wished_tickets(grid)
    compute = resolve(where.device, where.dtype, where.threads)
    backbones = Backbones(compute)
    place = base or folder or Path()
    made = Tickets(GridFolder(out), place, backbones, stage_one, say)
    planner = Planner(place, backbones, made)
    problems = planner.problems(wishes, tickets)
    if problems:
        raise InputError(join_problems(name, problems))
    return Plan(grid, text, tuple(wishes), tuple(tickets), planner, GridFolder(out), compute)


def run_grid(plan: Plan, where: Where, *, on_event: Callable[[int], AbstractContextManager[OnEvent]]) -> Summary:
    """Make what is missing: scores, tickets, then runs; what the ledger has is never run again.

    on_event: given the number of runs, opens what hears of them. Raises `InputError` where another driver runs this
    grid.
    """
    folder, planner = plan.folder, plan.planner
    with Ledger.open(folder.ledger) as ledger:
        write_text(folder.config, plan.text)
        planner.make_tickets(plan.wishes, plan.tickets)
        jobs = planner.jobs(plan.wishes)
        folder.write_plan(plan.grid.name, plan.grid.layouts, [job.spec.id for job in jobs])
        waiting = unfinished(jobs, ledger, folder)
        planner.load_tickets(waiting, plan.wishes)
        maker = WorkerMaker(where.device, where.threads, {wish.backbone: wish.revision for wish in plan.wishes})
        with on_event(len(jobs)) as hear:
            if where.here:
                make_worker = partial(GridWorker, maker, planner.backbones)
                return execute(jobs, make_worker, assets=planner.assets, ledger=ledger, folder=folder, on_event=hear)
            planner.backbones.release()  # the workers load their own
            return execute_on_ray(
                jobs, maker, assets=planner.assets, ledger=ledger, folder=folder, on_event=hear,
                workers=where.workers, address=where.ray, cpus_per_worker=where.threads,
            )  # fmt: skip


def unfinished(jobs: Sequence[Job], ledger: Ledger, folder: GridFolder) -> list[Job]:
    """Return the jobs that are still to be run."""
    ledger.register(job.spec for job in jobs)
    waiting = set(ledger.unfinished([job.spec.id for job in jobs], folder))
    return [job for job in jobs if job.spec.id in waiting]
