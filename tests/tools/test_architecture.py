"""tools/architecture.py: the arrows that are drawn, and a page that is out of date."""

from __future__ import annotations

from collections import Counter
from graphlib import CycleError
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = spec_from_file_location("architecture", ROOT / "tools" / "architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page of two rooms, in place of the real one."""
    path = tmp_path / "architecture.md"
    path.write_text(f"Above.\n{tool.BEGIN}old\n{tool.END}Below.\n", encoding="utf-8")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "PAGE", path)
    monkeypatch.setattr(tool, "imports", lambda: {"p.top.a": {"p.low.b", "p.low"}, "p.low": set(), "p.low.b": set()})
    monkeypatch.setattr(tool, "line_counts", lambda: {"p.top.a": 44, "p.low": 1, "p.low.b": 1006})
    return path


def test_imports_are_counted_between_rooms_and_not_within_one(tool: ModuleType) -> None:
    found = tool.arrows_between({"p.top.a": ["p.top.b", "p.low.c", "p.low"], "p.top.b": ["p.low.c"], "p.low.c": []})
    assert found == Counter({("top", "low"): 3})


def test_an_arrow_that_a_chain_implies_is_not_drawn(tool: ModuleType) -> None:
    arrows = [("a", "b"), ("b", "c"), ("c", "d"), ("a", "c"), ("a", "d"), ("x", "d")]
    assert set(tool.drawn("abcdx", arrows)) == {("a", "b"), ("b", "c"), ("c", "d"), ("x", "d")}


def test_rooms_stand_from_top_to_bottom_and_a_circle_is_refused(tool: ModuleType) -> None:
    assert tool.order("cab", [("a", "b"), ("b", "c")]) == ["a", "b", "c"]
    with pytest.raises(CycleError):
        tool.order("ab", [("a", "b"), ("b", "a")])


def test_the_page_is_written_between_its_markers_and_then_up_to_date(tool: ModuleType, page: Path) -> None:
    assert "make architecture" in tool.main(["--check"])
    assert "old" in page.read_text(encoding="utf-8")
    assert tool.main([]) is None
    assert tool.main(["--check"]) is None
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Above.\n<!-- ")
    assert text.endswith(" -->\nBelow.\n")
    assert "old" not in text
    assert "    top -->|2| low\n" in text
    assert "| `top` | 1 | 40 | low 2 |\n| `low` | 1 | 1,010 | - |\n" in text
    assert "| `p.low` | 10 | 1 | 0 |\n" in text


def test_a_page_without_markers_and_other_arguments_are_refused(tool: ModuleType, page: Path) -> None:
    page.write_text("Above.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks a marker"):
        tool.main([])
    assert tool.main(["--chek"]) == tool.USAGE


def test_the_real_package_has_every_room_in_order(tool: ModuleType) -> None:
    """The linter's contract, written by hand, and what the tool finds agree on who stands above whom."""
    arrows = tool.arrows_between(tool.imports())
    found = tool.order({name for pair in arrows for name in pair}, arrows)
    assert [found.index(name) for name in ("cli", "experiments", "classifier", "tickets", "backbone")] == sorted(
        found.index(name) for name in ("cli", "experiments", "classifier", "tickets", "backbone")
    )
    assert {"stage1", "stage2", "errors"} <= set(found)
