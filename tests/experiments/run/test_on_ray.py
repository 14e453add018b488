from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.toy_grid import ASSETS, ToyWorker, calls, record_bytes, rows, toy_jobs, toy_result, toy_spec

from ltprompt.errors import InputError, TrainingError
from ltprompt.experiments.folder import GridFolder
from ltprompt.experiments.records import RunSpec
from ltprompt.experiments.run import on_ray, ray_start
from ltprompt.experiments.run.ledger import Counts, Ledger
from ltprompt.experiments.run.local import OnEvent, Outcome, Summary, Worker, execute
from ltprompt.terminal import Advance

SIZE = 6
with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install ray")


class Measuring:
    """Makes runs whose result holds the threads that the worker has."""

    def run(self, spec: RunSpec, assets: Mapping[str, Any]) -> Outcome:
        threads = (torch.get_num_threads(), int(os.environ["OMP_NUM_THREADS"]), int(os.environ["RAYON_NUM_THREADS"]))
        return Outcome(toy_result(0).model_copy(update={"losses": tuple(map(float, threads))}), 0.0, 0.0)


def make_none() -> Worker:
    raise InputError("no such backbone")


def make_dead() -> Worker:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def make_both(marks: Path, **trouble: Any) -> Worker:
    """Make a worker when another one is being made, or was: so that none makes all the runs."""
    (marks / f"made-{os.getpid()}").touch()
    end = time.monotonic() + 30
    while len(list(marks.glob("made-*"))) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    return ToyWorker(marks, **trouble)


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """Let Ray's processes import this folder's modules, and keep them on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
        for name, value in (ray_start.QUIET | ray_start.LOOPBACK).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def cluster(importable: None) -> Iterator[Any]:
    """Two nodes with one processor each."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"node_ip_address": "127.0.0.1", **node})
    cluster.add_node(node_ip_address="127.0.0.1", **node)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture
def folder(tmp_path: Path) -> GridFolder:
    return GridFolder(tmp_path / "grid")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[object, ...], dict[str, bytes]]:
    """The rows and the record files of the grid made in this process."""
    root = tmp_path_factory.mktemp("whole")
    (root / "marks").mkdir()
    folder = GridFolder(root / "grid")
    with Ledger.open(folder.ledger) as ledger:
        execute(toy_jobs(SIZE), lambda: ToyWorker(root / "marks"), assets=ASSETS, ledger=ledger, folder=folder)
    return rows(folder), record_bytes(folder)


def run(folder: GridFolder, make_worker: Callable[[], Worker], size: int = SIZE, **settings: Any) -> Summary:
    """Run a toy grid; its caller's handler of SIGTERM stays, none too."""
    handler = signal.getsignal(signal.SIGTERM)
    with Ledger.open(folder.ledger) as ledger:
        summary = on_ray.execute_on_ray(
            toy_jobs(size), make_worker, assets=ASSETS, ledger=ledger, folder=folder, **settings
        )
    assert signal.getsignal(signal.SIGTERM) == handler
    return summary


