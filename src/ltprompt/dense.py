"""Whole tensors of the backbone in training, as the published baselines have it (facts.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ltprompt.backbone import Backbone
from ltprompt.changes import Change, changed
from ltprompt.named import NamedTensors
from ltprompt.originals import restore


class DenseWeights:
    """Parameters of the backbone in training, in place, the tie of input and output embeddings kept.

    theta: the original values, by name, of the parameters to train, as `originals` yields them; no other one moves.
    """

    def __init__(self, backbone: Backbone, theta: Mapping[str, Tensor], outputs: Sequence[int]) -> None:
        self.backbone = backbone
        self.theta = theta
        self.moves_output = backbone.word_name in theta
        self.outputs = torch.tensor(list(outputs), dtype=torch.int64, device=backbone.device)
        self.tensors = NamedTensors({name: backbone.parameters[name] for name in theta})
        for parameter in self.tensors.parameters.values():
            parameter.requires_grad_(True)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return every trained parameter by name."""
        return dict(self.tensors.parameters)

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
        return self.tensors.snapshot()

    def load(self, snapshot: Mapping[str, Tensor]) -> None:
        """Take up a copy."""
        self.tensors.load(snapshot)

    def changes(self) -> list[Change]:
        """Return the entries that differ from θ."""
        found = []
        for name, parameter in self.tensors.parameters.items():
            old, new = self.theta[name].reshape(-1), parameter.detach().cpu().reshape(-1)
            change = changed(name, old, new)
            if change is not None:
                found.append(change)
        return found

    def close(self) -> None:
        """Set every parameter back to θ."""
        for parameter in self.tensors.parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None
        restore(self.backbone, self.theta)
