"""The tickets that come with the embedded backbone."""

from __future__ import annotations

import pytest

from ltprompt import Backbone, Ticket
from ltprompt.backbone.loading import mini_folder
from ltprompt.errors import InputError


@pytest.mark.parametrize(("name", "ratio"), [("mini-20", 0.2), ("mini-75", 0.75)])
def test_ready_ticket_belongs_to_the_embedded_backbone(name: str, ratio: float) -> None:
    ticket = Ticket.load(name)
    ticket.check(Backbone.from_pretrained("mini").fingerprint)
    assert ticket.ratio == ratio
    assert ticket.active_ratio == pytest.approx(ratio, abs=1e-7)
    assert ticket.strategy == "decoupled"


@pytest.mark.parametrize("name", ["ticket-20", "ticket-75"])
def test_ready_ticket_is_small(name: str) -> None:
    assert (mini_folder() / f"{name}.safetensors").stat().st_size <= 5_000_000


def test_a_mistyped_ready_ticket_shows_which_there_are() -> None:
    with pytest.raises(InputError, match=r"^mini-30 does not exist; expected a ticket file, mini-20 or mini-75$"):
        Ticket.load("mini-30")
