"""Stage 1 as a call: scores of every eligible parameter, and their files (paper, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from ltprompt.backbone.model import Backbone
from ltprompt.device import Compute, resolve
from ltprompt.errors import InputError
from ltprompt.files.artifacts import SCORES_CHECKPOINT, canonical_json, sha256
from ltprompt.settings import ScoresSettings
from ltprompt.stage1.corpus import TokenizedCorpus, text_sha256
from ltprompt.stage1.masking import hold_out
from ltprompt.stage1.training import Movement, Watcher, find_movement
from ltprompt.stage1.watching import stage_one_bar
from ltprompt.tickets.scores import Scores


def find_scores(
    backbone: Backbone,
    texts: Sequence[str],
    out: str | Path | None = None,
    *,
    settings: ScoresSettings | None = None,
    compute: Compute | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    progress: bool = False,
) -> Scores:
    """Run stage 1: fine-tune on `texts` with masked language modelling and score every eligible parameter.

    texts: lines, as `corpus.read_lines` gives them. out: folder for scores.safetensors and scores.json; a checkpoint is
    kept there at every evaluation, and `resume` goes on from it. progress: shows a bar on standard error, in
    a notebook or a log as plain lines. watcher: hears of every step, in place of that bar. The backbone is unchanged
    afterwards. Raises `InputError` for bad settings or text, `TrainingError` where the loss diverges.
    """
    settings, compute = settings or ScoresSettings(), compute or resolve(str(backbone.device))
    backbone.check_length(settings.max_length)
    fingerprint, text_hash = backbone.fingerprint, text_sha256(texts)
    corpus = TokenizedCorpus.build(texts, backbone.tokenizer, max_length=settings.max_length)
    trained, held = hold_out(len(corpus), settings.held_out, settings.seed)
    steps = settings.steps or settings.epochs * math.ceil(len(trained) / settings.batch_size)
    plain = settings.model_dump(exclude={"epochs", "max_length"}) | {"steps": steps}
    identity = sha256(canonical_json([settings.model_dump(), compute.dtype_name, fingerprint, text_hash]))
    checkpoint = None if out is None else _checkpoint(Path(out), resume)
    with stage_one_bar() if progress and watcher is None else nullcontext(watcher) as heard:
        movement = find_movement(
            backbone, corpus, compute=compute, checkpoint=checkpoint, identity=identity, watcher=heard, **plain
        )  # fmt: skip
    scores = Scores(movement.parameters, movement.tensors, settings.strategy, fingerprint)
    if out is not None and checkpoint is not None:
        settled = settings.model_dump() | {"steps": steps, "epochs": None if settings.steps else settings.epochs}
        record = {
            "backbone": backbone.name,
            "revision": backbone.revision,
            "settings": settled,
            "dtype": compute.dtype_name,
            "text_sha256": text_hash,
            "text": _text_counts(corpus, len(held)),
            **movement.history.to_json(),
            **movement_shares(movement, backbone.word_name),
        }
        scores.save(out, record)
        checkpoint.unlink(missing_ok=True)
    return scores


def _checkpoint(out: Path, resume: bool) -> Path:
    """Return where a checkpoint stands in `out`. Raises `InputError` for one that is not to be gone on from."""
    place = out / SCORES_CHECKPOINT
    if place.exists() and not resume:
        raise InputError(f"{out} holds the checkpoint of an unfinished run; give `resume` to go on, or delete {place}")
    return place


def _text_counts(corpus: TokenizedCorpus, held_out: int) -> dict[str, int]:
    return {
        "lines": len(corpus),
        "lines_dropped": corpus.dropped,
        "lines_held_out": held_out,
        "tokens": int(corpus.lengths.sum()),
    }


def movement_shares(movement: Movement, word_name: str) -> dict[str, Any]:
    """Return the shares of Σ|θ^l − θ| by layer (0 = embeddings) and by kind of module, and the word rows that moved."""
    sums = {
        parameter: float(movement.tensors[parameter.name].sum(dtype=torch.float64)) for parameter in movement.parameters
    }
    whole = sum(sums.values()) or 1.0
    layers: dict[str, float] = {}
    kinds: dict[str, float] = {}
    for parameter, moved in sums.items():
        layers[str(parameter.layer)] = layers.get(str(parameter.layer), 0.0) + moved / whole
        kinds[parameter.kind] = kinds.get(parameter.kind, 0.0) + moved / whole
    words = movement.tensors.get(word_name)
    rows = 0 if words is None else int((words != 0).any(dim=1).sum())
    return {"movement_by_layer": layers, "movement_by_kind": kinds, "word_rows_moved": rows}
