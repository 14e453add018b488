from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
import torch
from helpers.toy_scores import full_sort, make_scores, parameters
from safetensors import safe_open
from torch import Tensor

from ltprompt.backbone.parameters import total
from ltprompt.errors import FileFormatError, InputError, LtpError, MismatchError
from ltprompt.files.artifacts import write_tensors
from ltprompt.tickets.selection import Scope, Scored, select
from ltprompt.tickets.ticket import READY, Ticket, intersection, union


def cut(scores: list[Scored], ratio: float = 0.3, scope: Scope = "global", layers: str = "all") -> Ticket:
    selection = select(scores, ratio=ratio, scope=scope, layers=layers)
    return Ticket(
        parameters=tuple(parameter for parameter, _ in scores),
        bitmaps=selection.bitmaps,
        tied=False,
        fingerprint="f" * 64,
        strategy="decoupled",
        ratio=ratio,
        scope=scope,
        layers=layers,
        zero_entries=selection.zero_entries,
        scores_sha256="a" * 64,
    )


@pytest.mark.parametrize("ratio", [0, 0.3, 1])
def test_ticket_tells_its_entries(ratio: float) -> None:
    scores = make_scores("distinct")
    ticket = cut(scores, ratio)
    expected = full_sort(scores, ratio, "global", {0, 1, 2, 3, 4, 5})
    assert ticket.size == len(expected)
    assert ticket.active_ratio == len(expected) / total(ticket.parameters)
    for parameter in ticket.parameters:
        indices = sorted(index for name, index in expected if name == parameter.name)
        assert ticket.count(parameter.name) == len(indices)
        found = ticket.indices(parameter.name)
        assert found.dtype == torch.int64
        assert found.tolist() == indices
        mask = ticket.mask(parameter.name)
        assert mask.dtype == torch.bool
        assert tuple(mask.shape) == parameter.shape
        assert mask.flatten().nonzero().flatten().tolist() == indices
        assert (parameter.name in ticket.bitmaps) == bool(indices)


def test_an_unknown_name_is_refused() -> None:
    for ask in (cut(make_scores("distinct")).count, cut(make_scores("distinct")).indices):
        with pytest.raises(InputError, match=r"did you mean '1\.query\.bias'\?"):
            ask("1.querry.bias")


def test_check_names_both_backbones() -> None:
    ticket = cut(make_scores("distinct"))
    ticket.check("f" * 64)
    with pytest.raises(MismatchError, match=r"backbone f{12}, this backbone is 0{12}; use "):
        ticket.check("0" * 64)


@pytest.mark.parametrize("ratio", [0, 0.2, 1])
@pytest.mark.parametrize("strategy", ["decoupled", "tied", "frozen-embeddings"])
@pytest.mark.parametrize(("criterion", "seed"), [("delta", None), ("random", 3), ("fisher", None), ("union", None)])
def test_round_trip(tmp_path: Path, ratio: float, strategy: str, criterion: str, seed: int | None) -> None:
    ticket = dataclasses.replace(
        cut(make_scores("mostly zero"), ratio, scope="layer"),
        strategy=strategy, tied=strategy == "tied", criterion=criterion, seed=seed,
    )  # fmt: skip
    ticket.save(tmp_path / "a.ticket")
    loaded = Ticket.load(tmp_path / "a.ticket")
    for field in dataclasses.fields(Ticket):
        if field.name != "bitmaps":
            assert getattr(loaded, field.name) == getattr(ticket, field.name), field.name
    assert loaded.bitmaps.keys() == ticket.bitmaps.keys()
    for name, bitmap in ticket.bitmaps.items():
        assert loaded.bitmaps[name].tobytes() == bitmap.tobytes()
    loaded.save(tmp_path / "elsewhere" / "b.ticket")
    assert (tmp_path / "a.ticket").read_bytes() == (tmp_path / "elsewhere" / "b.ticket").read_bytes()


def test_a_truncated_ticket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    cut(make_scores("distinct", layers=1)).save(path)
    whole = path.read_bytes()
    for length in [0, 4, 100, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match="is damaged"):
            Ticket.load(path)


