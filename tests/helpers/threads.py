"""Calls from several threads at once, switched as often as Python can."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


@contextmanager
def _often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def at_once(calls: Sequence[Callable[[], Any]], threads: int | None = None) -> list[Any]:
    """Return what each call returns; as many threads as calls, or as said, start together."""
    threads = threads or len(calls)
    start = threading.Barrier(threads, timeout=300)
    with _often(), ThreadPoolExecutor(threads, initializer=start.wait) as pool:
        return [future.result(300) for future in [pool.submit(call) for call in calls]]
