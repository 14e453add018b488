"""Trying out what was found: the parts of a model must compute what its stock forward computes.

Running without padding and leaving out rows are tried too, and done only where they give the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ltprompt.backbone.parts import first_position
from ltprompt.errors import BackboneError
from ltprompt.packing.attention import PACKED
from ltprompt.packing.last_layer import LastLayer, module_after_attention
from ltprompt.packing.sequences import Sequences, encode_packed, encode_padded

TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Sample:
    """A few words as sequences of two lengths, and what the stock forward makes of them.

    embeddings: [6, width]. logits: [6, V].
    """

    embeddings: Tensor
    sequences: Sequences
    logits: Tensor

    @classmethod
    def of(cls, model: Any, pad: int) -> Sample:
        """Run the stock forward on a padded batch of ordinary words. pad: id of the padding token."""
        words = model.get_input_embeddings()
        low = min(5, words.num_embeddings - 4)
        ids = torch.tensor([[low, low + 1, low + 2, low + 3], [low + 2, low, pad, pad]], device=words.weight.device)
        real = ids != pad
        logits = model(input_ids=ids, attention_mask=real.long()).logits
        return cls(words(ids[real]), Sequences((4, 2)), logits[real])

    def check(self, logits: Tensor, few: Tensor, name: str, kind: str) -> None:
        """Raise `BackboneError` unless the parts that were found give the stock forward's logits, which are finite.

        logits: [6, V] as the parts give them. few: [6, n] of the first n words. name, kind: of the model, for errors.
        """
        if not self.logits.isfinite().all():
            raise BackboneError(f"{name} has weights that are not finite; copy the checkpoint again")
        if not (alike(logits, self.logits) and alike(few, self.logits[:, : few.shape[1]])):
            raise BackboneError(
                f"{kind} computes its logits in a way that ltprompt does not know; "
                "use an XLM-R or BERT-like masked language model"
            )


@dataclass(frozen=True, eq=False)
class Trial:
    """An encoder on a `Sample`, whose hidden states [6, hidden], computed padded, it must give in any other way.

    base: the encoder; where a way of running it fails, it is left as it was. positions: its position embeddings.
    """

    base: nn.Module
    positions: nn.Embedding | None
    sample: Sample
    hidden: Tensor

    def packs(self) -> bool:
        """Let the encoder attend within packed sequences, and return whether it then gives the same."""
        config: Any = self.base.config
        if self.positions is None or self.hidden.device.type != "cpu" or config._attn_implementation != "sdpa":
            return False
        config._attn_implementation = PACKED
        same = self._alike(self._run, self.hidden)
        if not same:
            config._attn_implementation = "sdpa"
        return same

    def narrows(self, layer: nn.Module) -> LastLayer | None:
        """Return what leaves out rows in the last layer of an encoder that packs, where it then gives the same."""
        follower = module_after_attention(layer, lambda: self._run(self.sample.embeddings))
        if follower is None:
            return None
        # Neither one row nor all: a part left whole would then fit those that are not, and no error would tell.
        last, read = LastLayer(follower), torch.tensor([4, 1, 2], device=self.hidden.device)

        def run(embeddings: Tensor) -> Tensor:
            with last.reading(read):
                return self._run(embeddings)

        if self._alike(run, self.hidden[read]):
            return last
        last.remove()
        return None

    def _run(self, embeddings: Tensor) -> Tensor:
        assert self.positions is not None
        return encode_packed(self.base, embeddings, self.sample.sequences, first_position(self.positions))

    def _alike(self, run: Callable[[Tensor], Tensor], expected: Tensor) -> bool:
        """Whether a way to run gives what is expected, in evaluation and in training, which attends in another way.

        Padded sequences must do so still. An encoder of another build may refuse any of them in ways of its own.
        """
        embeddings = self.sample.embeddings
        try:
            evaluated = run(embeddings)
            with torch.enable_grad():
                trained = run(embeddings.detach().requires_grad_()).detach()
            padded = encode_padded(self.base, embeddings, self.sample.sequences)
        except (TypeError, ValueError, RuntimeError, IndexError):
            return False
        found = ((evaluated, expected), (trained, expected), (padded, self.hidden))
        return all(alike(*pair) for pair in found)


def alike(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are equal but for rounding."""
    scale = TOLERANCE * expected.abs().max().clamp_min(1)
    return found.shape == expected.shape and bool((found - expected).abs().max() <= scale)