def test_any_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    cut(make_scores("distinct", layers=1)).save(path)
    whole = path.read_bytes()
    flips = random.Random(1)
    for place in {*range(0, len(whole), 5), *range(len(whole) - 12, len(whole))}:
        altered = bytearray(whole)
        altered[place] ^= 1 << flips.randrange(8)
        path.write_bytes(altered)
        with pytest.raises(LtpError) as caught:
            Ticket.load(path)
        assert str(path) in str(caught.value)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores"
    write_tensors(path, "scores", {"word": torch.ones(2)}, {})
    with pytest.raises(FileFormatError, match="is a scores file; expected a ticket file"):
        Ticket.load(path)
    with pytest.raises(InputError, match="does not exist"):
        Ticket.load(tmp_path / "nothing")


def forge(path: Path, tensors: dict[str, Tensor] | None = None, **changes: object) -> None:
    """Write a ticket of one tensor with 11 entries, three of them chosen, with some fields changed."""
    fields: dict[str, object] = {
        "parameters": [{"name": "word", "shape": [11], "layer": 0, "kind": "word_embeddings"}],
        "counts": {"word": 3},
        "fingerprint": "f",
        "strategy": "tied",
        "ratio": 0.27,
        "scope": "global",
        "layers": "all",
        "zero_entries": 0,
        "scores_sha256": None,
    }
    bitmap = torch.tensor([0b10000001, 0b00000100], dtype=torch.uint8)
    write_tensors(path, "ticket", {"word": bitmap} if tensors is None else tensors, fields | changes)


def test_a_forged_ticket_that_is_sound_loads(tmp_path: Path) -> None:
    forge(tmp_path / "ticket")
    ticket = Ticket.load(tmp_path / "ticket")
    assert ticket.indices("word").tolist() == [0, 7, 10]
    assert ticket.tied
    assert ticket.scores_sha256 is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensors": {"word": torch.tensor([1, 24], dtype=torch.uint8)}}, "entries beyond its end"),
        ({"tensors": {"word": torch.tensor([1, 4], dtype=torch.uint8)}}, "has 2 entries, its header says 3"),
        ({"tensors": {"word": torch.tensor([7], dtype=torch.uint8)}}, "has shape"),
        ({"tensors": {"word": torch.tensor([1, 3], dtype=torch.int8)}}, "has dtype"),
        ({"tensors": {"other": torch.tensor([1, 3], dtype=torch.uint8)}}, "name different tensors"),
        ({"tensors": {}}, "name different tensors"),
        ({"counts": {"word": 3, "x": 1}}, "name different tensors"),
        ({"counts": [3]}, "no usable 'counts'"),
        ({"parameters": []}, "eligible set"),
        ({"parameters": [{"name": "word"}]}, "no usable eligible set"),
        ({"parameters": [{"name": "word", "shape": [-11], "layer": 0, "kind": "x"}]}, "negative size"),
        ({"parameters": [{"name": "word", "shape": "ab", "layer": 0, "kind": "x"}]}, "no usable eligible set"),
        ({"fingerprint": None}, "no usable 'fingerprint'"),
        ({"ratio": "0.2"}, "no usable 'ratio'"),
        ({"ratio": 1.5}, "outside \\[0, 1\\]"),
        ({"strategy": "other"}, "unknown strategy 'other'"),
        ({"scope": "other"}, "unknown scope"),
        ({"zero_entries": 4}, "4 zero-score entries among 3"),
        ({"scores_sha256": 5}, "no usable 'scores_sha256'"),
        ({"scope": "mixed"}, "unknown scope"),
        ({"scope": "mixed", "criterion": "fisher", "seed": None}, "unknown scope"),
        ({"criterion": "other", "seed": None}, "unknown criterion 'other' with seed None"),
        ({"criterion": "random", "seed": None}, "unknown criterion 'random' with seed None"),
        ({"criterion": "fisher", "seed": 1}, "unknown criterion 'fisher' with seed 1"),
        ({"criterion": 1, "seed": None}, "no usable 'criterion'"),
        ({"criterion": "random", "seed": "1"}, "no usable 'seed'"),
    ],
)
def test_a_ticket_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    forge(tmp_path / "ticket", **changes)  # type: ignore[arg-type]
    with pytest.raises(FileFormatError, match=message):
        Ticket.load(tmp_path / "ticket")