class Phases:
    """Hears of the phases: the title as each opens, how far it came, and what was said."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.done: list[int] = []
        self.texts: list[str] = []

    @contextmanager
    def __call__(self, title: str, total: int = 1) -> Iterator[Advance]:
        self.titles.append(title)
        self.done.append(0)
        yield self.advance

    def advance(self, done: int = 1, text: str = "") -> None:
        self.done[-1] += done
        self.texts += [text] if text else []


def heard(events: list[tuple[str, int]]) -> OnEvent:
    return lambda kind, spec, counts: events.append((kind, spec.seed))


# --- a cluster


@with_ray
@pytest.mark.loopback
def test_a_killed_worker_is_replaced_and_every_run_committed_once(
    cluster: Any, folder: GridFolder, marks: Path, whole: tuple[Any, Any]
) -> None:
    events: list[tuple[str, int]] = []
    make_worker = partial(make_both, marks, dies=2, times=1, seconds=0.2)
    summary = run(folder, make_worker, address=cluster.address, on_event=heard(events))
    assert summary == Summary(Counts(0, 0, SIZE, 0), {}, interrupted=False)
    assert (rows(folder), record_bytes(folder)) == whole
    assert [calls(marks, seed) for seed in range(SIZE)] == [1, 1, 2, 1, 1, 1]
    assert [seed for kind, seed in events if kind == "lost"] == [2]
    assert sorted(seed for kind, seed in events if kind == "finished") == list(range(SIZE))
    with Ledger.open(folder.ledger) as ledger:
        times = ledger.times()
    assert len(times) == SIZE
    workers = {one.worker for one in times.values()}
    assert len(workers) >= 2
    assert {worker.partition(":")[0] for worker in workers} == {socket.gethostname()}
    assert f"{socket.gethostname()}:{os.getpid()}" not in workers


@with_ray
@pytest.mark.loopback
def test_failing_runs_and_runs_that_kill_workers_come_to_an_end(
    cluster: Any, folder: GridFolder, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "DEATHS", 2)  # each takes seconds
    make_worker = partial(ToyWorker, marks, fails=1, dies=3)
    summary = run(folder, make_worker, address=cluster.address)
    assert summary.counts == Counts(planned=0, running=0, done=SIZE - 2, failed=2)
    assert calls(marks, 1) == 2
    assert calls(marks, 3) == 2
    assert summary.failures[toy_spec(1).id].startswith("ValueError: run 1 cannot go on\n")
    assert summary.failures[toy_spec(3).id].startswith("WorkerDied: the run lost 2 workers; ")
    attempts = {row.id: row.attempts for row in rows(folder)}  # type: ignore[attr-defined]
    assert [attempts[toy_spec(seed).id] for seed in range(SIZE)] == [1, 2, 1, 1, 1, 1]


@with_ray
@pytest.mark.loopback
def test_an_interrupt_commits_what_has_arrived(
    cluster: Any, folder: GridFolder, marks: Path, whole: tuple[Any, Any]
) -> None:
    before: list[Counts] = []

    def interrupt(kind: str, spec: RunSpec, counts: Counts) -> None:
        if kind == "finished" and counts.running and not before:
            before.append(counts)
            time.sleep(1.0)  # the other worker's result arrives meanwhile
            raise KeyboardInterrupt

    make_worker = partial(make_both, marks, seconds=0.2)
    summary = run(folder, make_worker, address=cluster.address, on_event=interrupt)
    assert summary.interrupted
    assert summary.counts.done == before[0].done + 1 < SIZE
    with Ledger.open(folder.ledger) as ledger:
        execute(toy_jobs(SIZE), lambda: ToyWorker(marks), assets=ASSETS, ledger=ledger, folder=folder)
    assert (rows(folder), record_bytes(folder)) == whole
    assert [calls(marks, seed) for seed in range(SIZE)] == [1] * SIZE


@pytest.fixture
def no_handler() -> Iterator[None]:
    """SIGTERM ends the process, as a program has it that says nothing of it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGTERM interrupts, as the command line has it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGTERM, before) is signal.default_int_handler


@with_ray
@pytest.mark.loopback
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_control_c_ends_a_long_run_at_once(
    cluster: Any, folder: GridFolder, marks: Path, sent: signal.Signals, interruptible: None
) -> None:
    def press(kind: str, spec: RunSpec, counts: Counts) -> None:
        begun.append(time.monotonic())
        threading.Timer(0.5, os.kill, (os.getpid(), sent)).start()

    begun: list[float] = []
    summary = run(folder, partial(ToyWorker, marks, seconds=60), 1, address=cluster.address, on_event=press)
    assert time.monotonic() - begun[0] < 10
    assert summary == Summary(Counts(1, 0, 0, 0), {}, interrupted=True)
    import ray

    assert not ray.is_initialized()


