"""The wheel: it holds the whole package and nothing else, and works offline in a new environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "ltprompt"
LARGEST = 45_000_000  # bytes
NEEDED = (
    "py.typed",
    "data/nli/train.en.tsv",
    "data/nli/test.quy.tsv",
    "mini/model.int8.safetensors",
    "mini/tokenizer.json",
    "mini/LICENSE.MIT",
    "mini/ticket-20.safetensors",
    "mini/ticket-75.safetensors",
    "tasks/xnli.yaml",
    "tasks/americasnli.yaml",
    "tasks/starters/pairs.yaml",
    "tasks/starters/single.yaml",
)
NO_NETWORK = """
import socket

def refuse(*arguments):
    raise RuntimeError("no network here")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""
# The demonstration on the real backbone with a few steps on a few rows; the last line tells what was imported.
SHORT_DEMO = """
import sys
from pathlib import Path

import ltprompt
from ltprompt.cli import main as cli
from ltprompt.cli import demo
from ltprompt.settings import ScoresSettings, TrainSettings

demo.SCORES = ScoresSettings(steps=2, batch_size=2, max_length=32, evaluate_every=2, held_out=0.01)
demo.TRAIN = TrainSettings(epochs=1, batch_size=4, max_length=64)
Path("few").mkdir()
for table in demo.embedded_tables():
    if table.name in ("train.en.tsv", "dev.en.tsv", "test.en.tsv", "test.sw.tsv"):
        Path("few", table.name).write_text("".join(table.read_text(encoding="utf-8").splitlines(True)[:7]))
demo.embedded_tables = lambda: sorted(Path("few").iterdir())
sys.argv = ["ltprompt", "demo", "--threads", "1"]
status = cli.main()
print(ltprompt.__file__)
sys.exit(status)
"""


def pip(python: str | Path, *arguments: object) -> None:
    """Run a Python's pip; skip the test where it reaches no package index."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode and "No matching distribution found" in found.stderr and _without_index(found.stderr):
        pytest.skip("pip reaches no package index here, so it can neither build the wheel nor install what it needs")
    assert found.returncode == 0, found.stderr


def _without_index(error: str) -> bool:
    """Whether pip tried in vain to connect, or has an index of no packages."""
    return "Retrying" in error or "(from versions: none)" in error


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package built as its users get it; pip fetches the build backend."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that has the wheel and all it needs, and a network that refuses."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip(python, "install", "--no-input", "-c", ROOT / "constraints.txt", wheel)
    Path(packages(python), "sitecustomize.py").write_text(NO_NETWORK)
    return python


def packages(python: Path) -> str:
    """The folder that an environment's packages are in."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def run(python: Path, place: Path, *arguments: str) -> list[str]:
    """Run the new environment's Python from a folder of its own; return the lines it printed."""
    setting = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "PYTHONPATH")}
    setting |= {"HF_HOME": str(place / "hub"), "OMP_NUM_THREADS": "1"}
    found = subprocess.run([python, *arguments], cwd=place, env=setting, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    print(f"{wheel.name}: {wheel.stat().st_size:,} bytes, unpacked {sum(sizes.values()):,}")
    own = {name for name in sizes if ".dist-info/" not in name}
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert own == {str(path.relative_to(PACKAGE.parent)) for path in files}
    assert own >= {f"ltprompt/{name}" for name in NEEDED}
    for licence in ("LICENSE", "src/ltprompt/mini/LICENSE.MIT"):
        assert any(name.endswith(f".dist-info/licenses/{licence}") for name in sizes), licence
    assert wheel.stat().st_size < LARGEST


def test_the_demonstration_runs_from_it_offline(installed: Path, tmp_path: Path) -> None:
    printed = run(installed, tmp_path, "-c", SHORT_DEMO)
    own = Path(packages(installed), "ltprompt", "__init__.py")
    assert Path(printed[-1]) == own, f"not the wheel's package: {printed[-1]}"
    assert any(line.startswith("ltp minus sp: ") and line.endswith("noise)") for line in printed)
    assert (tmp_path / "ltprompt-demo" / "results.json").is_file()
    assert not (tmp_path / "hub").exists()


def test_the_module_runs_as_a_program(installed: Path, tmp_path: Path) -> None:
    printed = run(installed, tmp_path, "-m", "ltprompt", "ticket", "inspect", "mini-20")
    assert "eligible parameters (20.00%)" in printed[0]


def test_the_network_is_refused(installed: Path, tmp_path: Path) -> None:
    code = "import urllib.request as r\ntry: r.urlopen('http://127.0.0.1:9')\nexcept RuntimeError as e: print(e)"
    assert run(installed, tmp_path, "-c", code) == ["no network here"]
