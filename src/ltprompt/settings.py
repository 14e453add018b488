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
    """Stage 1, with the paper's values (section 4.2) as defaults; a field's description is the help of its flag."""

    strategy: Literal["decoupled", "tied", "frozen-embeddings"] = Field(
        default="decoupled", description="how the embeddings take part: decoupled, tied or frozen-embeddings"
    )
    epochs: Positive = Field(default=3, description="passes over the text")
    steps: Positive | None = Field(
        default=None, description="optimizer steps, instead of `epochs`; the rate decays over them"
    )
    batch_size: Positive = Field(default=32, description="lines a step")
    lr: Rate = Field(default=5e-5, description="initial rate, decaying linearly to 0")
    l1: float = Field(default=0.1, ge=0, allow_inf_nan=False, description="coefficient of the L1 term Σ|θ^l − θ| / N")
    clip: Rate = Field(default=1.0, description="largest gradient norm")
    max_length: Positive = Field(default=256, description="tokens a line")
    held_out: float = Field(default=0.1, ge=0, lt=1, description="share of lines kept for evaluation")
    evaluate_every: Positive = Field(default=1000, description="steps between evaluations and checkpoints")
    keep: Literal["final", "best"] = Field(
        default="final", description="weights to score: final, or best on held-out lines"
    )
    seed: int = Field(default=0, ge=0, description="of masks, order and dropout")


class TrainSettings(Settings):
    """Stage 2. What is None comes from the method's recipe; a field's description is the help of its flag."""

    epochs: Positive | None = Field(default=None, description="passes over the examples")
    batch_size: Positive | None = Field(default=None, description="examples a step")
    lr: Rate | None = Field(default=None, description="rate")
    prompt_lr: Rate | None = Field(default=None, description="the prompt's own rate [that of `lr`]")
    schedule: Literal["constant", "linear"] | None = Field(default=None, description="constant or linear decay")
    prompt_length: Positive = Field(default=4, description="pseudo-tokens")
    max_length: Positive = Field(default=256, description="tokens an example")
    language: str | None = Field(default=None, description="language of label words and pattern [the task's own]")
    seed: int = Field(default=0, ge=0, description="of the prompt's start, order and dropout")
    keep_prompt_encoder: bool = Field(default=False, description="save the prompt before folding too")
    size: Rate | None = Field(default=None, description="rank of lora and shira, sparsity of super-tuning")