@with_ray
@pytest.mark.loopback
def test_a_lost_node_loses_no_run(cluster: Any, folder: GridFolder, marks: Path, whole: tuple[Any, Any]) -> None:
    nodes = list(cluster.worker_nodes)

    def unplug(kind: str, spec: RunSpec, counts: Counts) -> None:
        if counts.running == 2 and nodes:
            cluster.remove_node(nodes.pop(), allow_graceful=False)

    make_worker = partial(make_both, marks, seconds=0.2)
    summary = run(folder, make_worker, address=cluster.address, on_event=unplug)
    assert not nodes
    assert summary == Summary(Counts(0, 0, SIZE, 0), {}, interrupted=False)
    assert (rows(folder), record_bytes(folder)) == whole


@with_ray
@pytest.mark.loopback
def test_workers_that_wait_for_room_say_so(
    cluster: Any, folder: GridFolder, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "SECONDS_WITHOUT_NEWS", 0.05)
    for free, texts in (({}, {"waiting for CPUs of the cluster, which others have"}), ({"CPU": 2.0}, set())):
        monkeypatch.setattr("ray.available_resources", lambda free=free: free)
        phases = Phases()
        place = GridFolder(folder.root / str(len(free)))
        assert run(place, partial(ToyWorker, marks), 1, address=cluster.address, phase=phases).counts.done == 1
        assert set(phases.texts) == texts


