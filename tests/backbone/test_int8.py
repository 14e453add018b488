from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ltprompt.backbone.int8 import dequantise, load_small, quantise, save_small
from ltprompt.backbone.loading import SMALL_WEIGHTS, mini_folder
from ltprompt.errors import FileFormatError


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(7, 5, generator=generator) * torch.logspace(-6, 2, 7)[:, None]
    matrix[3] = 0
    return {"matrix": matrix, "vector": torch.randn(5, generator=generator)}


def test_every_entry_is_off_by_at_most_half_a_level_of_its_row() -> None:
    original, restored = state(), dequantise(quantise(state()))
    half = original["matrix"].abs().amax(dim=1, keepdim=True) / 127 / 2
    assert ((restored["matrix"] - original["matrix"]).abs() <= half * 1.0001).all()
    assert torch.equal(restored["vector"], original["vector"])
    assert restored["matrix"].dtype == torch.float32


def test_a_row_of_zeros_stays_zero() -> None:
    assert not dequantise(quantise(state()))["matrix"][3].any()


def test_a_file_gives_back_what_was_quantised(tmp_path: Path) -> None:
    save_small(tmp_path / "small", state())
    loaded, expected = load_small(tmp_path / "small"), dequantise(quantise(state()))
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    save_small(tmp_path / "small", state())
    data = bytearray((tmp_path / "small").read_bytes())
    data[-1] ^= 1
    (tmp_path / "small").write_bytes(data)
    with pytest.raises(FileFormatError, match="damaged"):
        load_small(tmp_path / "small")


def test_the_embedded_weights_are_small() -> None:
    assert (mini_folder() / SMALL_WEIGHTS).stat().st_size <= 40_000_000


@pytest.mark.parametrize("arguments", [[], ["one", "two"]])
def test_the_maker_of_the_embedded_backbone_says_how_it_is_called(arguments: list[str]) -> None:
    tool = Path(__file__).resolve().parents[2] / "tools" / "embed_backbone.py"
    found = subprocess.run([sys.executable, tool, *arguments], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (1, "usage: python tools/embed_backbone.py FOLDER\n")
