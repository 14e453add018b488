"""Whole tensors of the backbone in training, as the published baselines have it (facts.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ltprompt.backbone.changes import Change, changed
from ltprompt.backbone.model import Backbone
from ltprompt.backbone.pretrained import restore
from ltprompt.stage2.in_place_weights import InPlaceWeights


class DenseWeights(InPlaceWeights):
    """Parameters of the backbone in training, in place, the tie of input and output embeddings kept.

    theta: the original values, by name, of the parameters to train, as `originals` yields them; no other one moves.
    """

    def __init__(self, backbone: Backbone, theta: Mapping[str, Tensor], outputs: Sequence[int]) -> None:
        super().__init__(backbone, {name: backbone.parameters[name] for name in theta}, outputs)
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
