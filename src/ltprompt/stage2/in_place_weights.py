"""Tensors that an optimizer trains in place: what whole-model training and PEFT's adapters have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ltprompt.backbone.model import Backbone


class InPlaceWeights:
    """Parameters in training, where the model itself holds them, so that nothing has to be brought up to date.

    backbone: looked words up in as it stands. parameters: by name. outputs: words whose rows of the output matrix are
    needed.
    """

    def __init__(self, backbone: Backbone, parameters: Mapping[str, nn.Parameter], outputs: Sequence[int]) -> None:
        self.backbone = backbone
        self.outputs = torch.tensor(list(outputs), dtype=torch.int64, device=backbone.device)
        self._parameters = dict(parameters)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return every trained parameter by name."""
        return self._parameters

    def embed(self, ids: Tensor) -> Tensor:
        """Return embeddings [..., w] of words."""
        embeddings: Tensor = self.backbone.word_embeddings(ids)
        return embeddings

    def output_rows(self) -> tuple[Tensor, Tensor | None]:
        """Return the verbaliser's rows [n, w] of the output matrix and its bias, differentiable where they train."""
        return self.backbone.output_rows(self.outputs)

    def step_done(self) -> None:
        """Do nothing: the optimizer wrote into the model itself."""

    def snapshot(self) -> dict[str, Tensor]:
        """Return a copy of the trained values."""
        return {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def load(self, snapshot: Mapping[str, Tensor]) -> None:
        """Take up a copy."""
        for name, value in snapshot.items():
            self._parameters[name].copy_(value)
