"""What the files of scores and of tickets say of themselves alike: the eligible set, its backbone and the criterion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Self

from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.files.artifacts import TensorFile

STRATEGIES = ("decoupled", "tied", "frozen-embeddings")
CRITERIA = ("delta", "random", "magnitude", "gradient", "fisher")


@dataclass(frozen=True)
class Header:
    """The part of a header that scores and tickets share; the fields are those of `Scores` and `Ticket`."""

    parameters: tuple[EligibleParameter, ...]
    strategy: str
    fingerprint: str
    criterion: str
    seed: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON; those of ``delta`` are left out, whose files stay what they always were."""
        criterion = {} if self.criterion == "delta" else {"criterion": self.criterion, "seed": self.seed}
        return {
            "parameters": [parameter.to_json() for parameter in self.parameters],
            "strategy": self.strategy,
            "fingerprint": self.fingerprint,
            **criterion,
        }

    @classmethod
    def read(cls, file: TensorFile, criteria: Sequence[str] = CRITERIA) -> Self:
        """Return the shared part of an artifact's header. criteria: those that this kind of artifact can have.

        Raises `FileFormatError` for a field that is absent, of another type or unknown.
        """
        parameters, strategy = _read_parameters(file), read_field(file, "strategy", str)
        if strategy not in STRATEGIES:
            raise file.damaged(f"its header holds the unknown strategy {strategy!r}")
        return cls(parameters, strategy, read_field(file, "fingerprint", str), *_read_criterion(file, criteria))


def read_field(file: TensorFile, name: str, kind: type | tuple[type, ...]) -> Any:
    """Return one field of an artifact's header. Raises `FileFormatError` where it is absent or of another type."""
    value = file.metadata.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise file.damaged(f"its header holds no usable {name!r}")
    return value


def _read_criterion(file: TensorFile, known: Sequence[str]) -> tuple[str, int | None]:
    """Return the criterion and its seed; (``delta``, None) where there is none.

    Raises `FileFormatError` for another criterion, and for a seed missing with ``random`` or given with any other.
    """
    if "criterion" not in file.metadata:
        return "delta", None
    criterion = read_field(file, "criterion", str)
    seed = read_field(file, "seed", (int, NoneType))
    if criterion not in known or (seed is None) == (criterion == "random"):
        raise file.damaged(f"its header holds the unknown criterion {criterion!r} with seed {seed}")
    return criterion, seed


def _read_parameters(file: TensorFile) -> tuple[EligibleParameter, ...]:
    """Return the eligible set. Raises `FileFormatError` where it makes no sense."""
    try:
        parameters = tuple(EligibleParameter.from_json(data) for data in file.metadata["parameters"])
        sound = len({p.name for p in parameters}) == len(parameters) > 0 and all(
            p.layer >= 0 and all(side >= 0 for side in p.shape) for p in parameters
        )
    except (KeyError, TypeError) as error:
        raise file.damaged("its header holds no usable eligible set") from error
    if not sound:
        raise file.damaged("its eligible set is empty, names a parameter twice or has a negative size or layer")
    return parameters
