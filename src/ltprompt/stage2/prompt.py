"""The soft prompt: pseudo-token vectors, reparameterised by a bidirectional LSTM and an MLP (paper, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ltprompt.device import seeded


class PromptEncoder(nn.Module):
    """Trainable vectors [n, w] -> BiLSTM (hidden size w) -> Linear(2w, w) -> ReLU -> Linear(w, w).

    All layers start as PyTorch initialises them (facts.md: so did the published baselines).

    length: n, the number of pseudo-tokens. width: w, that of the backbone's word embeddings.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(length, width)
        self.lstm = nn.LSTM(width, width, bidirectional=True, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))

    @classmethod
    def seeded(cls, length: int, width: int, seed: int, *, device: torch.device, dtype: torch.dtype) -> PromptEncoder:
        """Build a prompt whose initial values depend on the seed alone; the global generator stays as it was."""
        with seeded(seed):
            return cls(length, width).to(device, dtype)

    def forward(self) -> Tensor:
        """Return the prompt's vectors [n, w] as they enter the encoder."""
        hidden, _ = self.lstm(self.vectors.weight.unsqueeze(0))
        prompt: Tensor = self.mlp(hidden.squeeze(0))
        return prompt


def vocabulary_ids(ids: Tensor) -> Tensor:
    """Return ids [T] that can all be looked up: a slot of the prompt becomes the vocabulary's first entry."""
    return ids.clamp_min(0)


def insert(embeddings: Tensor, ids: Tensor, prompt: Tensor | None) -> Tensor:
    """Put prompt vectors where the ids ask for them.

    embeddings: [T, w] of the tokens; ids: [T], slots of the prompt by their `slot_code`; prompt: [n, w] or None where
    the template has none.
    """
    if prompt is None:
        return embeddings
    slots = (-ids - 1).clamp_min(0)  # `slot_code`, entry by entry
    return torch.where((ids < 0).unsqueeze(-1), prompt[slots].to(embeddings.dtype), embeddings)
