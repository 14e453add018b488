"""Running the jobs of a grid on Ray: worker processes on this machine, or on the nodes of a cluster.

Workers hold a loaded backbone each and never touch the grid's folder; the driver hands out the runs and commits them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from ltprompt.device import tune_process
from ltprompt.errors import InputError, TrainingError
from ltprompt.experiments.folder import GridFolder
from ltprompt.experiments.records import Job, RunSpec
from ltprompt.experiments.run.ledger import Ledger, Times
from ltprompt.experiments.run.local import Attempt, OnEvent, Queue, Summary, Worker, attempt, describe
from ltprompt.experiments.run.ray_start import open_ray
from ltprompt.terminal import Advance, Phase, no_phase

DEATHS = 3  # of workers, after which a run is given up: it may be what kills them
SECONDS_WITHOUT_NEWS = 5.0  # of workers, after which is said what they wait for


def execute_on_ray(
    jobs: Sequence[Job],
    make_worker: Callable[[], Worker],
    *,
    assets: Mapping[str, Any],
    ledger: Ledger,
    folder: GridFolder,
    on_event: OnEvent | None = None,
    retries: int = 1,
    workers: int | None = None,
    address: str | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float = 0,
    phase: Phase = no_phase,
) -> Summary:
    """Run the unfinished ones of a grid's jobs on Ray, several at a time; else as `local.execute`.

    workers: how many at once; needed without `address`; with it, as many as there is room for where it is None.
    address: of a running cluster, ``auto`` or host:port; None starts Ray on this machine alone and stops it again.
    cpus_per_worker: also the worker's threads; None shares this machine's cores out, and is 1 on a cluster.
    gpus_per_worker: what a worker has to itself. phase: shows Ray start, and how many workers are up. make_worker and
    assets must be picklable, and ltprompt installed on every node.

    A worker that dies is replaced and its run made again, until it has lost `DEATHS` workers; no death is a failure of
    the run. On a keyboard interrupt the results that have arrived are committed. Raises `InputError` where Ray is
    missing, does not answer or has no room, and `TrainingError` where workers cannot be made.
    """
    _check_numbers(workers, address, cpus_per_worker, gpus_per_worker)
    queue = Queue(jobs, ledger=ledger, folder=folder, on_event=on_event, retries=retries)
    if not queue.waiting:
        return queue.summary()
    cpus = cpus_per_worker or (max(1, _cores() // workers) if workers and address is None else 1)
    used = {key: assets[key] for job in queue.waiting for key in job.assets.values()}
    try:
        with ExitStack() as stack:
            with phase("starting Ray" if address is None else f"joining the Ray cluster at {address}"):
                ray = stack.enter_context(open_ray(address, workers or 1, used))
            # Ray of this machine alone counts workers; how many cores each has to itself is theirs to keep to.
            share = 1 if address is None else cpus
            room = min(_room(ray, workers, share, gpus_per_worker), len(queue.waiting))
            with phase(f"starting {room} worker{'s' * (room > 1)}", room) as up:
                shares = {"num_cpus": share, "num_gpus": gpus_per_worker}
                _Pool(ray, queue, make_worker, used, cpus, shares, up).run(room)
    except KeyboardInterrupt:
        return queue.summary(interrupted=True)
    return queue.summary()


class _Actor:
    """A worker's process."""

    def load(self, make_worker: Callable[[], Worker], threads: int, on_cpu: bool) -> str:
        """Make the worker and return nothing, or the error that says why there is none."""
        os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(threads)
        tune_process(threads, on_cpu=on_cpu)
        try:
            self._worker = make_worker()
        except Exception as error:
            return describe(error).partition("\n")[0]
        return ""

    def run(self, spec: RunSpec, roles: Sequence[str], *assets: Any) -> Attempt:
        """Make an attempt at a run. assets: of `roles`, in their order; Ray has resolved them."""
        return attempt(self._worker, spec, dict(zip(roles, assets, strict=True)))


