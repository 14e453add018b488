"""Running a grid from its file to its ledger: plan, tickets, runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch

from ltprompt.device import Compute, resolve
from ltprompt.errors import InputError
from ltprompt.experiments.folder import GridFolder
from ltprompt.experiments.grid.backbones import Backbones
from ltprompt.experiments.grid.plan import Planner
from ltprompt.experiments.grid.schema import (
    Grid,
    TicketWish,
    Wish,
    expand,
    grid_text,
    join_problems,
    parse_grid,
    wished_tickets,
)
from ltprompt.experiments.grid.tickets import Tickets
from ltprompt.experiments.records import Job
from ltprompt.experiments.run.ledger import Ledger
from ltprompt.experiments.run.local import OnEvent, Summary, execute
from ltprompt.experiments.run.on_ray import execute_on_ray
from ltprompt.experiments.run.worker import GridWorker, WorkerMaker
from ltprompt.files.artifacts import write_text
from ltprompt.stage1.training import Watcher
from ltprompt.terminal import Phase, no_phase

StageOne = Callable[[], AbstractContextManager[Watcher | None]]


@dataclass(frozen=True)
class Where:
    """Where a grid runs.

    device, dtype: as `device.resolve` takes them; dtype ``auto`` is decided here, for all runs. workers, ray, gpus: as
    `execute_on_ray` takes them; without workers and ray the runs are made in this process. threads: of each worker's
    process; this one keeps its own.
    """

    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    workers: int | None = None
    ray: str | None = None
    gpus: float | None = None

    @property
    def here(self) -> bool:
        """Whether the runs are made in this process."""
        return self.workers is None and self.ray is None

    @property
    def gpus_per_worker(self) -> float:
        """Share of a GPU that each worker has: what was asked for, else on CUDA one, or this machine's shared out.

        Raises `InputError` for workers on CUDA without a share of a GPU.
        """
        cuda = self.device.startswith("cuda")
        if self.gpus is not None:
            if cuda and not self.gpus:
                raise InputError(f"device {self.device!r} needs GPUs for the workers; give `gpus` of 1 or less")
            return self.gpus
        found = torch.cuda.device_count() if cuda or self.device == "auto" else 0
        if not found:
            return 1.0 if cuda else 0.0
        return 1.0 if self.ray is not None else min(1.0, found / (self.workers or 1))

    @property
    def worker_device(self) -> str:
        """The device of each worker: the GPU that Ray gives it, and the CPU where it is given none."""
        if self.here:
            return self.device
        return "cuda" if self.gpus_per_worker else "cpu" if self.device == "auto" else self.device


HERE = Where()


@dataclass(frozen=True)
class Ran:
    """How a grid ended, and where the time of its finished runs went.

    seconds: median of a run, outside: share of all runs' seconds that was neither training nor evaluation; None where
    no finished run was timed.
    """

    summary: Summary
    seconds: float | None
    outside: float | None


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

    def __repr__(self) -> str:
        return f"Plan({self.grid.name}, {len(self.wishes):,} runs, {len(self.tickets):,} tickets)"

    @property
    def notes(self) -> list[str]:
        """What is odd in the data, a line each."""
        sources = {id(one): one for wish in self.wishes for one in [self.planner.sources(wish.data, wish.task)]}
        return [note for one in sources.values() for note in one.notes()]


def _silent(text: str) -> None:
    pass


def _no_one(total: int, first: int) -> AbstractContextManager[None]:
    return nullcontext()


def plan_grid(
    name: str | Path,
    out: str | Path,
    where: Where = HERE,
    *,
    base: str | Path | None = None,
    stage_one: StageOne = nullcontext,
    say: Callable[[str], None] = _silent,
    phase: Phase = no_phase,
) -> Plan:
    """Read a grid and check it against data and backbones; nothing runs and nothing is written.

    name: a file, or a shipped grid's name. base: folder that the grid's paths are seen from; without it the file's
    own, for a shipped grid the current one. stage_one: opens what hears of a stage 1, such as `stage_one_bar`. say:
    told of a ticket that has notes. phase: shows what is loaded and made. All three are for here and for `run_grid`,
    and silent where they are not given. Raises `InputError` with all problems at once.
    """
    name, out = str(name), Path(out)
    text, folder = grid_text(name)
    grid = parse_grid(text, name)
    wishes, tickets = expand(grid), wished_tickets(grid)
    compute = resolve(where.device, where.dtype)
    place = Path(base or folder or "")
    backbones = Backbones(compute, place, phase)
    made = Tickets(GridFolder(out), place, backbones, stage_one, say)
    planner = Planner(place, backbones, made)
    problems = planner.problems(wishes, tickets)
    if problems:
        raise InputError(join_problems(name, problems))
    return Plan(grid, text, tuple(wishes), tuple(tickets), planner, GridFolder(out), compute)


def run_grid(
    plan: Plan,
    where: Where = HERE,
    *,
    on_event: Callable[[int, int], AbstractContextManager[OnEvent | None]] = _no_one,
) -> Ran:
    """Make what is missing: scores, tickets, then runs; what the ledger has is never run again.

    on_event: given the number of runs and of those finished before, opens what hears of them; no one does without it.
    Raises `InputError` where another driver runs this grid.
    """
    folder, planner = plan.folder, plan.planner
    with Ledger.open(folder.ledger) as ledger:
        write_text(folder.config, plan.text)
        planner.make_tickets(plan.wishes, plan.tickets)
        jobs = planner.jobs(plan.wishes)
        folder.write_plan(plan.grid.name, plan.grid.layouts, [job.spec.id for job in jobs])
        waiting = unfinished(jobs, ledger, folder)
        planner.load_tickets(waiting, plan.wishes)
        with on_event(len(jobs), len(jobs) - len(waiting)) as hear:
            summary = _execute(jobs, planner, where, ledger, folder, hear)
        return _ran(summary, jobs, ledger)


def pack_grid(folder: GridFolder) -> None:
    """Put a grid's plan and records into one file, as `GridFolder.pack` says.

    Raises `InputError` where no grid is there or a driver runs it, and `FileFormatError` for a damaged file.
    """
    folder.read_plan()
    with Ledger.open(folder.ledger) if folder.ledger.is_file() else nullcontext():
        folder.pack()


def _execute(
    jobs: Sequence[Job], planner: Planner, where: Where, ledger: Ledger, folder: GridFolder, hear: OnEvent | None
) -> Summary:
    maker = WorkerMaker(where.worker_device)
    if where.here:
        make_worker = partial(GridWorker, maker, planner.backbones)
        return execute(jobs, make_worker, assets=planner.assets, ledger=ledger, folder=folder, on_event=hear)
    planner.backbones.release()  # the workers load their own
    return execute_on_ray(
        jobs, maker, assets=planner.assets, ledger=ledger, folder=folder, on_event=hear, workers=where.workers,
        address=where.ray, cpus_per_worker=where.threads, gpus_per_worker=where.gpus_per_worker,
        phase=planner.backbones.phase,
    )  # fmt: skip


def _ran(summary: Summary, jobs: Sequence[Job], ledger: Ledger) -> Ran:
    ids = {job.spec.id for job in jobs}
    timed = [one for (run_id, _), one in ledger.times().items() if run_id in ids and one.outside is not None]
    if not timed:
        return Ran(summary, None, None)
    seconds = [one.finished - one.started for one in timed]
    return Ran(summary, median(seconds), sum(one.outside or 0.0 for one in timed) / sum(seconds))


def unfinished(jobs: Sequence[Job], ledger: Ledger, folder: GridFolder) -> list[Job]:
    """Return the jobs that are still to be run."""
    ledger.register(job.spec for job in jobs)
    waiting = set(ledger.unfinished([job.spec.id for job in jobs], folder))
    return [job for job in jobs if job.spec.id in waiting]