@with_ray
@pytest.mark.loopback
def test_a_worker_whose_process_cannot_begin_says_why_at_once(
    cluster: Any, folder: GridFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(on_ray._Actor):
        def __init__(self) -> None:
            raise ModuleNotFoundError("No module named 'ltprompt'")

    monkeypatch.setattr(on_ray, "_Actor", Broken)
    with pytest.raises(TrainingError, match=r"is ltprompt installed there\? .*No module named 'ltprompt'"):
        run(folder, make_none, address=cluster.address, workers=1)


@with_ray
@pytest.mark.loopback
def test_a_cluster_without_room_and_workers_that_cannot_be_made(
    cluster: Any, folder: GridFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(on_ray, "DEATHS", 1)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        with pytest.raises(
            InputError, match="no node of Ray has 64 CPUs and 0 GPUs for a worker; the nodes have 1 CPUs"
        ):
            run(folder, make_none, address=cluster.address, cpus_per_worker=64)
        with pytest.raises(InputError, match=r"no node of Ray has 1 CPUs and 0\.5 GPUs"):
            run(folder, make_none, address=cluster.address, gpus_per_worker=0.5)
        with pytest.raises(TrainingError, match=r"a worker could not be made: InputError: no such backbone$"):
            run(folder, make_none, address=cluster.address, workers=1)
        with pytest.raises(TrainingError, match="1 workers died while they loaded"):
            run(folder, make_dead, address=cluster.address, workers=1)
        assert ray.is_initialized()  # what the caller started is left to the caller
    finally:
        ray.shutdown()


# --- this machine


@with_ray
@pytest.mark.loopback
def test_this_machines_workers_share_its_cores(
    folder: GridFolder, monkeypatch: pytest.MonkeyPatch, no_handler: None
) -> None:
    import ray

    monkeypatch.setattr(on_ray, "_cores", lambda: 5)
    begun: list[Any] = []

    def look(kind: str, spec: RunSpec, counts: Counts) -> None:
        begun.extend(node["NodeManagerAddress"] for node in ray.nodes())

    assert run(folder, Measuring, 1, workers=2, on_event=look).counts.done == 1
    assert folder.read_run(toy_spec(0).id).result.losses == (2.0, 2.0, 2.0)
    assert set(begun) == {"127.0.0.1"}
    assert not ray.is_initialized()


@with_ray
@pytest.mark.loopback
def test_ray_started_ahead_is_the_one_that_runs_are_made_on(
    folder: GridFolder, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setenv("RAY_preload_python_modules", "toy_grid")
    phases = Phases()
    with ray_start.ray_ahead(2, "cpu"):
        summary = run(folder, partial(make_both, marks), workers=2, phase=phases)
        assert ray.is_initialized()  # `execute_on_ray` leaves it to who started it
    assert summary.counts.done == SIZE
    assert (phases.titles, phases.done) == (["starting Ray", "starting 2 workers"], [0, 2])
    assert not ray.is_initialized()


@with_ray
@pytest.mark.loopback
def test_ray_started_ahead_gives_way_to_one_with_room_for_the_assets(
    folder: GridFolder, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_preload_python_modules", "toy_grid")
    monkeypatch.setattr(ray_start, "STORE", 80 * 2**20)
    started: list[int] = []
    start = ray_start._start
    monkeypatch.setattr(ray_start, "_start", lambda *given: (started.append(given[2]), start(*given)))
    with ray_start.ray_ahead(1, "cpu"):
        monkeypatch.setattr(ray_start, "_pickled_bytes", lambda *_: 45 * 2**20)
        assert run(folder, partial(ToyWorker, marks), 1, workers=1).counts.done == 1
    assert started == [80 * 2**20, 90 * 2**20]


def test_without_workers_nothing_is_started_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_start, "_Ahead", lambda workers: pytest.fail("started"))
    with ray_start.ray_ahead(None):
        pass


@with_ray
@pytest.mark.loopback
def test_ray_that_cannot_start_says_why(folder: GridFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("the object store\nis too small")

    monkeypatch.setattr("ray.init", refuse)
    with (
        ray_start.ray_ahead(1, "cpu"),
        pytest.raises(TrainingError, match=r"Ray did not start on this machine \(the object store is too small\)"),
    ):
        run(folder, make_none, workers=1)


# --- what never comes to start


def test_a_finished_grid_starts_nothing(folder: GridFolder, marks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger.open(folder.ledger) as ledger:
        execute(toy_jobs(2), lambda: ToyWorker(marks), assets=ASSETS, ledger=ledger, folder=folder)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(folder, make_none, 2, workers=2).counts == Counts(0, 0, 2, 0)


def test_ray_that_is_missing_is_named_with_its_package(folder: GridFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"not installed: pip install ray$"):
        run(folder, make_none, workers=2)


@pytest.mark.parametrize("address", [None, "auto"])
def test_ray_is_kept_quiet_and_on_this_machine(
    folder: GridFolder, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    [(loopback, off)] = ray_start.LOOPBACK.items()
    monkeypatch.delenv(loopback)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    before = dict(os.environ)
    seen: dict[str, str] = {}

    def started() -> bool:
        seen.update(os.environ)
        raise RuntimeError("seen")

    pickle = SimpleNamespace(dump=lambda value, file: None)
    fake = SimpleNamespace(is_initialized=started, shutdown=lambda: None, cloudpickle=pickle)
    monkeypatch.setitem(sys.modules, "ray", fake)
    with pytest.raises(RuntimeError, match="seen"):
        run(folder, make_none, workers=2, address=address)
    assert seen["RAY_USAGE_STATS_ENABLED"] == "0"
    assert seen.get(loopback) == (off if address is None else None)  # a cluster is on other machines
    assert dict(os.environ) == before


@with_ray
@pytest.mark.loopback
@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "auto", "nonsense", "127.0.0.1:99999"])
def test_an_address_where_nothing_answers_is_refused_at_once(
    folder: GridFolder, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    start = time.monotonic()
    with pytest.raises(InputError, match="no Ray cluster answers at"):
        run(folder, make_none, address=address.format(port=port))
    assert time.monotonic() - start < 8
    assert run_is_possible(folder)


def run_is_possible(folder: GridFolder) -> bool:
    with Ledger.open(folder.ledger) as ledger:
        return {row.status for row in ledger.rows()} == {"planned"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give a number of `workers`, or the address of a Ray cluster as `ray`"),
        ({"workers": 0}, "workers cannot be 0; give 1 or more"),
        ({"address": "auto", "cpus_per_worker": 0}, "CPUs a worker cannot be 0; give 1 or more"),
        ({"workers": 1, "gpus_per_worker": -1}, "GPUs a worker cannot be -1; give 0 or more"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(folder: GridFolder, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(folder, make_none, **settings)


@with_ray
def test_assets_are_measured_as_they_are_pickled() -> None:
    import ray

    found = ray_start._pickled_bytes(ray, {"small": [1, 2], "large": torch.zeros(1000, 250)})
    assert found == pytest.approx(10**6, rel=0.01)
