from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.toy_tickets import PARAMETERS, A, ticket

from ltprompt.errors import InputError
from ltprompt.tickets.chart import draw_distribution
from ltprompt.tickets.distribution import distribution


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF")])
def test_chart_is_written(tmp_path: Path, name: str, magic: bytes) -> None:
    tickets = {"decoupled": distribution(ticket(A)), "frozen": distribution(ticket({}, PARAMETERS[1:]))}
    draw_distribution(tickets, tmp_path / "one" / name)
    draw_distribution(tickets, tmp_path / "two" / name)
    first = (tmp_path / "one" / name).read_bytes()
    assert first.startswith(magic)
    assert first == (tmp_path / "two" / name).read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == [name]


def test_chart_without_a_ticket_or_with_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'a\.jpg'; give a name that ends in \.png or \.pdf"):
        draw_distribution({"a": distribution(ticket(A))}, tmp_path / "a.jpg")
    with pytest.raises(InputError, match="no ticket"):
        draw_distribution({}, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_tickets_are_inspected_without_the_slow_libraries() -> None:
    imports = "import sys, ltprompt.tickets.chart, ltprompt.tickets.scores"
    code = f"{imports}; print({{'transformers', 'matplotlib'}} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
