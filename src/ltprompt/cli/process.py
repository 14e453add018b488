"""The command's own process: its threads and its allocator are set here, and nowhere below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltprompt.errors import InputError

if TYPE_CHECKING:
    from ltprompt.device import Compute

DTYPE_HELP = (
    "matmul precision: auto, fp32 or bf16; auto is bf16 on CUDA with bf16 and on CPUs with AMX, else fp32; weights are "
    "always fp32"
)
TRAINED_DTYPE_HELP = "matmul precision: auto, fp32 or bf16; auto is what the adapter was trained in"

# Two threads gave the same bytes twice, and others than one: sums are parted among them.
SAME_BYTES = (
    "with 1 the same command gives the same bytes on the same kind of processor; another number rounds otherwise, and "
    "more than 1 promises no bytes"
)
THREADS_HELP = f"CPU threads; {SAME_BYTES} [all cores]"


def computing(device: str, dtype: str, threads: int | None, trained: str | None = None) -> Compute:
    """Set this process up for what `--device`, `--dtype` and `--threads` ask for, and return where it computes.

    trained: the dtype of the adapter that is used. Raises `InputError` for what there is not.
    """
    from ltprompt.device import resolve, tune_process

    if threads is not None and threads < 1:
        raise InputError(f"--threads {threads} is not a positive number; leave it out to use all cores")
    compute = resolve(device, dtype, trained=trained)
    tune_process(threads, on_cpu=compute.device.type == "cpu")
    return compute
