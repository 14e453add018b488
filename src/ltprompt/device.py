"""Where and how precisely the arithmetic runs: the device, the matmul dtype; and a process of ours set up for it."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch

from ltprompt.errors import InputError, choices

CPU = torch.device("cpu")
_GENERATORS = threading.RLock()  # held by who draws from torch's global ones
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Instruction sets that multiply bf16, as torch names them. Of AVX512-BF16 one processor had 2.2 times its rate of fp32
# and another half of it; AMX had 7.6 times. What `auto` takes loses precision, so it must pay on every such processor.
FAST_BF16 = ("amx_tile",)
ANY_BF16 = (*FAST_BF16, "avx512_bf16")
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
        """Name of the matmul dtype as `resolve` takes it."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Draw from torch's global generators, of the CPU and of `device`, seeded; they stand afterwards where they stood.

    One thread's block at a time: the generators are the whole process's.
    """
    elsewhere = device.type != "cpu"
    forked = torch.random.fork_rng([device], device_type=device.type) if elsewhere else torch.random.fork_rng([])
    with _GENERATORS, forked:
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):  # whose generators are seeded one by one
                torch.cuda.manual_seed(seed)
        elif elsewhere:
            torch.get_device_module(device).manual_seed(seed)
        yield


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which autocast is off: for the few products whose rounding decides a label."""
    return torch.autocast(device.type, enabled=False)


def resolve(device: str = "auto", dtype: str = "auto", *, trained: str | None = None) -> Compute:
    """Return the `Compute` that a device and a dtype ask for; nothing is measured, and the process stays as it is.

    device: ``auto`` (CUDA, then MPS, then CPU) or a torch device such as ``cuda:1``.
    dtype: ``auto``, ``fp32`` or ``bf16``; auto goes by the kind of processor: bf16 on CUDA that multiplies it and on a
    CPU with AMX, else fp32 (AVX512-BF16 alone, ARM, MPS).
    trained: the dtype that an adapter was trained in, which auto keeps; bf16 only where there are instructions for it,
    on a CPU AMX or AVX512-BF16.
    Raises `InputError` for an unknown or absent device or dtype.
    """
    place = torch.device(_available() if device == "auto" else _checked(device))
    if dtype == "auto":
        sets = ANY_BF16 if trained == "bf16" else FAST_BF16
        bf16 = trained != "fp32" and _multiplies_bf16(place, sets)
        return Compute(place, torch.bfloat16 if bf16 else torch.float32)
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}: {choices(dtype, ['auto', *DTYPES])}")
    return Compute(place, DTYPES[dtype])


def tune_process(threads: int | None, *, on_cpu: bool) -> None:
    """Set up a process that is ours, a command's or a worker's, to compute; a caller's process is its own.

    threads: of torch on the CPU; None leaves them. on_cpu: whether the model runs there; then the process keeps the
    memory that it frees from here on, until `return_freed_memory`.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if on_cpu:
        _keep_freed_memory()


@cache
def _keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next step; by default it returns large blocks and gets them anew.

    New memory costs a page fault every 4 KiB: of the tensors of a step of stage 1 that is up to a third of its time.
    """
    for option, value in KEEPING.items():
        _call_glibc("mallopt", option, value)


def return_freed_memory() -> None:
    """Give the system back what a process of ours has freed so far: it is not going to compute for a while."""
    if _keep_freed_memory.cache_info().currsize:  # elsewhere nothing is kept, and the heap is the caller's
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


def _multiplies_bf16(device: torch.device, sets: Sequence[str]) -> bool:
    """Return whether a device has instructions for bf16: on a CPU one of `sets`."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and any(map(_processor_has, sets))


def _processor_has(name: str) -> bool:
    """Return whether the processor has an instruction set; one that this torch does not know of it has not."""
    known = getattr(torch.cpu, f"_is_{name}_supported", None)
    return known is not None and bool(known())
