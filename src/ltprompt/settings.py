"""Settings, one frozen and documented class per concern; a field is a keyword of the library and a command's flag."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from ltprompt.errors import InputError, explain

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def later(value: Any) -> Any:
    """Return the default of a field that a class got after files of it were written.

    value: what says that all is done as before. While the field has it, the field is left out of all that is written
    and hashed, so that runs, tasks and adapters keep their identities, and old files, which lack it, read as they were
    meant.
    """
    return Field(default=value, json_schema_extra={"later": True})


class Frozen(BaseModel):
    """Base of what is checked, hashed and written: frozen, unknown keys refused, `later` fields written when used."""

    # A number that is none stays one, for `canonical_json` and `write_json` to refuse: pydantic would write null. What
    # is stored under another name than Python's, such as a ticket's criterion, is written under that one.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants", serialize_by_alias=True)

    @model_serializer(mode="wrap")
    def _leave_out_later(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = written(self)
        for name, field in type(self).model_fields.items():
            if field.json_schema_extra == {"later": True} and getattr(self, name) == field.default:
                data.pop(name, None)
        return data


class Settings(Frozen):
    """Base of all settings."""

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Build settings, leaving out what is None. Raises `InputError` naming the setting, its value and the range."""
        try:
            return cls(**{key: value for key, value in given.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            shown = name if first["type"] == "extra_forbidden" else f"`{name}`"
            raise InputError(explain(first, shown, known=cls.model_fields)) from error


class ScoresSettings(Settings):
    """Stage 1, with the paper's values (section 4.2) as defaults.

    strategy: how the embeddings take part. epochs: passes over the text. steps: optimizer steps, instead of epochs; the
    rate decays over them. batch_size: lines a step. lr: initial rate, decaying linearly to 0. l1: coefficient of
    Σ|θ^l − θ| / N. clip: largest gradient norm. max_length: tokens a line. held_out: share of lines kept for
    evaluation. evaluate_every: steps between evaluations and checkpoints. keep: final weights or those of the best
    held-out loss. seed: of masks, order and dropout.
    """

    strategy: Literal["decoupled", "tied", "frozen-embeddings"] = "decoupled"
    epochs: Positive = 3
    steps: Positive | None = None
    batch_size: Positive = 32
    lr: Rate = 5e-5
    l1: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    clip: Rate = 1.0
    max_length: Positive = 256
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    evaluate_every: Positive = 1000
    keep: Literal["final", "best"] = "final"
    seed: Annotated[int, Field(ge=0)] = 0


class TrainSettings(Settings):
    """Stage 2. What is None comes from the method's recipe.

    epochs, batch_size, lr, schedule: of the optimisation. prompt_lr: the prompt's own rate; lr where it is None.
    prompt_length: pseudo-tokens. max_length: tokens an example. language: whose words and pattern are used; None is
    the task's own default. seed: of the prompt's initial values, order and dropout. keep_prompt_encoder: save the
    unfolded prompt too. size: of what `lora` and `shira` (rank) or `super-tuning` (sparsity) add.
    """

    epochs: Positive | None = None
    batch_size: Positive | None = None
    lr: Rate | None = None
    prompt_lr: Rate | None = None
    schedule: Literal["constant", "linear"] | None = None
    prompt_length: Positive = 4
    max_length: Positive = 256
    language: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    keep_prompt_encoder: bool = False
    size: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
