"""One translator of pydantic's findings, for settings, tasks, grids, their data and their records."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from ltprompt.errors import brief, explain


class Inner(BaseModel):
    rate: int = 1
    name: str = ""
    parts: tuple[str, ...] = ()
    flag: bool = False
    kind: Literal["tied", "decoupled"] = "tied"

    @field_validator("rate")
    @classmethod
    def _not_seven(cls, value: int) -> int:
        if value == 7:
            raise ValueError("seven is taken; choose another")
        return value


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inner: Inner


def said(given: Any, **named: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(given)
    return explain(caught.value.errors()[0], **named)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rate": "x"}, "inner.rate cannot be 'x': input should be a valid integer, unable to parse"),
        ({"rate": 7}, "inner.rate: seven is taken; choose another"),
        ({"name": 3}, "inner.name: expected text in quotes, found 3"),
        ({"name": False}, "inner.name: expected text, found False; YAML reads yes, no, on, off so: write it in quotes"),
        ({"parts": True}, "inner.parts: expected a list such as [a, b], found True"),
        ({"flag": "perhaps"}, "inner.flag: expected true or false, found 'perhaps'"),
        ({"kind": "tide"}, "inner.kind cannot be 'tide': input should be 'tied' or 'decoupled'; did you mean 'tied'?"),
        ({"kind": 3}, "inner.kind cannot be 3: input should be 'tied' or 'decoupled'"),
        (3, "inner: expected keys with values, such as {a: b}, found 3"),
    ],
)
def test_a_finding_names_field_value_and_what_would_be_right(given: Any, expected: str) -> None:
    found = said({"inner": given})
    assert found.startswith(expected)
    assert found == expected or given == {"rate": "x"}


def test_a_missing_field_and_an_unknown_one() -> None:
    assert said({}) == "inner is missing; add it"
    assert said({}, missing="; give one") == "inner is missing; give one"
    surplus = {"inner": {}, "iner": 1}
    assert said(surplus, known=Outer.model_fields) == "iner: unknown key; did you mean 'inner'? choose from inner"
    assert said(surplus) == "iner: unknown key"


def test_the_caller_says_what_the_field_is_called() -> None:
    assert said({"inner": {"rate": 7}}, place="") == "seven is taken; choose another"
    assert said({"inner": {"name": 3}}, place="data.0").startswith("data.0: expected text")


def test_a_long_value_is_cut() -> None:
    found = said({"inner": {"name": list(range(10_000))}})
    assert found.endswith("...")
    assert len(found) < 120
    assert brief("a" * 58) == repr("a" * 58)
    assert len(brief("a" * 59)) == 60
    assert "\n" not in brief("a\nb")
