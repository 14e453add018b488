"""Where and how precisely the arithmetic runs: the device, the matmul dtype, the threads."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch

from ltprompt.errors import InputError, choices

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# bf16 loses precision, so `auto` takes it on a CPU only where it clearly pays.
WORTHWHILE = 1.5
KEEPING = {-4: 0, -1: -1}  # of mallopt(3): M_MMAP_MAX, no block has its own mapping; M_TRIM_THRESHOLD, none is returned


@dataclass(frozen=True)
class Compute:
    """A device and the dtype in which it multiplies matrices; weights are always fp32 masters."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which forward passes run."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @property
    def dtype_name(self) -> str:
        """Name of the matmul dtype as `--dtype` takes it."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)


def forked_random(device: torch.device) -> AbstractContextManager[object]:
    """Return the context after which the random generators of the CPU and of `device` stand where they stood."""
    if device.type == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw on the CPU from a generator seeded with `seed`; the global one stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which autocast is off: for the few products whose rounding decides a label."""
    return torch.autocast(device.type, enabled=False)


def resolve(device: str = "auto", dtype: str = "auto", threads: int | None = None) -> Compute:
    """Return the `Compute` that `--device`, `--dtype` and `--threads` ask for.

    device: ``auto`` (CUDA, then MPS, then CPU) or a torch device such as ``cuda:1``.
    dtype: ``auto``, ``fp32`` or ``bf16``; auto takes bf16 where the device multiplies it faster.
    On a CPU the process keeps the memory that it frees from here on, until `return_freed_memory`.
    Raises `InputError` for an unknown or absent device or dtype.
    """
    if threads is not None:
        if threads < 1:
            raise InputError(f"`threads` {threads} is not a positive number; leave it out to use all cores")
        torch.set_num_threads(threads)
    place = torch.device(_available() if device == "auto" else _checked(device))
    if place.type == "cpu":
        _keep_freed_memory()
    if dtype == "auto":
        return Compute(place, torch.bfloat16 if _fast_bf16(place) else torch.float32)
    if dtype not in ("fp32", "bf16"):
        raise InputError(f"unknown dtype {dtype!r}: {choices(dtype, ['auto', 'fp32', 'bf16'])}")
    return Compute(place, DTYPES[dtype])


@cache
def _keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next step; by default it returns large blocks and gets them anew.

    New memory costs a page fault every 4 KiB: of the tensors of a step of stage 1 that is up to a third of its time.
    """
    for option, value in KEEPING.items():
        _call_glibc("mallopt", option, value)


def return_freed_memory() -> None:
    """Give the system back what this process has freed so far: it is not going to compute for a while."""
    _call_glibc("malloc_trim", 0)


def _call_glibc(name: str, *given: int) -> None:
    """Call a function that glibc has and other systems' libraries have not."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), name):
        getattr(library, name)(*given)


def _available() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _checked(name: str) -> str:
    try:
        if name.partition(":")[0] not in ("cpu", "cuda", "mps"):  # torch knows more, such as meta, that cannot train
            raise ValueError(name)
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"device {name!r} is not available here; choose auto, cpu, cuda, cuda:N or mps") from error
    return name


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _cpu_bf16_speedup() >= WORTHWHILE


@cache
def _cpu_bf16_speedup() -> float:
    """Return the measured rate of bf16 over fp32 products: processors with the same flags differ tenfold."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(256, 768, dtype=dtype), torch.ones(768, 768, dtype=dtype)
        torch.nn.functional.linear(left, right)
        runs = []
        for _ in range(7):
            start = time.perf_counter()
            torch.nn.functional.linear(left, right)
            runs.append(time.perf_counter() - start)
        seconds[dtype] = min(runs)
    return seconds[torch.float32] / seconds[torch.bfloat16]
