from __future__ import annotations

import numpy as np
import pytest
from helpers.synthetic_runs import AMERICAS, XNLI, grid, run, share, ticket

from ltprompt.experiments.records import RunRecord
from ltprompt.experiments.report.tables import Line, Table, build_table, table_languages, table_rows


def table(runs: list[RunRecord], layout: str = "table1") -> Table:
    return build_table(table_rows(runs, layout), layout)


def line(found: Table, label: str, shots: int = 16) -> Line:
    (match,) = [each for block in found.blocks for each in block if (each.label, each.shots) == (label, shots)]
    return match


def test_table_1_has_the_papers_shape() -> None:
    found = table(grid(examples=20))
    assert found.head == ("Shots", "Method")
    assert found.columns == (*XNLI, "AVG")
    assert found.headings()[:3] == ("AR", "BG", "DE")
    assert [len(block) for block in found.blocks] == [7] * 4
    assert [block[0].shots for block in found.blocks] == [1, 4, 16, 32]
    expected = ["FT", "DP", "SP", "MP", "LTP 20 %", "LTP 75 %", "Random 20 %"]
    assert [each.label for each in found.blocks[0]] == expected
    assert found.head_of(found.blocks[2][1]) == ("16", "DP")


def test_cells_are_numpys_means_and_deviations_over_seeds() -> None:
    runs = grid(examples=30, shots=(16,))
    found = table(runs)
    own = [each for each in runs if each.spec.method == "dp"]
    shares = 100 * np.array([[each.result.languages[code].accuracy for code in XNLI] for each in own])
    cells = line(found, "DP").cells
    for index in range(len(XNLI)):
        assert cells[index].mean == pytest.approx(np.mean(shares[:, index]))
        assert cells[index].deviation == pytest.approx(np.std(shares[:, index], ddof=1))
        assert cells[index].seeds == 3
    averages = np.mean(shares, axis=1)
    assert cells[-1].mean == pytest.approx(np.mean(averages))
    assert cells[-1].deviation == pytest.approx(np.std(averages, ddof=1))


def test_one_seed_has_no_deviation() -> None:
    (cell, _) = line(table([run({"en": share(8)})]), "SP").cells
    assert (cell.mean, cell.deviation, cell.seeds) == (pytest.approx(40), None, 1)


def test_best_and_second_of_the_same_shots_and_ties_share() -> None:
    runs = [
        run({"en": share(right)}, method, shots=shots)
        for shots, rights in ((4, (9, 9, 8, 7)), (16, (5, 6, 7, 6)))
        for method, right in zip(("ft", "dp", "sp", "mp"), rights, strict=True)
    ]
    found = table(runs)
    assert [each.cells[0].rank for each in found.blocks[0]] == [1, 1, 2, 0]
    assert [each.cells[0].rank for each in found.blocks[1]] == [0, 2, 1, 2]
    assert [each.cells[1].rank for each in found.blocks[1]] == [0, 2, 1, 2]


def test_numbers_that_look_equal_share_a_rank() -> None:
    runs = [run({"en": share(right, 100_000)}, method) for method, right in (("ft", 40_001), ("dp", 40_002), ("sp", 9))]
    assert [each.cells[0].rank for each in table(runs).blocks[0]] == [1, 1, 2]


def test_a_lone_row_is_not_the_best_of_anything() -> None:
    assert {cell.rank for cell in line(table([run({"en": share(8)})]), "SP").cells} == {0}


def test_the_papers_numbers_stand_beside_ours() -> None:
    found = table(grid(examples=10, seeds=1))
    assert line(found, "SP", 4).cells[0].published == 38.04
    assert line(found, "LTP 75 %", 32).cells[-1].published == 43.42
    assert line(found, "Random 20 %", 4).cells[0].published is None


def test_the_papers_numbers_stand_beside_a_ready_ticket_of_its_cut() -> None:
    found = table([run({"ar": share(8)}, "ltp", ticket=ticket(0.2, name="english"))])
    assert line(found, "LTP 20 % (english)").cells[0].published == 40.44
    union = table([run({"ar": share(8)}, "ltp", ticket=ticket(0.2, "union", name="both"))])
    assert line(union, "LTP 20 % (both)").cells[0].published is None


@pytest.mark.parametrize(("layout", "setting"), [("table1", "zero-shot"), ("table3", "in-language")])
def test_the_papers_numbers_do_not_stand_beside_another_task(layout: str, setting: str) -> None:
    for task, known in (("xnli", True), ("mine", False)):
        found = table([run({"hi": share(8)}, task=task, setting=setting, language="hi")], layout)
        assert (line(found, "SP").cells[0].published is not None) == known
        assert ("Published" in " ".join(found.caption)) == known


