from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.errors import FileFormatError, InputError
from ltprompt.files.artifacts import write_tensors
from ltprompt.tickets.scores import Origin, Scores, check_criterion, read_origin

PARAMETERS = (
    EligibleParameter("word", (7, 3), 0, "word_embeddings"),
    EligibleParameter("1.weight", (3, 3), 1, "dense"),
    EligibleParameter("1.bias", (3,), 1, "dense"),
)


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {parameter.name: torch.rand(parameter.shape, generator=generator) for parameter in PARAMETERS}


def scores(strategy: str = "decoupled") -> Scores:
    return Scores(PARAMETERS, tensors(), strategy, "f" * 64)


def test_round_trip(tmp_path: Path) -> None:
    made = scores("tied")
    made.save(tmp_path / "en", {"steps": 10})
    for path in (tmp_path / "en", tmp_path / "en" / "scores.safetensors"):
        loaded = Scores.load(path)
        assert loaded.parameters == PARAMETERS
        assert loaded.strategy == "tied"
        assert loaded.fingerprint == "f" * 64
        assert loaded.sha256 == made.sha256
        for name, tensor in made.tensors.items():
            assert loaded.tensor(name).dtype == torch.float32
            assert torch.equal(loaded.tensor(name), tensor)
    record = json.loads((tmp_path / "en" / "scores.json").read_text())
    assert record == {"steps": 10, "scores_sha256": made.sha256}


@pytest.mark.parametrize(("criterion", "seed"), [("delta", None), ("random", 5), ("gradient", None)])
def test_the_criterion_goes_with_the_scores_and_their_tickets(tmp_path: Path, criterion: str, seed: int | None) -> None:
    made = Scores(PARAMETERS, tensors(), "tied", "f" * 64, criterion=criterion, seed=seed)
    made.save(tmp_path, {})
    loaded = Scores.load(tmp_path)
    assert (loaded.criterion, loaded.seed, loaded.sha256) == (criterion, seed, made.sha256)
    ticket = loaded.select(0.2)
    assert (ticket.criterion, ticket.seed) == (criterion, seed)


def test_scores_of_stage_one_keep_their_file_format(tmp_path: Path) -> None:
    scores("tied").save(tmp_path / "new", {})
    header = {"parameters": [p.to_json() for p in PARAMETERS], "strategy": "tied", "fingerprint": "f" * 64}
    write_tensors(tmp_path / "old.safetensors", "scores", tensors(), header)
    assert (tmp_path / "new" / "scores.safetensors").read_bytes() == (tmp_path / "old.safetensors").read_bytes()
    loaded = Scores.load(tmp_path / "old.safetensors")
    assert (loaded.criterion, loaded.seed) == ("delta", None)


def test_the_record_says_where_scores_come_from(tmp_path: Path) -> None:
    assert read_origin(tmp_path) == Origin()
    record = {"backbone": "mini", "revision": None, "settings": {"max_length": 64, "seed": 1}}
    scores().save(tmp_path, record)
    for path in (tmp_path, tmp_path / "scores.safetensors"):
        assert read_origin(path) == Origin("mini", None, 64)
    assert read_origin(tmp_path / "other.safetensors") == Origin()
    scores().save(tmp_path, record | {"backbone": "", "revision": "main", "settings": None})
    assert read_origin(tmp_path) == Origin(None, "main", None)
    for change in ({"backbone": 5}, {"revision": ["a"]}, {"settings": {"max_length": "64"}}):
        scores().save(tmp_path, record | change)
        with pytest.raises(FileFormatError, match=r"scores\.json was altered; copy it again or find the scores anew"):
            read_origin(tmp_path)


def test_what_a_criterion_takes_is_checked() -> None:
    nothing: dict[str, object] = dict.fromkeys(("seed", "backbone", "texts", "lines"))
    takes = {
        "delta": set(),
        "random": {"seed"},
        "magnitude": {"backbone"},
        "gradient": {"backbone", "texts", "lines"},
        "fisher": {"backbone", "texts", "lines"},
    }
    for criterion, taken in takes.items():
        for name in nothing:
            given = nothing | ({"texts": "t"} if "texts" in taken else {}) | {name: 0}
            if name in taken:
                check_criterion(criterion, **given)
            else:
                with pytest.raises(InputError, match=f"criterion '{criterion}' takes no {name}; leave `{name}` out"):
                    check_criterion(criterion, **given)
    with pytest.raises(InputError, match=r"criterion 'gradient' needs text .* give some as `texts`"):
        check_criterion("gradient", **nothing)


