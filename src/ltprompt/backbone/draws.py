"""What a training draws: from generators of its own, so that it is what the same training draws alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ltprompt.backbone.model import Backbone
from ltprompt.device import seeded
from ltprompt.packing.dropout import FastDropout


@contextmanager
def drawn(backbone: Backbone, *entropy: int) -> Iterator[None]:
    """Let dropout in the block depend on `entropy` alone, non-negative integers such as a seed and a step.

    Without padding its masks come from a generator of the block's own. Padded, as on a GPU, they are torch's, whose
    global generators are seeded, stand afterwards where they stood, and serve one thread's block at a time.
    """
    if backbone.packs:
        with FastDropout(*entropy):
            yield
    else:
        with seeded(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1), backbone.device):
            yield
