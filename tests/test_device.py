"""Where arithmetic runs: what `--device`, `--dtype` and `--threads` choose, and refuse."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from helpers.precision import MEASURED

from ltprompt import device
from ltprompt.device import Compute, full_precision, resolve
from ltprompt.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Leave the threads as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("speedup", "expected"), [(1.49, "fp32"), (1.5, "bf16"), (5.0, "bf16"), (0.2, "fp32")])
def test_auto_takes_bf16_where_the_processor_is_faster_with_it(
    speedup: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_cpu_bf16_speedup", lambda: speedup)
    assert resolve("cpu").dtype_name == expected
    assert resolve("cpu", "auto").dtype_name == expected


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_given_dtype_is_taken_without_measuring(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_cpu_bf16_speedup", lambda: pytest.fail("was measured"))
    assert resolve("cpu", name) == Compute(CPU, dtype)
    assert resolve("cpu", name).dtype_name == name


def test_auto_takes_the_best_device_present(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, expected in ((False, False, "cpu"), (False, True, "mps"), (True, True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=cuda: found)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda found=mps: found)
        assert resolve(dtype="fp32").device == torch.device(expected)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:99", "cpu:x", "meta", "hpu", "privateuseone"])
def test_an_absent_or_unknown_device_is_refused(name: str) -> None:
    message = rf"^device '{name}' is not available here; choose auto, cpu, cuda, cuda:N or mps$"
    with pytest.raises(InputError, match=message):
        resolve(name, "fp32")


@pytest.mark.parametrize("name", ["fp16", "float32", ""])
def test_an_unknown_dtype_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"unknown dtype '{name}': .*choose from auto, fp32, bf16"):
        resolve("cpu", name)


def test_threads() -> None:
    resolve("cpu", "fp32", threads=1)
    assert torch.get_num_threads() == 1
    resolve("cpu", "fp32")
    assert torch.get_num_threads() == 1
    for wrong in (0, -2):
        with pytest.raises(InputError, match=f"`threads` {wrong} is not a positive number"):
            resolve("cpu", "fp32", threads=wrong)


def test_autocast_multiplies_in_the_dtype_and_full_precision_does_not() -> None:
    layer = torch.nn.Linear(4, 4)
    values = torch.ones(2, 4)
    with Compute(CPU).autocast():
        assert layer(values).dtype == torch.float32
        assert layer.double()(values.double()).dtype == torch.float64
    layer.float()
    with Compute(CPU, torch.bfloat16).autocast():
        assert layer(values).dtype == torch.bfloat16
        with full_precision(CPU):
            assert layer(values).dtype == torch.float32
    assert layer(values).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_the_speed_of_bf16_is_measured_once() -> None:
    MEASURED.cache_clear()
    first = MEASURED()
    assert first > 0
    assert MEASURED() == first
    assert MEASURED.cache_info().misses == 1


KEPT = """
import os
import sys
from pathlib import Path

import torch

from ltprompt.device import resolve, return_freed_memory

if sys.argv[1] == "cpu":
    resolve("cpu", "fp32")
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before = resident()
block = torch.ones(2**26)
del block
kept = resident() - before
return_freed_memory()
print(kept > 2**27, resident() - before > 2**27)
"""


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="an option of glibc")
@pytest.mark.parametrize("device", ["cpu", "none"])
def test_freed_memory_is_kept_for_the_next_step_or_returned(device: str) -> None:
    found = subprocess.run([sys.executable, "-c", KEPT, device], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(device == "cpu"), "False"]
