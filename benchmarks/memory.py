"""How much memory a process takes, and how many examples a rival can take at once in what the machine has."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path

import torch

from benchmarks.shapes import Shape

USABLE = 0.75  # of the machine's memory, by what a rival is expected to take
TOUCHED = 2**28  # bytes at once
CONTAINER = Path("/sys/fs/cgroup")  # where a container's own limits stand


def anonymous(process: int) -> int | None:
    """Return the anonymous memory of a process in bytes; None where the system does not say or the process is gone.

    Unlike the resident set it leaves out mapped files, whose pages the system takes back when it needs them.
    """
    return _status(process, "RssAnon")


def largest_resident() -> int:
    """Return this process's largest resident memory in bytes: `ru_maxrss`, without that of the process that started it.

    Linux lets a new process's `ru_maxrss` begin where the old one's stands; its VmHWM is the process's own.
    """
    own = _status(os.getpid(), "VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit if own is None else own


def _status(process: int, name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def installed() -> int:
    """Return the machine's memory, or what a container allows of it, in bytes."""
    whole, limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _number(CONTAINER / "memory.max")
    return whole if limit is None else min(whole, limit)


def touch_free() -> None:
    """Write once to most of the memory that is free.

    The host of a virtual machine hands memory out at the first touch, several times as slowly as the machine's own
    system does later; whoever is measured first would pay for it.
    """
    held = [torch.ones(TOUCHED // 4) for _ in range(int(USABLE * free()) // TOUCHED)]
    held.clear()


def free() -> int:
    """Return the free memory that this process may take, in bytes; 0 where the system does not say."""
    if "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return 0
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    limit, used = (_number(CONTAINER / name) for name in ("memory.max", "memory.current"))
    return available if limit is None or used is None else max(min(available, limit - used + _cached()), 0)


def _cached() -> int:
    """Return the bytes of files that a container's memory holds and gives up when asked to."""
    path = CONTAINER / "memory.stat"
    found = re.search(r"^inactive_file (\d+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return int(found[1]) if found else 0


def _number(path: Path) -> int | None:
    """Return the number in a file; None where there is none, as ``max`` is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def rows_that_fit(shape: Shape, *, longest: int, states: float, copies: float, total: int) -> int:
    """Return how many examples, a power of two up to a whole batch, a rival can take at once.

    longest: tokens of the longest. states: copies of the parameters held beside the untied output matrix, gradients and
    optimizer state among them. copies: of the vocabulary-wide logits. total: the machine's memory in bytes.
    """
    matrix = shape.vocabulary * shape.width
    layer = 4 * shape.width**2 + 2 * shape.width * shape.inner
    held = 4 * (matrix + states * (matrix + shape.layers * layer))
    # of one token: its logits, and what backward keeps of every layer, dropout masks included
    token = 4 * (copies * shape.vocabulary + shape.layers * (16 * shape.width + 4 * shape.inner))
    rows = shape.batch
    while rows > 1 and held + rows * longest * token > USABLE * total:
        rows //= 2
    return rows
