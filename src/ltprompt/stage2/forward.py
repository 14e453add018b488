"""From encoded examples to label logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ltprompt.backbone.model import Backbone
from ltprompt.device import Compute
from ltprompt.packing.batching import micro_batches
from ltprompt.packing.sequences import Sequences
from ltprompt.stage2.prompt import insert, vocabulary_ids
from ltprompt.stage2.readout import OutputRows, Readout
from ltprompt.tasks.template import Encoded

Embed = Callable[[Tensor], Tensor]

MAX_TOKENS = 4096  # of a micro-batch in evaluation


@dataclass(frozen=True)
class Reader:
    """Reads label logits off one position: the part of the forward pass that training and evaluation share."""

    backbone: Backbone
    readout: Readout
    compute: Compute

    @property
    def output_rows(self) -> OutputRows:
        """The label words' rows of the output matrix, as pretrained."""
        label_ids = torch.tensor(self.readout.label_ids, dtype=torch.int64, device=self.backbone.device)
        return self.backbone.output_rows(label_ids)

    def logits(self, batch: Sequence[Encoded], folded: Tensor | None, embed: Embed, rows: OutputRows) -> Tensor:
        """Return label logits [B, labels] of a batch.

        folded: what trains beside the backbone, as one matrix; None where nothing does. embed: word ids [T] of the
        whole batch -> embeddings [T, width]. rows: the label words' of the output matrix.
        """
        backbone = self.backbone
        sequences = Sequences.of([example.ids for example in batch])
        ids = torch.from_numpy(np.concatenate([example.ids for example in batch])).to(backbone.device, torch.int64)
        places = torch.from_numpy(sequences.starts + [example.read_at for example in batch]).to(backbone.device)
        with self.compute.autocast():
            embeddings = insert(embed(vocabulary_ids(ids)), ids, self.readout.vectors(folded))
            hidden = backbone.encode(embeddings, sequences, places)
        return self.readout.logits(backbone, hidden, folded, rows)

    @torch.no_grad()
    def predict(
        self,
        examples: Sequence[Encoded],
        folded: Tensor | None,
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
            logits = self.logits([examples[i] for i in group], folded, embed, rows).cpu().numpy()
            if found is None:
                found = np.empty((len(examples), logits.shape[1]), logits.dtype)
            found[group] = logits
            if on_batch:
                on_batch(len(group))
        return found if found is not None else np.empty((0, self.readout.classes()), np.float32)

    def micro_batches(self, examples: Sequence[Encoded], max_tokens: int) -> list[np.ndarray]:
        """Return micro-batches of at most so many tokens, as positions in `examples`."""
        lengths = np.array([len(example.ids) for example in examples], np.int64)
        return micro_batches(lengths, max_tokens=max_tokens, packed=self.backbone.packs)