def test_the_papers_numbers_do_not_stand_beside_varied_settings() -> None:
    runs = [run({"ar": share(8)}, settings={"lr": lr}) for lr in (1.0, 2.0)]
    found = table([*runs, run({"ar": share(8)}, "ft")])
    assert [each.cells[0].published for each in found.blocks[0]] == [33.72, None, None]
    precise = table([run({"ar": share(8)}, dtype=dtype) for dtype in ("float32", "bfloat16")])
    assert [each.cells[0].published for each in precise.blocks[0]] == [38.88, 38.88]


def test_the_papers_average_is_not_set_beside_one_of_other_languages() -> None:
    cells = line(table([run({"ar": share(8), "sw": share(8)})]), "SP").cells
    assert [cell.published for cell in cells] == [38.88, 37.11, None]


def test_caption_names_the_backbone_unless_it_is_the_papers() -> None:
    whole = {"en": share(8, 5010)}
    assert "these runs have some/backbone, so" in " ".join(table([run(whole)]).caption)
    paper = table([run(whole, backbone="FacebookAI/xlm-roberta-base")])
    assert "these runs" not in " ".join(paper.caption)


@pytest.mark.parametrize(
    ("examples", "note", "other"), [(5010, "", False), (5010, "a remark", True), (5009, "", True), (2490, "", True)]
)
def test_caption_says_when_the_test_rows_are_not_the_papers(examples: int, note: str, other: bool) -> None:
    found = table([run({"en": share(8, examples)}, backbone="FacebookAI/xlm-roberta-base", note=note)])
    text = "these runs have test rows other than the paper's, so the two cannot be compared."
    assert (text in " ".join(found.caption)) == other


def test_test_rows_of_languages_and_tasks_that_the_paper_lacks_say_nothing() -> None:
    papers = {"backbone": "FacebookAI/xlm-roberta-base"}
    runs = [
        run({"en": share(8, 5010), "xx": share(8)}, **papers),
        run({"en": share(8)}, task="mine", note="a remark", **papers),
    ]
    assert "these runs" not in " ".join(table(runs).caption)


def test_caption_of_both_faults_is_one_sentence() -> None:
    text = " ".join(table([run({"en": share(8)})]).caption)
    assert "these runs have some/backbone and test rows other than the paper's, so the two cannot be compared." in text


def test_other_languages_follow_those_of_the_paper() -> None:
    rows = table_rows([run({"quy": share(8), "zh": share(8), "ar": share(8), "aa": share(1)})], "table1")
    assert table_languages(rows, "table1") == ("ar", "zh", "aa", "quy")


def test_a_missing_seed_is_shown() -> None:
    runs = [run({"en": share(8)}, method, seed) for method in ("sp", "ft") for seed in (1, 2, 3)]
    found = table(runs[:-1])
    assert found.seeds == 3
    assert found.seeds_of(line(found, "SP")) == "3"
    assert found.seeds_of(line(found, "FT")) == "2 of 3 seeds"
    # The line says it for all of its cells.
    assert found.partial(line(found, "FT").cells[0], line(found, "FT")) == ""


def test_a_seed_without_all_languages_does_not_count_in_the_average() -> None:
    runs = [
        run({"en": share(8), "sw": share(4)}, seed=1),
        run({"en": share(20)}, seed=2),
        run({"en": share(10), "sw": share(6)}, seed=3),
    ]
    found = table(runs)
    only = line(found, "SP")
    english, swahili, average = only.cells
    assert (english.mean, english.seeds) == (pytest.approx((40 + 100 + 50) / 3), 3)
    assert (swahili.mean, swahili.seeds) == (pytest.approx(25), 2)
    assert (average.mean, average.seeds) == (pytest.approx(35), 2)
    assert found.seeds_of(only) == "2 of 3 seeds"


def test_a_cell_that_has_fewer_seeds_than_its_line_says_so() -> None:
    runs = [run({"en": share(8)}, seed=1), run({"sw": share(8)}, seed=2), run({"sw": share(8)}, seed=3)]
    found = table(runs)
    only = line(found, "SP")
    assert only.seeds == 0
    assert only.cells[2].mean is None
    assert [found.partial(cell, only) for cell in only.cells] == ["1 of 3 seeds", "2 of 3 seeds", ""]


def americas(languages: tuple[str, ...] = AMERICAS) -> list[RunRecord]:
    runs = []
    for index, (method, cut) in enumerate((("sp", None), ("ltp", ticket(0.75)), ("ltp", ticket(0.2)))):
        for seed in (1, 2):
            shared = {"method": method, "seed": seed, "shots": 32, "task": "americasnli", "ticket": cut}
            runs.append(run({code: share(7 + index) for code in languages}, source="MultiNLI", **shared))
            runs.extend(
                run(
                    {code: share(8 + index + seed)},
                    source="AmericasNLI-dev",
                    setting="in-language",
                    language=code,
                    note="the rest of the development set",
                    **shared,
                )
                for code in languages
            )
    return runs


