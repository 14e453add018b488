"""How long real inputs are, in tokens: what the benchmarks know of real data."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ltprompt.files.artifacts import read_json

PATH = Path(__file__).with_name("lengths.json")
LINES = 4096
EXAMPLES = 500  # a language


class Lengths(BaseModel):
    """Tokens an input, special tokens included, cut at 256, as benchmarks/make_lengths.py counted them.

    lines: of 4,096 English Wikipedia lines. train, dev: of the 96 English examples each that 32 shots are. test: of the
    first 500 XNLI dev examples of each language. Examples are counted in the soft-prompt template.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lines: list[int]
    train: list[int]
    dev: list[int]
    test: dict[str, list[int]]


@cache
def lengths() -> Lengths:
    """Return the shipped lengths."""
    return Lengths.model_validate(read_json(PATH, "the lengths that benchmarks/make_lengths.py writes"))
