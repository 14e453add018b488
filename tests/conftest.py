"""What every test shares: no network, one thread, and the folder of real models and data where it is present."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

# Before any test imports a Hugging Face library, which reads this once; programs started by tests inherit it.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from helpers.command_line import Result, Run
from helpers.precision import keep_fp32
from hypothesis import settings

from ltprompt.cli import main as cli

SHARED = Path(os.environ.get("LTPROMPT_SHARED") or Path(__file__).resolve().parents[2] / "shared")

torch.set_num_threads(1)  # toys gain nothing from more, and a busy machine loses much
keep_fp32()
# A shell has what it starts in the background ignore Ctrl-C, and programs started by tests inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A busy machine is no failure, and a failure must come back on the next run.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `real` where the shared folder is missing."""
    if SHARED.is_dir():
        return
    skip = pytest.mark.skip(reason=f"needs the shared folder, {SHARED} is not there")
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data; a test that asks for it is skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared folder, {SHARED} is not there")
    return SHARED


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse network connections; Unix sockets stay allowed, and for tests marked `loopback` this machine's ports."""
    connect = socket.socket.connect
    loopback = request.node.get_closest_marker("loopback") is not None

    def refuse(self: socket.socket, address: Any) -> None:
        unix = self.family == getattr(socket, "AF_UNIX", None)
        if not unix and not (loopback and (address[0] == "::1" or address[0].startswith("127."))):
            raise RuntimeError(f"a test tried to reach {address}; tests run without network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in this process."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["ltprompt", *map(str, arguments)])
        status = cli.main()
        return Result(status, *capfd.readouterr())

    return call
