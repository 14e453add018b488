"""Where arithmetic runs: what `--device`, `--dtype` and `--threads` choose, and refuse."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from helpers.precision import FAST

from ltprompt import device
from ltprompt.device import Compute, full_precision, resolve, seeded, tune_process
from ltprompt.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Leave the threads as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend a processor that has the instruction sets given and no other."""
    monkeypatch.setattr(device, "FAST_BF16", FAST)

    def pretend(*sets: str) -> None:
        monkeypatch.setattr(device, "_processor_has", lambda name: name in sets)

    return pretend


AVX512, AMX = ("avx512_bf16",), ("avx512_bf16", "amx_tile")


@pytest.mark.parametrize(
    ("sets", "trained", "expected"),
    [
        ((), None, "fp32"),
        (AVX512, None, "fp32"),  # on some such processors bf16 has half the rate of fp32
        (AMX, None, "bf16"),
        ((), "bf16", "fp32"),
        (AVX512, "bf16", "bf16"),
        (AMX, "bf16", "bf16"),
        (AMX, "fp32", "fp32"),
        (AMX, "fp8", "bf16"),  # what a later version may know
    ],
)
def test_auto_takes_what_an_adapter_was_trained_in_else_goes_by_the_kind_of_processor(
    sets: tuple[str, ...], trained: str | None, expected: str, processor: Callable[..., None]
) -> None:
    processor(*sets)
    assert resolve("cpu", trained=trained).dtype_name == expected
    assert resolve("cpu", "auto", trained=trained).dtype_name == expected


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("trained", [None, "bf16"])
def test_cuda_takes_bf16_where_it_is_not_emulated(
    native: bool, trained: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert resolve(trained=trained).dtype_name == ("bf16" if native else "fp32")
    assert resolve(trained="fp32").dtype_name == "fp32"


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("trained", [None, "fp32", "bf16"])
@pytest.mark.parametrize("sets", [(), AMX])
def test_a_given_dtype_is_taken_on_every_processor(
    name: str, dtype: torch.dtype, trained: str | None, sets: tuple[str, ...], processor: Callable[..., None]
) -> None:
    processor(*sets)
    assert resolve("cpu", name, trained=trained) == Compute(CPU, dtype)
    assert resolve("cpu", name, trained=trained).dtype_name == name


CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPUINFO.exists(), reason="there the kernel says what the processor has")
def test_the_processor_has_what_the_kernel_says() -> None:
    kernel = CPUINFO.read_text().split()
    for name in device.ANY_BF16:
        assert device._processor_has(name) == (name in kernel)


def test_a_set_that_torch_does_not_know_is_not_there() -> None:
    assert not device._processor_has("amx_of_the_future")


def test_auto_takes_the_best_device_present(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, expected in ((False, False, "cpu"), (False, True, "mps"), (True, True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=cuda: found)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda found=mps: found)
        assert resolve(dtype="fp32").device == torch.device(expected)


def test_a_seed_is_for_the_device_named_not_for_the_one_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend two GPUs: torch seeds the one in use, the first, unless told otherwise."""
    in_use, found = [0], []

    @contextmanager
    def using(place: torch.device) -> Iterator[None]:
        in_use.append(place.index)
        yield
        in_use.pop()

    with torch.random.fork_rng([]):
        monkeypatch.setattr(torch.random, "fork_rng", lambda *given, **named: nullcontext())
        monkeypatch.setattr(torch.cuda, "device", using)
        monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: found.append((in_use[-1], seed)))
        with seeded(7, torch.device("cuda:1")):
            assert found == [(1, 7)]


@pytest.mark.parametrize("name", ["", "gpu", "cuda:99", "cpu:x", "meta", "hpu", "privateuseone"])
def test_an_absent_or_unknown_device_is_refused(name: str) -> None:
    message = rf"^device '{name}' is not available here; choose auto, cpu, cuda, cuda:N or mps$"
    with pytest.raises(InputError, match=message):
        resolve(name, "fp32")


@pytest.mark.parametrize("name", ["fp16", "float32", ""])
def test_an_unknown_dtype_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"unknown dtype '{name}': .*choose from auto, fp32, bf16"):
        resolve("cpu", name)


def test_a_process_of_ours_has_the_threads_asked_for() -> None:
    tune_process(1, on_cpu=False)
    assert torch.get_num_threads() == 1
    tune_process(None, on_cpu=False)
    assert torch.get_num_threads() == 1
    tune_process(2, on_cpu=False)
    assert torch.get_num_threads() == 2


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


KEPT = """
import os
import sys
from pathlib import Path

import torch

from ltprompt.device import return_freed_memory, tune_process

tune_process(None, on_cpu=sys.argv[1] == "cpu")
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


def test_no_call_of_the_library_changes_its_callers_process(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "helpers.library_calls", str(tmp_path)]
    found = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) == 30
    assert [line for line in lines if not line.endswith(": nothing")] == []