def test_nothing_but_one_metadata_key_and_bitmaps_is_stored(tmp_path: Path) -> None:
    cut(make_scores("distinct"), 0.05).save(tmp_path / "ticket")
    with safe_open(tmp_path / "ticket", framework="pt") as file:
        assert list(file.metadata()) == ["ltprompt"]
        assert str(tmp_path) not in file.metadata()["ltprompt"]


# Criteria and combinations.


def test_a_ticket_without_a_criterion_is_one_of_the_movement_and_keeps_its_bytes(tmp_path: Path) -> None:
    for name, path in READY.items():
        ticket = Ticket.load(name)
        assert (ticket.criterion, ticket.seed) == ("delta", None)
        ticket.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == path.read_bytes()


def entries(ticket: Ticket) -> set[tuple[str, int]]:
    return {(p.name, index) for p in ticket.parameters for index in ticket.indices(p.name).tolist()}


@pytest.mark.parametrize(
    "cuts",
    [
        [("distinct", 0.3, "all"), ("wide", 0.3, "all")],
        [("distinct", 0.3, "all"), ("wide", 0.6, "all"), ("heavy ties", 0.5, "all")],
        [("distinct", 0.5, "lower"), ("distinct", 0.5, "higher")],
        [("distinct", 0.0, "all"), ("distinct", 0.4, "all")],
        [("distinct", 0.2, "all"), ("distinct", 0.2, "all")],
        [("distinct", 1.0, "all"), ("wide", 0.1, "all")],
    ],
)
def test_combinations_are_those_of_sets(cuts: list[tuple[str, float, str]], tmp_path: Path) -> None:
    tickets = [cut(make_scores(kind), ratio, layers=layers) for kind, ratio, layers in cuts]
    sets = [entries(ticket) for ticket in tickets]
    for combine, expected in ((union, set.union(*sets)), (intersection, set.intersection(*sets))):
        found = combine(tickets)
        assert entries(found) == expected
        assert found.size == len(expected)
        assert found.ratio == found.active_ratio == len(expected) / total(parameters(5))
        assert (found.criterion, found.seed, found.zero_entries) == (combine.__name__, None, 0)
        assert (found.fingerprint, found.strategy, found.tied) == ("f" * 64, "decoupled", False)
        assert found.bitmaps.keys() == {name for name, _ in expected}
        assert entries(combine(tickets[::-1])) == expected
        found.save(tmp_path / "a")
        combine(tickets[::-1]).save(tmp_path / "b")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
        loaded = Ticket.load(tmp_path / "a")
        assert (entries(loaded), loaded.ratio, loaded.criterion) == (expected, found.ratio, combine.__name__)
    assert [entries(ticket) for ticket in tickets] == sets


def test_a_combination_says_how_its_tickets_were_cut(tmp_path: Path) -> None:
    scores = make_scores("distinct")
    first, second = cut(scores, 0.2, "layer", "2-4"), cut(scores, 0.4, "layer", "2-4")
    found = union([first, second])
    assert (found.scope, found.layers, found.scores_sha256) == ("layer", "2-4", "a" * 64)
    other = dataclasses.replace(cut(scores, 0.4), scores_sha256="b" * 64)
    found = union([first, other])
    assert (found.scope, found.layers, found.scores_sha256) == ("mixed", "mixed", None)
    found.save(tmp_path / "ticket")
    assert Ticket.load(tmp_path / "ticket").scope == "mixed"
    tied = [dataclasses.replace(ticket, strategy="tied", tied=True) for ticket in (first, second)]
    assert intersection(tied).tied


def test_tickets_that_cannot_be_combined_are_refused() -> None:
    ticket = cut(make_scores("distinct"))
    larger = cut(make_scores("distinct", layers=6))
    cases = {
        r"different backbones, f{12} and 0{12}; combine": dataclasses.replace(ticket, fingerprint="0" * 64),
        "different strategies, decoupled and tied; combine": dataclasses.replace(ticket, strategy="tied", tied=True),
        r"eligible sets, of 298 and 348 entries \(see 6\.dense\.weight\)": larger,
    }
    for message, other in cases.items():
        for combine in (union, intersection):
            with pytest.raises(MismatchError, match=message):
                combine([ticket, ticket, other])
    for few, count in (([], 0), ([ticket], 1)):
        with pytest.raises(InputError, match=rf"{count} ticket\(s\) have no union; give two or more"):
            union(few)
