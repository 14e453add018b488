"""What a run and a ticket are stored as."""

from __future__ import annotations

from helpers.synthetic_runs import ticket

from ltprompt.experiments.records import TicketRecord, TicketSpec


def test_a_criterion_is_stored_as_select() -> None:
    spec = ticket(0.2, "fisher")
    stored = spec.model_dump(mode="json")
    assert stored["select"] == "fisher"
    assert "criterion" not in stored
    assert TicketSpec.model_validate(stored) == spec
    record = TicketRecord(spec=spec, fingerprint="f" * 64, distribution={})
    assert record.model_dump(mode="json")["spec"] == stored
    assert TicketRecord.model_validate_json(record.model_dump_json()) == record
