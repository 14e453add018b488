"""What is read off an encoder's hidden states: label words at the mask, or a classifier on a token.

Either may have a part beside the backbone that trains and folds to one matrix: a prompt that enters the input, or the
classifier itself. So training, adapters and evaluation know one kind of such part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ltprompt.backbone.model import Backbone
from ltprompt.device import full_precision, seeded
from ltprompt.stage2.classifier_head import PooledClassifier, classify
from ltprompt.stage2.prompt import PromptEncoder
from ltprompt.tasks import Task
from ltprompt.tasks.template import Template
from ltprompt.tasks.verbaliser import Verbaliser

OutputRows = tuple[Tensor, Tensor | None]


class Readout(Protocol):
    """How labels' logits are read."""

    @property
    def label_ids(self) -> tuple[int, ...]:
        """Rows of the output matrix that are needed, ascending."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of it, a line each."""

    @property
    def verbaliser(self) -> Verbaliser | None:
        """The label words, where those are what is read."""

    def beside(self, backbone: Backbone, seed: int) -> nn.Module | None:
        """Return what trains beside the backbone, as it starts: a module that folds to one matrix, or None."""

    def vectors(self, folded: Tensor | None) -> Tensor | None:
        """Return what of the folded part enters the input: a prompt [n, width], or None."""

    def classes(self) -> int:
        """Return the number of labels."""

    def logits(self, backbone: Backbone, hidden: Tensor, folded: Tensor | None, rows: OutputRows) -> Tensor:
        """Return label logits [B, labels] of hidden states [B, hidden]. rows: of the output matrix, and their bias."""


@dataclass(frozen=True, eq=False)
class WordReadout:
    """Label words at the mask, with a soft prompt of so many vectors in the input, 0 for none."""

    verbaliser: Verbaliser
    prompt_length: int

    @property
    def label_ids(self) -> tuple[int, ...]:
        """The label words' pieces, each once."""
        return self.verbaliser.flat_ids

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for every label word that is not a single piece of the vocabulary."""
        return self.verbaliser.notes

    def beside(self, backbone: Backbone, seed: int) -> nn.Module | None:
        """Return a prompt whose start depends on the seed alone; None without one."""
        matrix = backbone.word_embeddings.weight
        if not self.prompt_length:
            return None
        return PromptEncoder.seeded(
            self.prompt_length, backbone.width, seed, device=matrix.device, dtype=matrix.dtype
        )  # fmt: skip

    def vectors(self, folded: Tensor | None) -> Tensor | None:
        """Return the prompt."""
        return folded

    def classes(self) -> int:
        """Return the number of labels."""
        return len(self.verbaliser.labels)

    def logits(self, backbone: Backbone, hidden: Tensor, folded: Tensor | None, rows: OutputRows) -> Tensor:
        """Return the words' logits; the head runs for their pieces alone."""
        return self.verbaliser.label_logits(backbone.word_logits(hidden, *rows))


@dataclass(frozen=True, eq=False)
class TokenReadout:
    """A classifier on the first token of the bare texts, as plain fine-tuning has it (facts.md)."""

    labels: int
    label_ids: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    verbaliser: None = None

    def beside(self, backbone: Backbone, seed: int) -> nn.Module | None:
        """Return a classifier whose start depends on the seed alone."""
        with seeded(seed):
            head = PooledClassifier(backbone.hidden_size, self.labels, backbone.init_std)
        return head.to(backbone.device, backbone.word_embeddings.weight.dtype)

    def vectors(self, folded: Tensor | None) -> Tensor | None:
        """Return None: nothing of the classifier enters the input."""
        return None

    def classes(self) -> int:
        """Return the number of labels."""
        return self.labels

    def logits(self, backbone: Backbone, hidden: Tensor, folded: Tensor | None, rows: OutputRows) -> Tensor:
        """Return the folded classifier's logits, in its precision: their rounding decides labels."""
        assert folded is not None
        with full_precision(hidden.device):
            dropout = backbone.classifier_dropout if backbone.training else 0.0
            return classify(hidden.to(folded.dtype), folded, dropout)


def lay_out(
    kind: str, task: Task, language: str, tokenizer: Any, *, prompt_length: int, max_length: int
) -> tuple[Template, Readout]:
    """Bind a template of a task to a tokenizer, and say how labels are read off what it fills.

    kind: as `methods.TemplateKind` has it. language: of label words and pattern; the bare texts have neither.
    Raises `InputError` for a kind or a language that the task lacks, and for lengths that leave no room.
    """
    if kind == "plain":
        template = Template.plain(task.columns, tokenizer, max_length=max_length)
        return template, TokenReadout(len(task.labels))
    template = Template.build(
        task.template_for(kind, language), task.columns, tokenizer,
        prompt_length=prompt_length, max_length=max_length, strip_punctuation=task.strip_punctuation,
    )  # fmt: skip
    return template, WordReadout(Verbaliser.build(task.words_for(language), tokenizer), template.prompt_length)


@torch.no_grad()
def fold(beside: nn.Module | None) -> Tensor | None:
    """Return a trained part as it is evaluated and saved: one matrix in the masters' precision, no gradient."""
    if beside is None:
        return None
    folded: Tensor = beside()
    return folded.detach()