class _Pool:
    """The workers, and what each of them has in hand: a run, or None while it loads."""

    def __init__(
        self, ray: Any, queue: Queue, make_worker: Callable[[], Worker], assets: Mapping[str, Any], threads: int,
        shares: Mapping[str, float], up: Advance,
    ) -> None:  # fmt: skip
        self._ray, self._queue, self._threads, self._shares, self._up = ray, queue, threads, shares, up
        self._actor = ray.remote(**shares, max_restarts=0, max_task_retries=0)(_Actor)
        self._make_worker = ray.put(make_worker)
        self._assets = {key: ray.put(value) for key, value in assets.items()}
        self._in_hand: dict[Any, tuple[Any, Job | None]] = {}
        self._idle: list[Any] = []
        self._deaths: Counter[str] = Counter()
        self._deaths_at_load = 0
        self._hired = self._wanted = 0

    def run(self, workers: int) -> None:
        """Run all that waits. On a keyboard interrupt commit what has arrived, and raise it again."""
        self._wanted, taken = workers, self._taken()  # before ours take theirs
        try:
            for _ in range(workers):
                self._hire()
            while self._queue.waiting or any(job is not None for _, job in self._in_hand.values()):
                self._hand_out()
                ready, _ = self._ray.wait(list(self._in_hand), timeout=SECONDS_WITHOUT_NEWS)
                if ready:
                    self._receive(ready[0])
                elif all(job is None for _, job in self._in_hand.values()):
                    self._up(0, taken)
        except KeyboardInterrupt:
            self._commit_arrived()
            raise
        finally:
            for actor in [*self._idle, *(actor for actor, _ in self._in_hand.values())]:
                self._ray.kill(actor)

    def _hire(self) -> None:
        actor = self._actor.remote()
        self._in_hand[actor.load.remote(self._make_worker, self._threads, not self._shares["num_gpus"])] = actor, None

    def _hand_out(self) -> None:
        while self._queue.waiting and self._idle:
            job, actor = self._queue.start(), self._idle.pop()
            assets = [self._assets[key] for key in job.assets.values()]
            reference = actor.run.remote(job.spec, list(job.assets), *assets)
            self._in_hand[reference] = actor, job

    def _receive(self, reference: Any) -> None:
        """Take what a worker hands in, or replace it where it was lost."""
        actor, job = self._in_hand[reference]
        try:
            found = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            text = " ".join(str(error).split())
            if getattr(error, "actor_init_failed", False):  # and so would the next
                raise TrainingError(f"a worker could not be made; is ltprompt installed there? {text}") from error
            self._replace(actor, job, text)
        else:
            self._deaths_at_load = 0
            self._take(job, found)
            self._idle.append(actor)
        # Last of all: what an interrupt cuts off here is met again, and committed once, in `_commit_arrived`.
        del self._in_hand[reference]

    def _take(self, job: Job | None, found: Any) -> None:
        """Commit an attempt; of a worker that was loading, see that it could be made."""
        if job is not None:
            self._queue.end(job, found)
        elif found:
            raise TrainingError(f"a worker could not be made: {found}")
        else:
            self._hired += 1
            self._up(int(self._hired <= self._wanted))

    def _replace(self, actor: Any, job: Job | None, error: str) -> None:
        self._ray.kill(actor)  # it may only be out of reach, and still at work
        if job is None:
            self._deaths_at_load += 1
            if self._deaths_at_load == DEATHS:
                raise TrainingError(f"{DEATHS} workers died while they loaded; try fewer `workers`. The last: {error}")
            self._up(0, f"one died while it loaded and is replaced: {error}")
        else:
            self._put_back(job, error)
        self._hire()

    def _taken(self) -> str:
        """Return what of the cluster others have for now, so that no worker can start; nothing where one can."""
        free = self._ray.available_resources()
        taken = [name for name in ("CPU", "GPU") if free.get(name, 0) < self._shares[f"num_{name.lower()}s"]]
        return f"waiting for {' and '.join(taken)}s of the cluster, which others have" if taken else ""

    def _put_back(self, job: Job, error: str) -> None:
        """Let a run whose worker was lost wait again, unless it has lost too many."""
        self._deaths[job.spec.id] += 1
        if self._deaths[job.spec.id] < DEATHS:
            self._queue.put_back(job)
            return
        now = time.time()
        text = f"WorkerDied: the run lost {DEATHS} workers; try fewer at once. The last: {error}"
        self._queue.give_up(job, Attempt(None, text, Times(now, now, None, None, None, "lost")))

    def _commit_arrived(self) -> None:
        """Commit the attempts that have come in already."""
        running = [reference for reference, (_, job) in self._in_hand.items() if job is not None]
        ready, _ = self._ray.wait(running, num_returns=len(running), timeout=0) if running else ([], [])
        for reference in ready:
            with suppress(self._ray.exceptions.RayError):
                self._take(self._in_hand[reference][1], self._ray.get(reference))


def _check_numbers(workers: int | None, address: str | None, cpus: int | None, gpus: float) -> None:
    if workers is None and address is None:
        raise InputError("give a number of `workers`, or the address of a Ray cluster as `ray`")
    for name, value, least in (("workers", workers, 1), ("CPUs a worker", cpus, 1), ("GPUs a worker", gpus, 0)):
        if value is not None and value < least:
            raise InputError(f"{name} cannot be {value}; give {least} or more")


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _room(ray: Any, workers: int | None, cpus: int, gpus: float) -> int:
    """Return how many workers to make: those asked for, or as many as the nodes have room for."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    places = [int(node.get("CPU", 0) // cpus) for node in nodes]
    if gpus:
        places = [min(place, int(node.get("GPU", 0) // gpus)) for place, node in zip(places, nodes, strict=True)]
    if not sum(places):
        raise InputError(
            f"no node of Ray has {cpus} CPUs and {gpus:g} GPUs for a worker; the nodes have "
            + ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        )
    return min(sum(places), workers or sum(places))
