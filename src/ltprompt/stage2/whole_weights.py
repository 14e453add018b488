"""Tensors that train in place: whole ones of the backbone, as the published baselines have it (facts.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ltprompt.backbone.changes import Change, changed
from ltprompt.backbone.model import Backbone
from ltprompt.backbone.pretrained import restore


class InPlaceWeights:
    """Parameters in training, where the model itself holds them, so that nothing has to be brought up to date.

    backbone: looked words up in as it stands. parameters: by name. label_ids: rows of the output matrix that are
    needed.
    """

    def __init__(self, backbone: Backbone, parameters: Mapping[str, nn.Parameter], label_ids: Sequence[int]) -> None:
        self.backbone = backbone
        self.label_ids = torch.tensor(list(label_ids), dtype=torch.int64, device=backbone.device)
        self._parameters = dict(parameters)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return every trained parameter by name."""
        return self._parameters

    def embed(self, ids: Tensor) -> Tensor:
        """Return embeddings [..., w] of words."""
        embeddings: Tensor = self.backbone.word_embeddings(ids)
        return embeddings

    def output_rows(self) -> tuple[Tensor, Tensor | None]:
        """Return the label words' rows [n, w] of the output matrix and its bias, differentiable where they train."""
        return self.backbone.output_rows(self.label_ids)

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


class DenseWeights(InPlaceWeights):
    """Parameters of the backbone in training, in place, the tie of input and output embeddings kept.

    theta: the original values, by name, of the parameters to train, as `originals` yields them; no other one moves.
    """

    def __init__(self, backbone: Backbone, theta: Mapping[str, Tensor], label_ids: Sequence[int]) -> None:
        super().__init__(backbone, {name: backbone.parameters[name] for name in theta}, label_ids)
        self.theta = theta
        self.moves_output = backbone.word_name in theta
        for parameter in self.named_parameters().values():
            parameter.requires_grad_(True)

    def changes(self) -> list[Change]:
        """Return the entries that differ from θ."""
        found = []
        for name, parameter in self.named_parameters().items():
            old, new = self.theta[name].reshape(-1), parameter.detach().cpu().reshape(-1)
            change = changed(name, old, new)
            if change is not None:
                found.append(change)
        return found

    def close(self) -> None:
        """Set every parameter back to θ."""
        for parameter in self.named_parameters().values():
            parameter.requires_grad_(False)
            parameter.grad = None
        restore(self.backbone, self.theta)