def test_table_2_has_zero_shot_and_in_language_rows() -> None:
    found = table(americas(), "table2")
    assert found.head == ("Method", "Source", "Size")
    assert found.headings() == (*AMERICAS, "AVG")
    block, _ = found.blocks
    methods = ("SP", "LTP 20 %", "LTP 75 %")
    assert [found.head_of(each) for each in block] == [
        (method, source, "32") for source in ("MultiNLI", "AmericasNLI-dev") for method in methods
    ]
    assert [each.cells[-1].published for each in block] == [35.55, None, 37.04, 38.36, 38.09, 40.16]
    # Over languages of a seed, then over seeds.
    assert block[3].cells[-1].mean == pytest.approx((45 + 50) / 2)
    assert block[3].cells[-1].deviation == pytest.approx(np.std([45, 50], ddof=1))
    # One block: the best of the whole table, LTP 20 % having been made the best.
    assert [each.cells[0].rank for each in block] == [0, 0, 0, 0, 1, 2]


def test_table_2_quotes_the_row_that_the_paper_quotes() -> None:
    found = table(americas(), "table2")
    (quoted,) = found.blocks[-1]
    assert found.head_of(quoted) == ("FT", "MultiNLI", "390000")
    assert [cell.published for cell in quoted.cells] == [
        36.13, 39.65, 37.91, 39.47, 37.20, 42.59, 37.79, 37.24, 40.45, 36.36, 38.48
    ]  # fmt: skip
    assert {(cell.mean, cell.seeds, cell.rank) for cell in quoted.cells} == {(None, 0, 0)}
    assert quoted.quoted
    assert found.seeds_of(quoted) == "published"
    assert "Lines marked published are the paper's alone, without runs here." in found.caption


def test_nothing_is_quoted_beside_other_languages_or_beside_runs_of_the_row() -> None:
    few = table(americas(AMERICAS[:-1]), "table2")
    more = table([*americas(), run({"xx": share(8)}, task="americasnli")], "table2")
    whole = {code: share(8) for code in AMERICAS}
    own = table([run(whole, "ft", shots=390_000, task="americasnli")], "table2")
    for found in (few, more, own, table(grid(examples=5, seeds=1))):
        assert not any(each.quoted for block in found.blocks for each in block)
        assert "marked published" not in " ".join(found.caption)
    assert [cell.published for cell in own.blocks[0][0].cells][-1] == 38.48


def test_caption_of_table_2_knows_the_papers_test_sets() -> None:
    sizes = {**dict.fromkeys(AMERICAS, 750), "nah": 738, "oto": 748}
    papers = {"backbone": "FacebookAI/xlm-roberta-base", "task": "americasnli"}
    for given, other in ((sizes, False), ({**sizes, "oto": 750}, True)):
        found = table([run({code: share(8, size) for code, size in given.items()}, **papers)], "table2")
        assert ("test rows other than the paper's" in " ".join(found.caption)) == other


def test_sizes_of_table_2_are_ranked_together() -> None:
    runs = [
        run({"aym": share(right)}, task="americasnli", shots=shots) for right, shots in ((6, 32), (9, 64), (7, 128))
    ]
    (block,) = table(runs, "table2").blocks
    assert [(each.shots, each.cells[0].rank) for each in block] == [(32, 0), (64, 1), (128, 2)]


def test_notes_become_footnotes() -> None:
    found = table(americas(), "table2")
    assert found.notes == ("the rest of the development set",)
    assert [each.notes for each in found.blocks[0]] == [()] * 3 + [(1,)] * 3
    assert {cell.notes for each in found.blocks[0] for cell in each.cells} == {()}


def test_a_note_of_one_language_stays_with_its_cell() -> None:
    runs = [
        run({code: share(8)}, language=code, setting="in-language", note=note)
        for code, note in (("hi", ""), ("sw", "shorter"), ("tr", "another"))
    ]
    found = table(runs, "table3")
    assert found.notes == ("another", "shorter")
    assert [cell.notes for cell in line(found, "SP").cells] == [(), (2,), (1,)]
    assert line(found, "SP").notes == ()


def test_table_3_has_the_trained_languages_and_no_average() -> None:
    runs = [
        run({code: share(8)}, method, language=code, setting="in-language", ticket=cut, shots=32)
        for code in ("tr", "hi")
        for method, cut in (("sp", None), ("ltp", ticket(0.2)))
    ]
    found = table(runs, "table3")
    assert found.headings() == ("HI", "TR")
    assert [each.label for each in found.blocks[0]] == ["SP", "LTP 20 %"]
    assert [cell.published for cell in line(found, "SP", 32).cells] == [41.42, 43.62]


def test_runs_go_where_they_belong() -> None:
    runs = [*americas(), run({"en": share(8)}), run({"hi": share(8)}, language="hi", setting="in-language")]
    assert [len(table_rows(runs, layout)) for layout in ("table1", "table2", "table3")] == [1, 6, 1]
    assert table_rows(runs[-1:], "table1") == ()
