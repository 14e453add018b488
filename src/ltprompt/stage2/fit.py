"""Stage 2 as a call: from θ and labelled examples to the entries that changed and the folded part beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from ltprompt.backbone.changes import Change
from ltprompt.stage2.forward import Reader
from ltprompt.stage2.methods import Recipe, Trains
from ltprompt.stage2.readout import fold
from ltprompt.stage2.training import Epoch, LabelledExamples, Learner, Tuned, tune
from ltprompt.stage2.weights import training_weights
from ltprompt.terminal import bar
from ltprompt.tickets.ticket import Ticket


@dataclass(frozen=True, eq=False)
class Fitted:
    """What stage 2 leaves.

    changes: new values of backbone entries. moves_output: whether those of a tied embedding matrix move the output side
    too. folded: what trained beside the backbone, as one matrix; None where nothing did. state: the same before
    folding, by name.
    """

    tuned: Tuned
    changes: tuple[Change, ...]
    moves_output: bool
    folded: Tensor | None
    state: dict[str, Tensor]


def fit(
    reader: Reader,
    train: LabelledExamples,
    dev: LabelledExamples | None,
    *,
    trains: Trains,
    recipe: Recipe,
    ticket: Ticket | None,
    rank: float | None,
    seed: int,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Fitted:
    """Train, and leave the backbone's weights, which must be θ before, at θ.

    Raises `InputError` where nothing would train, `TrainingError` where training diverges.
    """
    backbone, readout = reader.backbone, reader.readout
    beside = readout.beside(backbone, seed)
    weights_in_training = training_weights(
        trains, backbone,
        ticket=ticket, token_ids=_looked_up(train), label_ids=readout.label_ids, rank=rank, seed=seed,
    )  # fmt: skip
    with weights_in_training as weights:
        tuned = tune(Learner.of(reader, weights, beside, recipe), train, dev, recipe, seed=seed, on_epoch=on_epoch)
        changes = tuple(weights.changes())
    state = {} if beside is None else {name: value.detach().cpu() for name, value in beside.state_dict().items()}
    return Fitted(tuned, changes, weights.moves_output, fold(beside), state)


@contextmanager
def training_bar(epochs: int) -> Iterator[Callable[[Epoch], None]]:
    """Yield what shows the epochs of a training as a bar, for `fit`'s `on_epoch`."""
    with bar("training", epochs, "epoch") as advance:
        yield lambda epoch: advance(1, str(epoch))


def _looked_up(examples: LabelledExamples) -> list[int]:
    """Return, ascending, the token ids that training looks up, the vocabulary's first at slots of the prompt."""
    found = {0}
    for example in examples.examples:
        found.update(example.ids[example.ids >= 0].tolist())
    return sorted(found)
