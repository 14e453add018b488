from __future__ import annotations

import dataclasses
import math
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from ltprompt import ticket as ticket_module
from ltprompt.eligible import EligibleParameter, total
from ltprompt.errors import FileFormatError, InputError, LtpError, MismatchError
from ltprompt.files import write_tensors
from ltprompt.ticket import READY, Scope, Selection, Ticket, intersection, segment, select, union

RATIOS = [0, *(round(0.05 * step, 2) for step in range(1, 20)), 1]
Scored = tuple[EligibleParameter, Tensor]


def parameters(layers: int, embeddings: bool = True) -> tuple[EligibleParameter, ...]:
    """A small eligible set with shapes that do not fill whole bytes."""
    made = []
    if embeddings:
        made.append(EligibleParameter("word", (11, 3), 0, "word_embeddings"))
        made.append(EligibleParameter("position", (5, 3), 0, "position_embeddings"))
    for layer in range(1, layers + 1):
        made.append(EligibleParameter(f"{layer}.query.weight", (3, 5), layer, "attention.self.query"))
        made.append(EligibleParameter(f"{layer}.query.bias", (3,), layer, "attention.self.query"))
        made.append(EligibleParameter(f"{layer}.dense.weight", (4, 8), layer, "dense"))
    return tuple(made)


def make_scores(kind: str, layers: int = 5, embeddings: bool = True) -> list[Scored]:
    generator = torch.Generator().manual_seed(layers)

    def values(shape: tuple[int, ...]) -> Tensor:
        uniform = torch.rand(shape, generator=generator)
        made = {
            "distinct": uniform,
            "wide": 10.0 ** (uniform * 70 - 38),
            "heavy ties": (uniform * 3).round(),
            "same upper bits": 1 + (uniform * 9).round() * 2.0**-23,
            "all equal": torch.full(shape, 0.25),
            "all zero": torch.zeros(shape),
            "minus zero": torch.where(uniform < 0.5, torch.tensor(-0.0), torch.tensor(0.0)),
            "denormals": (uniform * 5).round() * 2.0**-149,
            "mostly zero": torch.where(uniform < 0.7, torch.tensor(0.0), uniform),
        }
        return made[kind]

    return [(parameter, values(parameter.shape)) for parameter in parameters(layers, embeddings)]


KINDS = [
    "distinct",
    "wide",
    "heavy ties",
    "same upper bits",
    "all equal",
    "all zero",
    "minus zero",
    "denormals",
    "mostly zero",
]


def full_sort(scores: list[Scored], ratio: float, scope: str, layers: set[int]) -> set[tuple[str, int]]:
    """The rule written plainly: a stable sort of every entry, one group at a time."""
    groups = [sorted(layers)] if scope == "global" else [[layer] for layer in sorted(layers)]
    chosen: set[tuple[str, int]] = set()
    for group in groups:
        entries = [
            (-value, order, index, parameter.name)
            for order, (parameter, tensor) in enumerate(scores)
            if parameter.layer in group
            for index, value in enumerate(tensor.flatten().tolist())
        ]
        size = math.floor(ratio * len(entries) + 0.5)
        chosen |= {(name, index) for _, _, index, name in sorted(entries)[:size]}
    return chosen


