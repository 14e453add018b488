"""Settings: the paper's values as defaults, and errors that name the setting, its value and the range."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from ltprompt.errors import InputError
from ltprompt.settings import ScoresSettings, Settings, TrainSettings, later


def test_defaults_of_stage_one_are_the_papers() -> None:
    assert ScoresSettings.of().model_dump() == {
        "strategy": "decoupled",
        "epochs": 3,
        "steps": None,
        "batch_size": 32,
        "lr": 5e-5,
        "l1": 0.1,
        "clip": 1.0,
        "max_length": 256,
        "held_out": 0.1,
        "evaluate_every": 1000,
        "keep": "final",
        "seed": 0,
    }


def test_defaults_of_stage_two_leave_the_recipe_to_the_method() -> None:
    settings = TrainSettings.of()
    assert (settings.epochs, settings.batch_size, settings.lr, settings.prompt_lr, settings.schedule) == (None,) * 5
    assert (settings.prompt_length, settings.max_length, settings.language, settings.seed) == (4, 256, None, 0)
    assert settings.keep_prompt_encoder is False


def test_what_is_none_is_left_out() -> None:
    assert ScoresSettings.of(lr=None, epochs=None, steps=7, keep="best") == ScoresSettings(steps=7, keep="best")
    assert TrainSettings.of(epochs=None, lr=1e-3) == TrainSettings(lr=1e-3)


@pytest.mark.parametrize(
    ("kind", "name", "value", "expected"),
    [
        (ScoresSettings, "lr", 0, "`lr` cannot be 0: input should be greater than 0"),
        (ScoresSettings, "lr", math.nan, "`lr` cannot be nan: input should be a finite number"),
        (ScoresSettings, "lr", math.inf, "`lr` cannot be inf: input should be a finite number"),
        (ScoresSettings, "clip", -1.0, "`clip` cannot be -1.0: input should be greater than 0"),
        (ScoresSettings, "l1", -0.1, "`l1` cannot be -0.1: input should be greater than or equal to 0"),
        (ScoresSettings, "held_out", 1.0, "`held_out` cannot be 1.0: input should be less than 1"),
        (ScoresSettings, "held_out", -0.5, "`held_out` cannot be -0.5: input should be greater than or equal to 0"),
        (ScoresSettings, "steps", 0, "`steps` cannot be 0: input should be greater than or equal to 1"),
        (ScoresSettings, "epochs", 1.5, "`epochs` cannot be 1.5: input should be a valid integer"),
        (ScoresSettings, "batch_size", "many", "`batch_size` cannot be 'many': input should be a valid integer"),
        (ScoresSettings, "max_length", 0, "`max_length` cannot be 0: input should be greater than or equal to 1"),
        (ScoresSettings, "evaluate_every", -3, "`evaluate_every` cannot be -3: input should be greater than or equal"),
        (ScoresSettings, "seed", -1, "`seed` cannot be -1: input should be greater than or equal to 0"),
        (ScoresSettings, "keep", "last", "`keep` cannot be 'last': input should be 'final' or 'best'"),
        (
            ScoresSettings,
            "strategy",
            "untied",
            "`strategy` cannot be 'untied': input should be 'decoupled', 'tied' or 'frozen-embeddings'",
        ),
        (TrainSettings, "prompt_lr", -1e-5, "`prompt_lr` cannot be -1e-05: input should be greater than 0"),
        (TrainSettings, "prompt_length", 0, "`prompt_length` cannot be 0: input should be greater than or equal to 1"),
        (TrainSettings, "schedule", "cosine", "`schedule` cannot be 'cosine': input should be 'constant' or 'linear'"),
        (TrainSettings, "epochs", 0, "`epochs` cannot be 0: input should be greater than or equal to 1"),
    ],
)
def test_an_error_names_the_setting_its_value_and_the_range(
    kind: type[Settings], name: str, value: Any, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        kind.of(**{name: value})
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [ScoresSettings, TrainSettings])
def test_an_unknown_setting_is_refused_with_the_known_ones(kind: type[Settings]) -> None:
    with pytest.raises(InputError, match=r"^batchsize: unknown key; did you mean 'batch_size'\? choose from "):
        kind.of(batchsize=3)
    with pytest.raises(ValidationError):
        kind(batchsize=3)


@pytest.mark.parametrize("kind", [ScoresSettings, TrainSettings])
def test_settings_are_frozen(kind: type[Settings]) -> None:
    settings = kind.of(seed=3)
    with pytest.raises(ValidationError):
        settings.seed = 4  # type: ignore[attr-defined]
    assert kind.of(**settings.model_dump()) == settings


class Newer(TrainSettings):
    """The settings of a later version: with two fields more, and what they mean for what was made before."""

    warm_up: int = later(0)
    spans: tuple[str, ...] = later(())


def test_a_field_added_later_is_written_only_where_it_is_used() -> None:
    old = TrainSettings(lr=1e-3)
    for mode in ("python", "json"):
        assert Newer(lr=1e-3).model_dump(mode=mode) == old.model_dump(mode=mode)
        assert Newer(lr=1e-3, warm_up=0, spans=()).model_dump(mode=mode) == old.model_dump(mode=mode)
        assert Newer(lr=1e-3, warm_up=2).model_dump(mode=mode) == {**old.model_dump(mode=mode), "warm_up": 2}
    assert Newer(lr=1e-3).model_dump_json() == old.model_dump_json()
    assert Newer(lr=1e-3, warm_up=2).model_dump(include={"lr", "spans"}) == {"lr": 1e-3}
    for settings in (Newer(seed=3), Newer(seed=3, warm_up=2, spans=("a",))):
        assert Newer.of(**settings.model_dump()) == settings
