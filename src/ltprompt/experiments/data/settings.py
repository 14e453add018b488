"""Where the rows of an experiment come from: the ``data:`` section of a grid, checked as soon as it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError, model_validator

from ltprompt.errors import InputError, brief, choices, explain
from ltprompt.settings import Positive, Settings

LANGUAGE = "language"
HOLE = f"{{{LANGUAGE}}}"
_OF_HUB = ("revision", "split", "config", "label_names")
_OF_DRAW = ("draw_seed",)


class _Section(Settings):
    """A part of the ``data:`` section. It names its unknown keys itself, wherever it stands."""

    place: ClassVar[str]
    example: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, given: Any) -> Any:
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise ValueError(f"{cls.place} must be keys with values, such as {cls.example}, found {brief(given)}")
        for key in given:
            if key not in cls.model_fields:
                raise ValueError(f"{cls.place}: unknown key {str(key)!r}; {choices(str(key), cls.model_fields)}")
        return given


class _Source(_Section):
    """One source out of several kinds, with the keys that only a data set of the hub has.

    hub: name of a data set on the Hugging Face hub, or a folder laid out like one. official: path of a published
    release, as `official.read_official` reads it. revision: of the hub's data set. config: of the hub's data set.
    label_names: as a task's, names of the numbers 0, 1, ... where neither the hub's data set nor the task names them.
    Paths and `config` may hold ``{language}``; one without it is of the source language alone.
    """

    kinds: ClassVar[tuple[str, ...]]

    hub: str | None = None
    official: str | None = None
    revision: str | None = None
    config: str = HOLE
    label_names: tuple[str, ...] | None = None

    @property
    def kind(self) -> str:
        """The key that names the source, such as ``hub``."""
        return self._given()[0]

    @property
    def location(self) -> str:
        """Path or name of the source, as it was given."""
        return str(getattr(self, self.kind))

    @model_validator(mode="after")
    def _check_source(self) -> _Source:
        given = self._given()
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"{self.place} needs exactly one of {', '.join(self.kinds)}; found {found}")
        if self.kind != "hub":
            self._refuse(_OF_HUB, "hub")
        for text in (self.location, self.config):
            for name in re.findall(r"\{(.*?)\}", text):
                if name != LANGUAGE:
                    raise ValueError(f"{self.place}: {text!r} holds {{{name}}}; only {HOLE} can be filled in")
        return self

    def _given(self) -> list[str]:
        return [kind for kind in self.kinds if getattr(self, kind) is not None]

    def _refuse(self, keys: tuple[str, ...], kinds: str) -> None:
        for key in keys:
            if key in self.model_fields_set:
                raise ValueError(f"{self.place}: {key} goes with {kinds}, not with {self.kind}; remove it")


class TrainSource(_Source):
    """What is trained on: exactly one of `fewshot`, `table`, `hub` and `official`.

    fewshot: folder of drawn splits, ``{language}/train.K.jsonl`` and ``dev.K.jsonl``. table: labelled table to draw
    from. split: of the hub's data set. draw_seed: of the one draw that every run shares. dev_shots: dev examples a
    class, as many as shots where it is None; 0 trains without a dev set.
    """

    place: ClassVar[str] = "data.train"
    example: ClassVar[str] = "fewshot: FOLDER"
    kinds: ClassVar[tuple[str, ...]] = ("fewshot", "table", "hub", "official")

    fewshot: str | None = None
    table: str | None = None
    split: str = "train"
    draw_seed: Annotated[int, Field(ge=0)] = 0
    dev_shots: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _check_draw(self) -> TrainSource:
        if self.kind == "fewshot":
            self._refuse(_OF_DRAW, "table, hub or official")
        return self


class TestSource(_Source):
    """What is tested on: exactly one of `files`, `hub` and `official`.

    files: labelled tables, one a language. split: of the hub's data set.
    """

    __test__ = False  # its name is no test's
    place: ClassVar[str] = "data.test"
    example: ClassVar[str] = f"files: FOLDER/{HOLE}.tsv"
    kinds: ClassVar[tuple[str, ...]] = ("files", "hub", "official")

    files: str | None = None
    split: str = "test"


class DataSettings(_Section):
    """The ``data:`` section of a grid.

    train: what is trained on. test: what is tested on; without it, the rest of the table that was drawn from.
    examples: how many of each test table's first rows are kept; all where it is None. sample: how many are kept that
    are drawn instead, of each class its share, as `splits.sample` does by `sample_seed`. languages: those tested on,
    the task's own where it is None. source_language: what zero-shot runs train on, the task's default where it is None.
    source_name: what tables call the training data, such as MultiNLI; the last name in its location where it is None.
    """

    place: ClassVar[str] = "data"
    example: ClassVar[str] = "train: {fewshot: FOLDER}"

    train: TrainSource
    test: TestSource | None = None
    examples: Positive | None = None
    sample: Positive | None = None
    sample_seed: Annotated[int, Field(ge=0)] = 0
    languages: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    source_language: str | None = None
    source_name: str | None = None

    @model_validator(mode="after")
    def _check_kept(self) -> DataSettings:
        if self.examples is not None and self.sample is not None:
            raise ValueError(
                f"data: examples {self.examples} keeps a table's first rows and sample {self.sample} draws some; "
                "give one of them"
            )
        if "sample_seed" in self.model_fields_set and self.sample is None:
            raise ValueError("data: sample_seed goes with sample, such as sample: 100; add it or remove sample_seed")
        return self


def data_settings(given: Mapping[str, Any]) -> DataSettings:
    """Return the settings in plain data, such as the ``data:`` section of a YAML file.

    Raises `InputError` with the key's place, its value and what would be right.
    """
    try:
        return DataSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        # What a section finds itself names its place.
        place = "" if first["type"] == "value_error" else ".".join(map(str, (DataSettings.place, *first["loc"])))
        raise InputError(explain(first, place, missing=f"; give it, such as {DataSettings.example}")) from error


def fill(pattern: str, language: str) -> str:
    """Return a path or name with ``{language}`` filled in."""
    return pattern.replace(HOLE, language)
