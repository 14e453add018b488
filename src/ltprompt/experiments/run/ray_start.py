"""Starting Ray on this machine, at once or beside other work, or joining a cluster.

Nothing heavy is imported here: what is started ahead comes before torch is imported.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ltprompt.errors import InputError, TrainingError

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

SILENT: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
# What this machine's workers import while the driver plans: most of their time to a first run. Not where there are
# GPUs: Ray says which of them a worker has after that, and a library that looks for GPUs as it is imported looks once.
PRELOAD = {"RAY_preload_python_modules": "ltprompt.experiments.run.worker"}
GPUS = ("/dev/nvidiactl", "/dev/kfd")


class _Ahead:
    """A thread that starts Ray and lives as long as Ray does: Linux ends a process with the thread that started it."""

    def __init__(self, workers: int) -> None:
        self._workers, self._started, self._over = workers, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when Ray has started, or could not be."""
        self._started.wait()

    def end(self) -> None:
        """Stop Ray."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(Exception):  # whoever waits finds no Ray, starts it and hears the error
            import ray

            try:
                _start(ray, self._workers, STORE)
                self._started.set()
                self._over.wait()
            finally:
                ray.shutdown()
        self._started.set()


_ahead: list[_Ahead] = []  # the one of this process, if there is one


@contextmanager
def ray_ahead(workers: int | None, device: str = "auto") -> Iterator[None]:
    """Start Ray on this machine beside what is done inside, for `open_ray` to find; stop it at the end.

    workers: how many; None starts nothing. device: of the workers. An error is left to `open_ray`, which tries again.
    """
    if workers is None:
        yield
        return
    _set(QUIET | LOOPBACK | (PRELOAD if device == "cpu" or not any(Path(one).exists() for one in GPUS) else {}))
    _ahead.append(_Ahead(workers))
    try:
        yield
    finally:
        while _ahead:
            _ahead.pop().end()


def _start(ray: Any, workers: int, store: int) -> None:
    """Start Ray on this machine. workers: how many there may be. store: bytes of shared memory."""
    ray.init("local", num_cpus=workers, object_store_memory=store, include_dashboard=False, **SILENT)


def _set(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        os.environ.setdefault(name, value)


@contextmanager
def open_ray(address: str | None, workers: int, assets: Mapping[str, Any]) -> Iterator[Any]:
    """Yield Ray, started or connected to, and stop or leave it afterwards; one that the caller has is left as it is.

    address: of a cluster; None starts Ray on this machine for so many workers, unless `ray_ahead` has. assets: what the
    object store must have room for. Raises `InputError` where Ray is missing or a cluster does not answer, and
    `TrainingError` where it does not start.
    """
    with _callers_process(QUIET if address else QUIET | LOOPBACK):
        try:
            import ray
        except ImportError as error:
            raise InputError("several workers need Ray, which is not installed: pip install ray") from error
        store = 0 if address else max(STORE, 2 * _pickled_bytes(ray, assets))
        for ahead in _ahead:
            ahead.wait()
            if store > STORE:  # it was started before the assets were known
                ahead.end()
        if ray.is_initialized():
            yield ray
            return
        try:
            with _own_sigterm():
                if address is None:
                    _start_or_say(ray, workers, store)
                else:
                    _connect(ray, address)
            yield ray
        finally:
            ray.shutdown()


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


def _start_or_say(ray: Any, workers: int, store: int) -> None:
    try:
        _start(ray, workers, store)
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"Ray did not start on this machine ({' '.join(str(error).split())}); look at free memory, /dev/shm and "
            "/tmp/ray, or leave out `workers`"
        ) from error


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


def _connect(ray: Any, address: str) -> None:
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    try:
        host, _, port = named.rpartition(":")
        if named:
            # Ray itself would try a dead address for many minutes.
            socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_TO_ANSWER).close()
        ray.init(address, **SILENT)
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
