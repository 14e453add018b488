"""Running the jobs of a grid on Ray: worker processes on this machine, or on the nodes of a cluster.

Workers hold a loaded backbone each and never touch the grid's folder; the driver hands out the runs and commits them.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ltprompt.device import tune_process
from ltprompt.errors import InputError, TrainingError
from ltprompt.experiments.folder import GridFolder
from ltprompt.experiments.records import Job, RunSpec
from ltprompt.experiments.run.ledger import Ledger, Times
from ltprompt.experiments.run.local import Attempt, OnEvent, Queue, Summary, Worker, attempt, describe

DEATHS = 3  # of workers, after which a run is given up: it may be what kills them
STORE = 200 * 2**20  # bytes of Ray's object store on this machine, unless the assets need more
SECONDS_TO_ANSWER = 5.0
# Read by Ray when it is imported: no usage reports, no copying of this folder to the cluster, no warning about devices,
# and none of the lines that its own processes would print among ours when a worker dies.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}
# The switch by which Ray stays on 127.0.0.1 on other systems; without it its ports stand open to the whole network.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


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
) -> Summary:
    """Run the unfinished ones of a grid's jobs on Ray, several at a time; else as `execute.execute`.

    workers: how many at once; needed without `address`; with it, as many as there is room for where it is None.
    address: of a running cluster, ``auto`` or host:port; None starts Ray on this machine alone and stops it again.
    cpus_per_worker: also the worker's threads; None shares this machine's cores out, and is 1 on a cluster.
    gpus_per_worker: what a worker has to itself. make_worker and assets must be picklable, and ltprompt installed on
    every node.

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
        with (
            _callers_process(QUIET if address else QUIET | LOOPBACK),
            _ray(address, cpus * (workers or 1), used) as ray,
        ):
            room = _room(ray, workers, cpus, gpus_per_worker)
            pool = _Pool(ray, queue, make_worker, used, cpus, gpus_per_worker)
            pool.run(min(room, len(queue.waiting)))
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
        self, ray: Any, queue: Queue, make_worker: Callable[[], Worker], assets: Mapping[str, Any], cpus: int,
        gpus: float,
    ) -> None:  # fmt: skip
        self._ray, self._queue, self._cpus, self._gpus = ray, queue, cpus, gpus
        self._actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Actor)
        self._make_worker = ray.put(make_worker)
        self._assets = {key: ray.put(value) for key, value in assets.items()}
        self._in_hand: dict[Any, tuple[Any, Job | None]] = {}
        self._idle: list[Any] = []
        self._deaths: Counter[str] = Counter()
        self._deaths_at_load = 0

    def run(self, workers: int) -> None:
        """Run all that waits. On a keyboard interrupt commit what has arrived, and raise it again."""
        try:
            for _ in range(workers):
                self._hire()
            while self._queue.waiting or any(job is not None for _, job in self._in_hand.values()):
                self._hand_out()
                ready, _ = self._ray.wait(list(self._in_hand))
                self._receive(ready[0])
        except KeyboardInterrupt:
            self._commit_arrived()
            raise
        finally:
            for actor in [*self._idle, *(actor for actor, _ in self._in_hand.values())]:
                self._ray.kill(actor)

    def _hire(self) -> None:
        actor = self._actor.remote()
        self._in_hand[actor.load.remote(self._make_worker, self._cpus, not self._gpus)] = actor, None

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
            self._replace(actor, job, " ".join(str(error).split()))
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

    def _replace(self, actor: Any, job: Job | None, error: str) -> None:
        self._ray.kill(actor)  # it may only be out of reach, and still at work
        if job is None:
            self._deaths_at_load += 1
            if self._deaths_at_load == DEATHS:
                raise TrainingError(f"{DEATHS} workers died while they loaded; try fewer --workers. The last: {error}")
        else:
            self._put_back(job, error)
        self._hire()

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
        raise InputError("say how many workers with --workers, or name a Ray cluster with --ray")
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


@contextmanager
def _callers_process(variables: Mapping[str, str]) -> Iterator[None]:
    """Have environment variables set that are not, and afterwards neither them nor Ray's handler of SIGTERM."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    handler = signal.getsignal(signal.SIGTERM)
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _ray(address: str | None, cpus: int, assets: Mapping[str, Any]) -> Iterator[Any]:
    """Yield Ray, started or connected to, and stop or leave it afterwards; one that the caller has is left as it is."""
    try:
        import ray
    except ImportError as error:
        raise InputError("several workers need Ray, which is not installed: pip install ray") from error
    if ray.is_initialized():
        yield ray
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with _own_sigterm():
            if address is None:
                store = max(STORE, 2 * _pickled_bytes(ray, assets))
                ray.init("local", num_cpus=cpus, object_store_memory=store, include_dashboard=False, **settings)
            else:
                _connect(ray, address, settings)
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Leave a handler of SIGTERM that there is: Ray's, which takes its place, is no interrupt that runs end with."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        own = handler is not None and handler is not signal.SIG_DFL
        if own and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _connect(ray: Any, address: str, settings: dict[str, Any]) -> None:
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    try:
        host, _, port = named.rpartition(":")
        if named:
            # Ray itself would try a dead address for many minutes.
            socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_TO_ANSWER).close()
        ray.init(address, **settings)
    except (OSError, ValueError, OverflowError) as error:  # Ray's ConnectionError is an OSError
        raise InputError(
            f"no Ray cluster answers at {address!r} ({error}); give host:port as `ray start` says, or auto on a node"
        ) from error


class _Counter:
    """A file that only counts what is written to it."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.bytes += size
        return size


def _pickled_bytes(ray: Any, assets: Mapping[str, Any]) -> int:
    counter = _Counter()
    for value in assets.values():
        ray.cloudpickle.dump(value, counter)
    return counter.bytes