def chosen_entries(selection: Selection, scores: list[Scored]) -> set[tuple[str, int]]:
    """The entries of packed bitmaps, read bit by bit."""
    names = {parameter.name: parameter.numel for parameter, _ in scores}
    return {
        (name, index)
        for name, bitmap in selection.bitmaps.items()
        for index in range(names[name])
        if int(bitmap[index // 8]) >> (index % 8) & 1
    }


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


SEGMENTS = {
    "all": {0, 1, 2, 3, 4, 5},
    "lower": {1},
    "middle": {2, 3, 4},
    "higher": {5},
    "2-4": {2, 3, 4},
    "0,2,4-5": {0, 2, 4, 5},
    "5": {5},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_selection_is_that_of_a_full_sort(kind: str, scope: Scope) -> None:
    scores = make_scores(kind)
    for layers, chosen in SEGMENTS.items():
        for ratio in RATIOS:
            selection = select(scores, ratio=ratio, scope=scope, layers=layers)
            expected = full_sort(scores, ratio, scope, chosen)
            assert chosen_entries(selection, scores) == expected, (layers, ratio)
            flat = {parameter.name: tensor.flatten() for parameter, tensor in scores}
            assert selection.zero_entries == sum(flat[name][index].item() == 0 for name, index in expected)


@pytest.mark.parametrize("chunk", [8, 16])
@pytest.mark.parametrize("kind", ["heavy ties", "all equal", "distinct"])
def test_chunks_do_not_change_the_selection(kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticket_module, "_CHUNK", chunk)
    scores = make_scores(kind)
    for ratio in RATIOS:
        expected = full_sort(scores, ratio, "global", SEGMENTS["all"])
        assert chosen_entries(select(scores, ratio=ratio), scores) == expected


@given(
    values=st.lists(st.floats(0, width=32, allow_infinity=False), min_size=1, max_size=60),
    ratio=st.floats(0, 1),
    split=st.integers(0, 60),
)
def test_selection_of_any_floats_is_that_of_a_full_sort(values: list[float], ratio: float, split: int) -> None:
    parts = [part for part in (values[:split], values[split:]) if part]
    scores = [
        (EligibleParameter(f"t{layer}", (len(part),), layer, "dense"), torch.tensor(part))
        for layer, part in enumerate(parts)
    ]
    selection = select(scores, ratio=ratio)
    assert chosen_entries(selection, scores) == full_sort(scores, ratio, "global", {0, 1})


def test_selection_does_not_depend_on_memory_layout() -> None:
    scores = make_scores("distinct")
    strided = [
        (parameter, tensor.t().contiguous().t() if tensor.dim() == 2 else tensor) for parameter, tensor in scores
    ]
    expected = full_sort(scores, 0.4, "global", SEGMENTS["all"])
    assert chosen_entries(select(strided, ratio=0.4), scores) == expected


def test_selection_needs_little_memory() -> None:
    size = 2**23
    parameter = EligibleParameter("big", (size,), 0, "word_embeddings")
    tensor = (torch.arange(size) * 7919 % size).float()
    tracemalloc.start()
    selection = select([(parameter, tensor)], ratio=0.25)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert int(np.unpackbits(selection.bitmaps["big"]).sum()) == size // 4
    assert peak < tensor.nbytes  # far from the 8 bytes an entry of a sort's indices


@pytest.mark.parametrize(
    ("last", "lower", "middle", "higher"),
    [
        (12, [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]),
        (13, [1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13]),
        (14, [1, 2, 3, 4], [5, 6, 7, 8, 9, 10], [11, 12, 13, 14]),
        (5, [1], [2, 3, 4], [5]),
        (3, [1], [2], [3]),
    ],
)
def test_thirds(last: int, lower: list[int], middle: list[int], higher: list[int]) -> None:
    for embeddings in (True, False):
        eligible = parameters(last, embeddings)
        assert segment(eligible, "lower") == lower
        assert segment(eligible, "middle") == middle
        assert segment(eligible, "higher") == higher
        assert segment(eligible, "all") == [0] * embeddings + lower + middle + higher


@pytest.mark.parametrize("last", [1, 2])
def test_fewer_than_three_layers_are_all_in_the_middle(last: int) -> None:
    assert segment(parameters(last), "middle") == list(range(1, last + 1))
    for name in ("lower", "higher"):
        with pytest.raises(InputError, match=f"'{name}' names no layer; the eligible layers are 0"):
            segment(parameters(last), name)


def test_lists_of_layers() -> None:
    eligible = parameters(12)
    assert segment(eligible, "5-8") == [5, 6, 7, 8]
    assert segment(eligible, "8, 1,3,3-4") == [1, 3, 4, 8]
    assert segment(eligible, "0") == [0]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("", "'' is not a segment"),
        ("upper", "'upper' is not a segment"),
        ("1,,2", "not a segment"),
        ("-1", "not a segment"),
        ("1-2-3", "not a segment"),
        ("6", "there is no layer 6; the eligible layers are 0 (the embeddings) and 1 to 5"),
        ("4-999999", "there is no layer 6"),
        ("4-2", "'4-2' names no layer"),
    ],
)
def test_bad_segments_are_refused(layers: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        select(make_scores("distinct"), ratio=0.5, layers=layers)
    assert message in str(caught.value)
    assert "1 to 5" in str(caught.value)


def test_embeddings_that_are_not_eligible_cannot_be_named() -> None:
    with pytest.raises(InputError, match=r"there is no layer 0; the eligible layers are 1 to 5"):
        select(make_scores("distinct", embeddings=False), ratio=0.5, layers="0")


@pytest.mark.parametrize("ratio", [-0.01, 1.01, math.nan, math.inf, -math.inf])
def test_bad_ratios_are_refused(ratio: float) -> None:
    with pytest.raises(InputError, match=r"give a number from 0 to 1"):
        select(make_scores("distinct"), ratio=ratio)


def test_a_bad_scope_is_refused() -> None:
    with pytest.raises(InputError, match=r"did you mean 'layer'\?"):
        select(make_scores("distinct"), ratio=0.5, scope="layers")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf, -1.0, -(2.0**-149)])
@pytest.mark.parametrize("ratio", [0, 0.5])
def test_bad_scores_are_refused_by_name(bad: float, ratio: float) -> None:
    scores = make_scores("distinct")
    scores[4][1][0] = bad
    with pytest.raises(InputError, match=r"the scores of 1\.dense\.weight hold a negative, infinite or NaN value"):
        select(scores, ratio=ratio)


def test_scores_of_another_type_or_shape_are_refused_by_name() -> None:
    for wrong in (torch.zeros(5, 3, dtype=torch.float64), torch.zeros(3, 5)):
        scores = make_scores("distinct")
        scores[1] = (scores[1][0], wrong)
        with pytest.raises(InputError, match="the scores of position are"):
            select(scores, ratio=0.5)


@pytest.mark.parametrize("ratio", [0, 0.3, 1])
def test_ticket_tells_its_entries(ratio: float) -> None:
    scores = make_scores("distinct")
    ticket = cut(scores, ratio)
    expected = full_sort(scores, ratio, "global", SEGMENTS["all"])
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
        ({"strategy": "other"}, "unknown strategy"),
        ({"scope": "other"}, "unknown strategy or scope"),
        ({"zero_entries": 4}, "4 zero-score entries among 3"),
        ({"scores_sha256": 5}, "no usable 'scores_sha256'"),
        ({"scope": "mixed"}, "unknown strategy or scope"),
        ({"scope": "mixed", "criterion": "fisher", "seed": None}, "unknown strategy or scope"),
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


def test_the_layers_of_a_cut_are_known_before_it() -> None:
    made = parameters(5)
    assert ticket_module.eligible_layers(made, ratio=0.2, layers="higher") == [5]
    with pytest.raises(InputError, match="the ratio 2 is not a share"):
        ticket_module.eligible_layers(made, ratio=2)
    with pytest.raises(InputError, match="unknown scope 'locale'"):
        ticket_module.eligible_layers(made, ratio=0.2, scope="locale")
    with pytest.raises(InputError, match="there is no layer 9"):
        ticket_module.eligible_layers(made, ratio=0.2, layers="9")


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
