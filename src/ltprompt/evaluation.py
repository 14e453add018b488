"""From encoded examples to label logits, predictions and their measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltprompt.backbone import Backbone
from ltprompt.batching import micro_batches, pad
from ltprompt.device import Compute
from ltprompt.prompt import insert
from ltprompt.template import Encoded
from ltprompt.verbaliser import Verbaliser

Embed = Callable[[Tensor], Tensor]
OutputRows = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Reader:
    """Reads label logits off the mask: the part of the forward pass that training and evaluation share."""

    backbone: Backbone
    verbaliser: Verbaliser
    compute: Compute

    @property
    def output_rows(self) -> OutputRows:
        """The verbaliser's rows of the output matrix, as pretrained."""
        return self.backbone.output_rows(torch.tensor(self.verbaliser.flat_ids, device=self.backbone.device))

    def logits(self, batch: Sequence[Encoded], prompt: Tensor | None, embed: Embed, rows: OutputRows) -> Tensor:
        """Return label logits [B, labels] of a batch; the head runs at the mask, for the verbaliser's words alone.

        prompt: [n, width] vectors. embed: word ids [B, L] -> embeddings [B, L, width]. rows: rows of the output matrix.
        """
        backbone = self.backbone
        pad_id = backbone.tokenizer.pad_token_id
        ids, attention = pad([example.ids for example in batch], pad_id, backbone.device)
        masks = torch.tensor([example.mask_position for example in batch], device=backbone.device)
        with self.compute.autocast():
            hidden = backbone.encode(insert(embed(ids.clamp_min(0)), ids, prompt), attention)
        at_mask = hidden[torch.arange(len(batch), device=backbone.device), masks]
        return self.verbaliser.label_logits(backbone.word_logits(at_mask, *rows))

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

        Examples run in batches of similar length. embed and rows default to the backbone's own as it stands.
        """
        self.backbone.model.eval()
        embed = embed or self.backbone.word_embeddings
        rows = rows or self.output_rows
        found: np.ndarray | None = None
        for group in micro_batches(np.array([len(example.ids) for example in examples])):
            logits = self.logits([examples[i] for i in group], prompt, embed, rows).cpu().numpy()
            if found is None:
                found = np.empty((len(examples), logits.shape[1]), logits.dtype)
            found[group] = logits
            if on_batch:
                on_batch(len(group))
        return found if found is not None else np.empty((0, len(self.verbaliser.labels)), np.float32)


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
