"""Running the jobs of a grid: what a worker is, how its results are committed, and the executor of this process.

Whatever runs the jobs, the driver alone commits: a run's record first, atomically, then the ledger's row.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ltprompt.errors import InputError
from ltprompt.experiments.folder import GridFolder
from ltprompt.experiments.records import Job, RunRecord, RunResult, RunSpec
from ltprompt.experiments.run.ledger import Counts, Ledger, Times
from ltprompt.files.artifacts import canonical_json

FRAMES = 5
Kind = Literal["started", "finished", "retried", "failed", "lost"]


@dataclass(frozen=True)
class Outcome:
    """What a worker hands in for a run, and the seconds that its training and its evaluation took."""

    result: RunResult
    seconds_training: float
    seconds_evaluation: float


class Worker(Protocol):
    """Makes runs one after the other, such as around one loaded backbone."""

    def run(self, spec: RunSpec, assets: Mapping[str, Any]) -> Outcome:
        """Make one run. assets: role -> object. Any exception is the run's failure; the worker is used again."""


class OnEvent(Protocol):
    """Hears of each run as it starts and ends, such as to show progress."""

    def __call__(self, kind: Kind, spec: RunSpec, counts: Counts) -> None:
        """Hear of an event. counts: how many of the grid's runs stand where now."""


@dataclass(frozen=True)
class Attempt:
    """An attempt at a run that came to an end: its outcome, or None and the error."""

    outcome: Outcome | None
    error: str
    times: Times


@dataclass(frozen=True)
class Summary:
    """How a grid's execution ended.

    counts: of all its runs. failures: run id -> error, its first line the kind and message. interrupted: by Ctrl-C;
    what was finished is kept, and the same call goes on from there (the command line says so and exits with 130).
    """

    counts: Counts
    failures: dict[str, str]
    interrupted: bool


def execute(
    jobs: Sequence[Job],
    make_worker: Callable[[], Worker],
    *,
    assets: Mapping[str, Any],
    ledger: Ledger,
    folder: GridFolder,
    on_event: OnEvent | None = None,
    retries: int = 1,
) -> Summary:
    """Run the unfinished ones of a grid's jobs one after the other in this process.

    make_worker: makes the one worker, if there is anything to run. assets: key -> object, for all jobs. retries: how
    often a failed run is tried again; then it is left as failed and the rest goes on. A keyboard interrupt ends it in
    order. Raises what `make_worker` raises, and `OutputError` where a result cannot be written.
    """
    queue = Queue(jobs, ledger=ledger, folder=folder, on_event=on_event, retries=retries)
    try:
        worker = make_worker() if queue.waiting else None
        while worker is not None and queue.waiting:
            job = queue.start()
            queue.end(job, attempt(worker, job.spec, {role: assets[key] for role, key in job.assets.items()}))
    except KeyboardInterrupt:
        return queue.summary(interrupted=True)
    return queue.summary()


class Queue:
    """The jobs that wait to be run, and the one place where what became of them is committed.

    Finished jobs are left out and left alone; jobs of equal specs are one. Raises `InputError` for negative `retries`.
    """

    def __init__(
        self, jobs: Sequence[Job], *, ledger: Ledger, folder: GridFolder, on_event: OnEvent | None, retries: int
    ) -> None:
        if retries < 0:
            raise InputError(f"retries cannot be {retries}; give 0 or more")
        self._ledger, self._folder, self._on_event, self._retries = ledger, folder, on_event, retries
        self._failures: Counter[str] = Counter()
        self._jobs = {job.spec.id: job for job in jobs}
        folder.sweep()
        ledger.register(job.spec for job in self._jobs.values())
        self.waiting = deque(self._jobs[run_id] for run_id in ledger.unfinished(list(self._jobs), folder))

    def start(self) -> Job:
        """Take the next job and write that it runs."""
        job = self.waiting.popleft()
        self._ledger.started(job.spec.id)
        self._tell("started", job)
        return job

    def end(self, job: Job, ended: Attempt) -> None:
        """Commit how an attempt ended; a failed job waits again, before all others, until its retries are spent."""
        run_id = job.spec.id
        if ended.outcome is not None:
            digest = self._folder.write_run(RunRecord(spec=job.spec, result=ended.outcome.result))
            self._ledger.finished(run_id, digest, ended.times)
            self._tell("finished", job)
            return
        self._failures[run_id] += 1
        again = self._failures[run_id] <= self._retries
        self._ledger.failed(run_id, ended.error, ended.times, again=again)
        if again:
            self.waiting.appendleft(job)
        self._tell("retried" if again else "failed", job)

    def give_up(self, job: Job, ended: Attempt) -> None:
        """Commit a failed attempt at a job that is not to be tried again, whatever retries are left."""
        self._failures[job.spec.id] = self._retries
        self.end(job, ended)

    def put_back(self, job: Job) -> None:
        """Let a job whose worker was lost wait again, before all others, as if it had never begun."""
        self._ledger.forget(job.spec.id)
        self.waiting.appendleft(job)
        self._tell("lost", job)

    def summary(self, *, interrupted: bool = False) -> Summary:
        """Return how the execution ended; runs in flight are forgotten."""
        self._ledger.forget()
        failures = {row.id: row.error for row in self._ledger.rows() if row.status == "failed" and row.id in self._jobs}
        return Summary(self._ledger.counts(), failures, interrupted)

    def _tell(self, kind: Kind, job: Job) -> None:
        if self._on_event is not None:
            self._on_event(kind, job.spec, self._ledger.counts())


def attempt(worker: Worker, spec: RunSpec, assets: Mapping[str, Any]) -> Attempt:
    """Make an attempt at a run in the worker's process; an exception, or a result with NaN in it, is its error."""
    started, clock = time.time(), time.perf_counter()
    outcome, error = None, ""
    try:
        outcome = worker.run(spec, assets)
        canonical_json(outcome.result.model_dump(mode="json"))
    except Exception as failure:
        outcome, error = None, describe(failure)
    seconds = time.perf_counter() - clock
    training, evaluation = (None, None) if outcome is None else (outcome.seconds_training, outcome.seconds_evaluation)
    outside = None if training is None or evaluation is None else seconds - training - evaluation
    times = Times(started, started + seconds, training, evaluation, outside, f"{socket.gethostname()}:{os.getpid()}")
    return Attempt(outcome, error, times)


def describe(error: BaseException) -> str:
    """Return an error's kind and message, and below them where it was raised: the last frames of its traceback."""
    frames = "".join(traceback.format_tb(error.__traceback__)[-FRAMES:])
    return f"{type(error).__name__}: {error}\n{frames}".rstrip()
