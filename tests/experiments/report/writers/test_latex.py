from __future__ import annotations

import re

import pytest
from helpers.synthetic_runs import AMERICAS, grid, run, share, ticket

from ltprompt.experiments.records import RunRecord
from ltprompt.experiments.report.comparisons import compare_rows
from ltprompt.experiments.report.figures import Chart, Curve, Point
from ltprompt.experiments.report.tables import build_table, table_languages, table_rows
from ltprompt.experiments.report.writers.latex import escape, latex_page

SPECIAL = r"a\b{c}d&e%f$g#h_i~j^k<l>m|n±"


def page(runs: list[RunRecord], name: str = "a grid", layout: str = "table1") -> str:
    rows = table_rows(runs, layout)
    return latex_page(name, [(build_table(rows, layout), compare_rows(rows, table_languages(rows, layout)))])


def body(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("%")]


def test_special_characters_are_escaped_one_by_one() -> None:
    assert escape(SPECIAL) == (
        r"a\textbackslash{}b\{c\}d\&e\%f\$g\#h\_i\textasciitilde{}j\textasciicircum{}k\textless{}l\textgreater{}"
        r"m\textbar{}n$\pm$"
    )
    assert escape("two\nlines\t of  text") == "two lines of text"


def test_every_row_has_as_many_cells_as_columns() -> None:
    text = page(grid(examples=20, shots=(4, 16)))
    for tabular in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", text, flags=re.DOTALL):
        columns = re.match(r"\{([lr]+)\}", tabular)
        assert columns
        rows = [line for line in tabular.splitlines() if line.endswith(r"\\")]
        assert len(rows) > 5
        assert {len(re.split(r"(?<!\\)&", line)) for line in rows} == {len(columns.group(1))}


def test_environments_and_braces_are_balanced() -> None:
    runs = grid(examples=20, shots=(4, 16))
    text = "\n".join(body(page([*runs, run({"en": share(3)}, method=SPECIAL, note=SPECIAL)])))
    open_ones: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", text):
        if kind == "begin":
            open_ones.append(name)
        else:
            assert open_ones.pop() == name
    assert open_ones == []
    plain = re.sub(r"\\[{}\\]", "", text)
    assert plain.count("{") == plain.count("}")


def test_nothing_special_stands_unescaped() -> None:
    text = "\n".join(body(page([run({"en": share(3)}, method=SPECIAL)])))
    assert re.sub(r"\\[#%$&_]|\{%$|\$\\pm\$", "", text, flags=re.MULTILINE).count("#") == 0
    for line in text.splitlines():
        assert not re.search(r"(?<!\\)[#~^<>|]", line)
        assert not re.search(r"(?<!\\)%(?!$)", line)
        assert line.count("$") % 2 == line.count(r"\$") % 2


def test_best_second_deviation_and_published() -> None:
    runs = [
        run({"en": share(right + seed)}, method, seed)
        for method, right in (("ft", 4), ("sp", 8), ("dp", 6))
        for seed in (1, 2)
    ]
    text = page(runs)
    assert r"& SP & \textbf{47.50} {\scriptsize $\pm$ 3.54} &" in text
    assert r"& DP & \underline{37.50} {\scriptsize $\pm$ 3.54} &" in text
    assert r"& FT & 27.50 {\scriptsize $\pm$ 3.54} &" in text
    assert r"\quad\textit{published} & \textit{39.45} &" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert rule in text


def test_a_quoted_line_is_one_line_in_italics() -> None:
    text = page([run({code: share(8) for code in AMERICAS}, task="americasnli")], layout="table2")
    (quoted,) = [line for line in text.splitlines() if "390000" in line]
    assert quoted.startswith(r"FT & MultiNLI & 390000 & \textit{36.13} &")
    assert quoted.endswith(r"& \textit{38.48} & published \\")


def test_incomplete_rows_and_notes() -> None:
    runs = [run({"en": share(8), "sw": share(8)}, seed=1), run({"en": share(8)}, seed=2, note="a remark")]
    text = page(runs)
    assert "1 of 2 seeds" in text
    assert "(1) a remark." in text
    assert r"$^{(1)}$" in text
    assert "--" in page([run({"en": share(8)}), run({"sw": share(8)}, "ft")])


def test_comparisons_are_a_table_and_items() -> None:
    text = page([run({"en": share(8)}), run({"en": share(9)}, "ltp", ticket=ticket(0.2))])
    assert r"\label{tab:table1-comparisons}" in text
    assert (
        r"\item 16 shots: LTP 20 \% is 5.00 points above SP (best baseline), one seed: not tested over training" in text
    )
    assert r"\begin{itemize}" not in page([run({"en": share(8)})])


def test_captions_name_the_paper_s_number_and_leave_numbering_to_latex() -> None:
    text = page([run({"en": share(8)}), run({"en": share(9)}, "ltp", ticket=ticket(0.2))])
    captions = re.findall(r"\\caption\{(.*?)\. ", text)
    assert captions == [
        "Zero-shot cross-lingual transfer, as in the paper's Table 1",
        "Comparisons: Zero-shot cross-lingual transfer, as in the paper's Table 1",
    ]


def test_figures_are_included_by_their_files_names() -> None:
    point = Point(x=16, y=35.0, deviation=None, seeds=1)
    chart = Chart("figure2a", "Figure 2a: accuracy", "Ratio 20 %.", "shots", "%", (Curve("tied", (point,)),))
    text = latex_page("a grid", [], [chart])
    assert r"\includegraphics[width=\linewidth]{figure2a.pdf}" in text
    assert r"\caption{Accuracy, as in the paper's Figure 2a. Ratio 20 \%.}" in text
    assert text.count(r"\begin{figure}") == text.count(r"\end{figure}") == 1


@pytest.mark.parametrize("name", ["a\n\\input{/etc/passwd}", "a\r\\evil", "a\u2028\\evil"])
def test_a_name_cannot_leave_its_comment(name: str) -> None:
    lines = page([run({"en": share(8)})], name).splitlines()
    assert [line for line in lines if "evil" in line or "passwd" in line] == [lines[0]]
    assert lines[0].startswith("% a ")


def test_the_preamble_is_told_in_comments() -> None:
    lines = page([run({"en": share(8)})]).splitlines()
    for package in ("booktabs", "graphicx"):
        assert rf"%   \usepackage{{{package}}}" in lines
