"""From encoded examples to label logits, predictions and their measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltprompt.backbone.model import Backbone
from ltprompt.device import Compute, full_precision
from ltprompt.packing.batching import micro_batches
from ltprompt.packing.sequences import Sequences
from ltprompt.stage2.classifier_head import classify
from ltprompt.stage2.prompt import insert
from ltprompt.tasks.template import Encoded
from ltprompt.tasks.verbaliser import Verbaliser

Embed = Callable[[Tensor], Tensor]
OutputRows = tuple[Tensor, Tensor | None]

MAX_TOKENS = 4096  # of a micro-batch in evaluation


@dataclass(frozen=True)
class Reader:
    """Reads label logits off one position: the part of the forward pass that training and evaluation share.

    verbaliser: whose words are read off the mask; None for plain fine-tuning, where a classifier reads the first token.
    """

    backbone: Backbone
    verbaliser: Verbaliser | None
    compute: Compute

    @property
    def outputs(self) -> tuple[int, ...]:
        """Words whose rows of the output matrix are needed."""
        return () if self.verbaliser is None else self.verbaliser.flat_ids

    @property
    def output_rows(self) -> OutputRows:
        """The verbaliser's rows of the output matrix, as pretrained."""
        return self.backbone.output_rows(torch.tensor(self.outputs, dtype=torch.int64, device=self.backbone.device))

    def logits(self, batch: Sequence[Encoded], prompt: Tensor | None, embed: Embed, rows: OutputRows) -> Tensor:
        """Return label logits [B, labels] of a batch; the head runs at the mask, for the verbaliser's words alone.

        prompt: [n, width] vectors, None without a prompt, for fine-tuning the folded classifier. embed: word ids [T] of
        the whole batch -> embeddings [T, width]. rows: rows of the output matrix.
        """
        backbone, vectors = self.backbone, None if self.verbaliser is None else prompt
        sequences = Sequences.of([example.ids for example in batch])
        ids = torch.from_numpy(np.concatenate([example.ids for example in batch])).to(backbone.device, torch.int64)
        places = torch.from_numpy(sequences.starts + [example.read_at for example in batch]).to(backbone.device)
        with self.compute.autocast():
            found = backbone.encode(insert(embed(ids.clamp_min(0)), ids, vectors), sequences, places)
        if self.verbaliser is not None:
            return self.verbaliser.label_logits(backbone.word_logits(found, *rows))
        assert prompt is not None
        with full_precision(backbone.device):
            return classify(found.to(prompt.dtype), prompt, backbone.classifier_dropout if backbone.training else 0.0)

    @torch.no_grad()
    def predict(
        self,
        examples: Sequence[Encoded],
        prompt: Tensor | None,
        *,
        embed: Embed | None = None,
        rows: OutputRows | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Return label logits [N, labels], fp32 or the weights' dtype, in the examples' order.

        Examples run in micro-batches. embed and rows default to the backbone's own as it stands.
        """
        self.backbone.model.eval()
        embed = embed or self.backbone.word_embeddings
        rows = rows or self.output_rows
        found: np.ndarray | None = None
        for group in self.micro_batches(examples, MAX_TOKENS):
            logits = self.logits([examples[i] for i in group], prompt, embed, rows).cpu().numpy()
            if found is None:
                found = np.empty((len(examples), logits.shape[1]), logits.dtype)
            found[group] = logits
            if on_batch:
                on_batch(len(group))
        return found if found is not None else np.empty((0, self._classes(prompt)), np.float32)

    def micro_batches(self, examples: Sequence[Encoded], max_tokens: int) -> list[np.ndarray]:
        """Return micro-batches of at most so many tokens, as positions in `examples`."""
        lengths = np.array([len(example.ids) for example in examples], np.int64)
        return micro_batches(lengths, max_tokens=max_tokens, packed=self.backbone.packs)

    def _classes(self, folded: Tensor | None) -> int:
        if self.verbaliser is not None:
            return len(self.verbaliser.labels)
        assert folded is not None
        return len(folded) - self.backbone.hidden_size


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [N, labels] of the verbaliser's words among themselves."""
    return torch.from_numpy(logits).softmax(-1).numpy()


@dataclass(frozen=True)
class Measures:
    """How predictions agree with labels: accuracy, macro-F1 and confusion[gold][predicted], over `size` examples."""

    size: int
    accuracy: float
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the measures as plain JSON."""
        return {
            "examples": self.size,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "confusion": [list(row) for row in self.confusion],
        }


def measure(gold: np.ndarray, predicted: np.ndarray, classes: int) -> Measures:
    """Return the measures of predictions [N] against labels [N], both class numbers from 0.

    Macro-F1 is the plain mean over all classes; a class that neither occurs nor is predicted counts as 0.
    """
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (gold, predicted), 1)
    hits = np.diag(confusion)
    sums = confusion.sum(0) + confusion.sum(1)
    f1 = np.divide(2 * hits, sums, out=np.zeros(classes), where=sums > 0)
    rows = tuple(tuple(int(n) for n in row) for row in confusion)
    return Measures(len(gold), float(hits.sum() / max(len(gold), 1)), float(f1.mean()), rows)


def mean_measures(by_language: Mapping[str, Measures]) -> dict[str, float]:
    """Return the plain means over languages, as the paper's AVG. column."""
    return {
        "accuracy": float(np.mean([found.accuracy for found in by_language.values()])),
        "macro_f1": float(np.mean([found.macro_f1 for found in by_language.values()])),
    }
