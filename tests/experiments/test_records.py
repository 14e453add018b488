"""The identity of a run, and what a field that is added later does to it: nothing, until it is used."""

from __future__ import annotations

import pytest
from helpers.synthetic_runs import ticket
from helpers.toy_grid import toy_spec, toy_ticket

from ltprompt.experiments.records import RunSpec, TicketRecord, TicketSpec
from ltprompt.files.artifacts import canonical_json, sha256
from ltprompt.settings import later
from ltprompt.tasks import Task, load_task


class NewerTicket(TicketSpec):
    blocks: int | None = later(None)


class NewerSpec(RunSpec):
    ticket: NewerTicket | None
    template: str = later("")


class NewerTask(Task):
    hints: tuple[str, ...] = later(())


def test_names_and_places_are_no_part_of_the_identity() -> None:
    spec = toy_spec(3)
    named = spec.train.model_copy(update={"name": "elsewhere.tsv"})
    ticket = toy_ticket().model_copy(update={"name": "mine"})
    same = {"backbone": "moved", "revision": "v2", "train": named, "tests": {"sw": named}, "ticket": ticket}
    assert toy_spec(3, **same).id == spec.id
    assert spec.id == "17ddabe9f95f39d9d5ae3a39f17e05b3e1611d0fcc47e3126a3a63f4e5b8f6c1"


@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"shots": 1}, {"dtype": "bf16"}, {"settings": {"lr": 1.0}}, {"ticket": None}, {"source": "x"}],
)
def test_everything_else_is(change: dict[str, object]) -> None:
    assert toy_spec(3).model_copy(update=change).id != toy_spec(3).id


def test_a_field_added_later_keeps_the_identity_of_what_was_made_before() -> None:
    old = toy_spec(3)
    read = NewerSpec.model_validate(old.model_dump(mode="json"))
    assert read.template == ""
    assert read.id == old.id
    assert read.model_dump(mode="json") == old.model_dump(mode="json")
    used = read.model_copy(update={"template": "soft"})
    cut = read.model_copy(update={"ticket": NewerTicket(**toy_ticket().model_dump(), blocks=4)})
    assert len({old.id, used.id, cut.id}) == 3
    assert NewerSpec.model_validate(cut.model_dump(mode="json")) == cut


def test_so_does_one_of_a_task() -> None:
    def digest(task: Task) -> str:
        return sha256(canonical_json(task.model_dump(mode="json")))

    old = load_task("xnli")
    assert digest(NewerTask(**old.model_dump())) == digest(old)
    assert digest(NewerTask(**old.model_dump(), hints=("a",))) != digest(old)


def test_a_criterion_is_stored_as_select() -> None:
    spec = ticket(0.2, "fisher")
    stored = spec.model_dump(mode="json")
    assert stored["select"] == "fisher"
    assert "criterion" not in stored
    assert TicketSpec.model_validate(stored) == spec
    record = TicketRecord(spec=spec, fingerprint="f" * 64, distribution={})
    assert record.model_dump(mode="json")["spec"] == stored
    assert TicketRecord.model_validate_json(record.model_dump_json()) == record
