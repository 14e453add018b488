"""Grids as data: what multiplies, what is refused, and the shipped ones."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ltprompt.errors import InputError
from ltprompt.experiments.grid.schema import Wish, expand, grid_names, grid_text, parse_grid, wished_tickets

PLAIN: dict[str, Any] = {
    "name": "small",
    "layouts": "table1",
    "backbone": "mini",
    "data": {"train": {"fewshot": "splits"}, "test": {"files": "{language}.tsv"}, "languages": ["en", "sw"]},
    "scores": {"text": "en.txt", "steps": 5},
    "shots": [1, 4],
    "seeds": [1, 2, 3],
    "methods": ["sp", {"method": "ltp", "ratio": [0.2, 0.75]}],
}


def parsed(**changes: Any) -> list[Wish]:
    return expand(parse_grid(yaml.safe_dump({**PLAIN, **changes}), "grid.yaml"))


def refusal(**changes: Any) -> str:
    data = {key: value for key, value in {**PLAIN, **changes}.items() if value is not None}
    with pytest.raises(InputError) as found:
        parse_grid(yaml.safe_dump(data), "grid.yaml")
    assert "\n" not in str(found.value)
    return str(found.value)


def test_lists_multiply() -> None:
    wishes = parsed()
    assert len(wishes) == 2 * 3 * 3
    assert {(wish.shots, wish.seed, wish.method, wish.ticket.ratio if wish.ticket else None) for wish in wishes} == {
        (shots, seed, method, ratio)
        for shots in (1, 4)
        for seed in (1, 2, 3)
        for method, ratio in (("sp", None), ("ltp", 0.2), ("ltp", 0.75))
    }


def test_whole_seeds_come_one_after_the_other() -> None:
    seeds = [wish.seed for wish in parsed()]
    assert seeds == sorted(seeds)


def test_parameters_of_a_method_multiply_and_win_over_those_of_all() -> None:
    wishes = parsed(
        seeds=1,
        shots=1,
        lr=[1e-4, 2e-4],
        methods=["sp", {"method": ["ltp"], "ratio": 0.2, "lr": 3e-4, "epochs": [2, 3]}],
    )
    found = [(wish.method, wish.settings.lr, wish.settings.epochs) for wish in wishes]
    assert found == [("sp", 1e-4, None), ("sp", 2e-4, None), ("ltp", 3e-4, 2), ("ltp", 3e-4, 3)]


def test_axes_multiply_into_methods_called_by_their_names() -> None:
    wishes = parsed(
        methods={"template": ["soft", "discrete", "mixed"], "trains": ["everything", "lora"]}, seeds=1, shots=1
    )
    assert [wish.method for wish in wishes] == ["sp", "lora", "dp", "discrete+lora", "mp", "mixed+lora"]
    (ticket,) = parsed(methods={"template": "discrete", "ratio": 0.2}, seeds=1, shots=1)
    assert ticket.method == "discrete+ticket"
    assert ticket.ticket is not None
    assert parsed(methods="soft+everything") == parsed(methods="sp")


def test_a_random_ticket_is_drawn_by_the_run_s_seed_unless_one_is_named() -> None:
    methods = [{"method": "ltp", "ratio": 0.2, "select": ["delta", "random"]}]
    found = [
        (wish.seed, wish.ticket.criterion, wish.ticket.seed) for wish in parsed(shots=1, methods=methods) if wish.ticket
    ]
    assert found == [
        (s, select, s if select == "random" else None) for s in (1, 2, 3) for select in ("delta", "random")
    ]
    fixed = parsed(shots=1, methods=[{"method": "ltp", "ratio": 0.2, "select": "random", "ticket_seed": 9}])
    assert {wish.ticket.seed for wish in fixed if wish.ticket} == {9}


def test_parts_add_up_and_equal_runs_are_one() -> None:
    parts = [{"shots": 1}, {"shots": [1, 4], "setting": "zero-shot"}, {"shots": 1, "setting": "in-language"}]
    wishes = parsed(parts=parts, methods="sp", seeds=1)
    assert [(wish.shots, wish.setting) for wish in wishes] == [(1, "zero-shot"), (4, "zero-shot"), (1, "in-language")]


def test_tickets_without_runs() -> None:
    grid = parse_grid(
        yaml.safe_dump(
            {
                "name": "f3",
                "backbone": "mini",
                "scores": {"text": "en.txt"},
                "tickets": [{"ratio": 0.2, "strategy": ["tied", "decoupled"]}],
            }
        ),
        "grid.yaml",
    )
    assert expand(grid) == []
    assert [ticket.strategy for ticket in wished_tickets(grid)] == ["tied", "decoupled"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shot": 3}, "grid.yaml: shot: unknown key; did you mean 'shots'?"),
        ({"methods": [{"method": "ltp", "ration": 0.2}]}, "methods.0.ration: unknown key; did you mean 'ratio'?"),
        ({"scores": {"texts": "en.txt"}}, "scores.texts: unknown key; did you mean 'text'?"),
        ({"data": {"tran": {}}}, "data: unknown key 'tran'; did you mean 'train'?"),
        ({"methods": "ltpp"}, "unknown method 'ltpp': did you mean 'ltp'?"),
        ({"methods": "ltp"}, "ltp needs a ratio, such as ratio: 0.2, or a ready ticket's file"),
        ({"methods": {"method": "ltp", "ratio": 0.2, "ticket": "mini-20"}}, "ltp needs a ratio"),
        ({"methods": {"method": "ltp", "ticket": "mini-20", "select": "random"}}, "a ready ticket is cut already"),
        (
            {"methods": {"method": ["ltp", "sp"], "ratio": 0.2}},
            "only a method that trains a ticket takes one, not ltp, sp",
        ),
        ({"methods": {"method": "sp", "template": "mixed"}}, "method 'sp' has template 'soft', not 'mixed'"),
        ({"methods": {"template": ["soft", "discrete"], "trains": "nothing"}}, "nothing to train"),
        ({"methods": {"template": "discreet"}}, "did you mean 'discrete'?"),
        ({"methods": {"lr": 1e-3}}, "method is missing; give its name, or template and trains"),
        ({"methods": {"method": "ltp", "ratio": 0.2, "criterion": "fisher"}}, "unknown key"),
        ({"methods": {"method": "ltp", "ratio": 0.2, "selekt": "fisher"}}, "did you mean 'select'?"),
        ({"methods": {"method": "ltp", "ratio": 0.2, "select": "fischer"}}, "did you mean 'fisher'?"),
        (
            {"methods": {"method": "ltp", "ratio": 1.2}},
            "ratio.0 cannot be 1.2: input should be less than or equal to 1",
        ),
        ({"layouts": "tabel1"}, "did you mean 'table1'?"),
        ({"setting": "zeroshot"}, "setting.0 cannot be 'zeroshot': input should be 'zero-shot' or 'in-language'"),
        ({"shots": 0}, "shots.0 cannot be 0: input should be greater than or equal to 1"),
        ({"shots": True}, "shots.0 cannot be True: input should be a valid integer"),
        ({"seeds": None}, "seeds is missing; methods need data, shots and seeds"),
        ({"scores": None}, "scores is missing; tickets are cut from scores"),
        ({"methods": None}, "nothing to run: give methods, or tickets"),
        ({"scores": {"text": "en.txt", "strategy": "tied"}}, "strategy stands with the methods or tickets"),
        ({"scores": {"steps": 3}}, "give the text to find scores on"),
        ({"name": None}, "name is missing"),
        ({"parts": "all"}, "parts must be a list of keys with values"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    found = refusal(**changes)
    assert found.startswith("grid.yaml")
    assert message in found


def test_all_problems_are_listed_at_once() -> None:
    data = {"train": {"fewshots": "splits"}}
    found = refusal(shots=0, methods=["ltpp", {"method": "ltp", "ratio": 3}], layouts="tabel1", data=data)
    assert "has 5 problems" in found
    for text in ("'ltpp'", "'tabel1'", "ratio", "shots", "data.train: unknown key 'fewshots'; did you mean 'fewshot'?"):
        assert text in found


@pytest.mark.parametrize("text", ["a: [", "- a", "3"])
def test_a_file_that_is_no_grid_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^grid.yaml"):
        parse_grid(text, "grid.yaml")


def test_a_part_s_number_is_named_where_there_are_parts() -> None:
    assert "parts.1.shots.0 cannot be 0" in refusal(parts=[{}, {"shots": 0}])


def test_an_unknown_grid_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown grid 'tabel1'; did you mean 'table1'\?"):
        grid_text("tabel1")


# Methods times shots times seeds, as the paper has them.
RUNS = {
    "table1": 6 * 6 * 5,
    "table2": (2 * 2 + 3) * 5,
    "table3": 2 * 6 * 5,
    "figure2a": 6 * 6 * 5,
    "figure2b": 9 * 6 * 5,
    "figure3": 0,
    "mini-table1": 7 * 4 * 3,
    "mini-table2": 2 * 2 * 3,
    "mini-table3": 2 * 3 * 2,
    "mini-figure2a": 6 * 2,
    "mini-figure2b": 5 * 2,
    "mini-figure3": 0,
}


def test_every_shipped_grid_is_known_here() -> None:
    assert sorted(RUNS) == grid_names()


@pytest.mark.parametrize("name", RUNS)
def test_shipped_grids_ask_for_the_runs_they_should(name: str) -> None:
    text, folder = grid_text(name)
    assert folder is None
    grid = parse_grid(text, name)
    assert grid.name == name
    assert len(expand(grid)) == RUNS[name]


def test_the_paper_s_grids_leave_every_setting_to_the_methods() -> None:
    for name in ("table1", "table2", "table3", "figure2a", "figure2b"):
        for wish in expand(parse_grid(grid_text(name)[0], name)):
            given = wish.settings.model_dump(exclude={"seed"}, exclude_defaults=True)
            assert given == {}, name
            assert wish.backbone == "FacebookAI/xlm-roberta-base"
            if wish.ticket is not None and wish.ticket.scores is not None:
                assert wish.ticket.scores.model_dump(exclude_defaults=True) == {"text": ("wiki/en.txt",)}