def test_equal_scores_give_equal_bytes(tmp_path: Path) -> None:
    scores().save(tmp_path / "a", {})
    scores().save(tmp_path / "b", {})
    for name in ("scores.safetensors", "scores.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("strategy", ["decoupled", "tied"])
def test_select_cuts_a_ticket(tmp_path: Path, strategy: str) -> None:
    made = scores(strategy)
    made.save(tmp_path, {})
    flat = torch.cat([made.tensor(parameter.name).flatten() for parameter in PARAMETERS])
    expected = set(flat.argsort(descending=True)[:7].tolist())  # floor(0.2 * 33 + 0.5)
    for source in (made, Scores.load(tmp_path)):
        ticket = source.select(0.2)
        mask = torch.cat([ticket.mask(parameter.name).flatten() for parameter in PARAMETERS])
        assert set(mask.nonzero().flatten().tolist()) == expected
        assert (ticket.strategy, ticket.tied) == (strategy, strategy == "tied")
        assert (ticket.ratio, ticket.scope, ticket.layers) == (0.2, "global", "all")
        assert (ticket.fingerprint, ticket.scores_sha256) == (made.fingerprint, made.sha256)
        assert ticket.zero_entries == 0


def test_select_within_layers_and_segments() -> None:
    ticket = scores().select(ratio=0.5, scope="layer", layers="all")
    assert ticket.count("word") == 11
    assert ticket.count("1.weight") + ticket.count("1.bias") == 6
    ticket = scores().select(ratio=0.5, layers="1")
    assert ticket.count("word") == 0
    assert ticket.size == 6
    assert (ticket.scope, ticket.layers) == ("global", "1")


def test_zero_scores_are_counted() -> None:
    made = {name: torch.zeros_like(tensor) for name, tensor in tensors().items()}
    made["1.bias"][1] = 1
    ticket = Scores(PARAMETERS, made, "decoupled", "f").select(ratio=4 / 33)
    assert ticket.indices("1.bias").tolist() == [1]
    assert ticket.indices("word").tolist() == [0, 1, 2]
    assert ticket.zero_entries == 3


def test_unusable_scores_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown strategy 'untied'; .*choose from decoupled, tied"):
        scores("untied")
    with pytest.raises(InputError, match=r"unknown criterion 'fishy'; did you mean 'fisher'\? choose from delta, ran"):
        Scores(PARAMETERS, tensors(), "tied", "f", criterion="fishy")
    with pytest.raises(InputError, match="criterion 'random' with seed None: random has a seed, and no other has"):
        Scores(PARAMETERS, tensors(), "tied", "f", criterion="random")
    with pytest.raises(InputError, match="criterion 'delta' with seed 0"):
        Scores(PARAMETERS, tensors(), "tied", "f", seed=0)
    with pytest.raises(InputError, match=r"differ in '1\.bias'"):
        Scores(PARAMETERS[:2], tensors(), "tied", "f")
    with pytest.raises(InputError, match="did you mean 'word'"):
        scores().tensor("words")


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scores\.safetensors does not exist; expected a scores file"):
        Scores.load(tmp_path)
    scores().select(0.5).save(tmp_path / "scores.safetensors")
    with pytest.raises(FileFormatError, match="is a ticket file; expected a scores file"):
        Scores.load(tmp_path)


def test_damaged_scores_are_refused(tmp_path: Path) -> None:
    scores().save(tmp_path, {})
    path = tmp_path / "scores.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(FileFormatError, match="damaged"):
        Scores.load(tmp_path)
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(FileFormatError, match="do not match the checksum"):
        Scores.load(tmp_path)


def test_a_record_of_other_scores_is_refused(tmp_path: Path) -> None:
    scores().save(tmp_path, {})
    (tmp_path / "scores.json").write_text('{"scores_sha256": "0"}')
    with pytest.raises(FileFormatError, match=r"scores\.json does not belong to .*find the scores anew"):
        Scores.load(tmp_path)
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(FileFormatError, match="not valid JSON"):
        Scores.load(tmp_path)
    (tmp_path / "scores.json").unlink()
    assert Scores.load(tmp_path).sha256 == scores().sha256


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        ({"word": torch.zeros(3, 7)}, {}, "has shape"),
        ({"word": torch.zeros(7, 3, dtype=torch.float16)}, {}, "has dtype"),
        ({"more": torch.zeros(1)}, {}, "its tensors are not those of its eligible set"),
        ({}, {"strategy": "other"}, "unknown strategy 'other'"),
        ({}, {"fingerprint": 1}, "no usable 'fingerprint'"),
        ({}, {"criterion": "union", "seed": None}, "unknown criterion 'union'"),
        ({}, {"criterion": "random", "seed": None}, "unknown criterion 'random' with seed None"),
        ({}, {"parameters": None}, "no usable eligible set"),
    ],
)
def test_scores_that_contradict_themselves_are_refused(
    tmp_path: Path, change: dict[str, Tensor], fields: dict[str, object], message: str
) -> None:
    header = {"parameters": [p.to_json() for p in PARAMETERS], "strategy": "tied", "fingerprint": "f"} | fields
    write_tensors(tmp_path / "scores.safetensors", "scores", tensors() | change, header)
    with pytest.raises(FileFormatError, match=message):
        Scores.load(tmp_path)
