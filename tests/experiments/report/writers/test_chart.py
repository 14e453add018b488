from __future__ import annotations

import subprocess
import sys

import pytest

from ltprompt.errors import InputError
from ltprompt.experiments.report.figures import Chart, Curve, Point
from ltprompt.experiments.report.writers.chart import draw_chart


def chart(curves: int = 3, *, bars: bool = False, log: bool = False) -> Chart:
    xs = (1, 2, 32)
    made = tuple(
        Curve(f"curve {number}", tuple(Point(x, 30 + number + x / 8, None if number else 1.5, 3) for x in xs))
        for number in range(curves)
    )
    return Chart("figure2a", "a title", "a caption", "shots (examples a class)", "accuracy (%)", made, bars, log)


@pytest.mark.parametrize(("form", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
@pytest.mark.parametrize("kind", [{"bars": True}, {"log": True}, {}])
def test_equal_charts_are_equal_files(form: str, magic: bytes, kind: dict[str, bool]) -> None:
    first = draw_chart(chart(**kind), form)
    assert first.startswith(magic)
    assert first == draw_chart(chart(**kind), form)
    assert first != draw_chart(chart(2, **kind), form)


@pytest.mark.parametrize("form", ["png", "pdf"])
def test_no_date_and_no_program_is_in_the_file(form: str) -> None:
    data = draw_chart(chart(), form)
    for word in (b"CreationDate", b"Software", b"tIME"):
        assert word not in data


def test_many_curves_keep_apart() -> None:
    assert draw_chart(chart(9), "png") != draw_chart(chart(8), "png")


def test_unknown_form_is_refused() -> None:
    with pytest.raises(InputError, match=r"'jpg': .*choose from png, pdf"):
        draw_chart(chart(), "jpg")


def test_slow_libraries_are_not_loaded_before_they_are_needed() -> None:
    code = "import sys, ltprompt.experiments.report.report; print({'matplotlib', 'scipy.stats'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
