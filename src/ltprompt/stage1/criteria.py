"""Rivals of the movement in stage 1: scores by which as many entries are chosen in another way.

They tell whether a winning ticket wins by what it holds: its rivals have the same eligible set and the same size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ltprompt.backbone.model import Backbone
from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.device import Compute, resolve
from ltprompt.errors import InputError, MismatchError, TrainingError
from ltprompt.settings import ScoresSettings
from ltprompt.stage1.corpus import TokenizedCorpus
from ltprompt.stage1.masking import Lines, Masking
from ltprompt.stage1.training import masked_gradient
from ltprompt.stage1.weights import Trainee
from ltprompt.tickets.scores import Scores, check_criterion

LINES = 2048
BATCH_SIZE = 8  # lines
DRAW_SEED = 0  # of the lines drawn and of their masks; a seed of the user's own is for `random` alone


def find_criterion(
    scores: Scores,
    criterion: str,
    *,
    seed: int | None = None,
    backbone: Backbone | None = None,
    texts: Sequence[str] | None = None,
    lines: int | None = None,
    batch_size: int = BATCH_SIZE,
    max_length: int | None = None,
    compute: Compute | None = None,
    on_lines: Callable[[int], None] | None = None,
) -> Scores:
    """Return scores by another criterion, with the eligible set, strategy and fingerprint of `scores`.

    criterion: ``delta`` returns `scores` themselves; ``random`` draws, see `random_scores`; ``magnitude`` is |θ|;
        ``gradient`` and ``fisher`` are moments of the gradient at θ, see `gradient_scores`.
    seed: of ``random`` [0]. backbone: the one of the scores, for the three that read it; it is unchanged afterwards.
    texts: lines, as `corpus.read_lines` gives them, for the two that take gradients. lines: how many of them are drawn
        [2,048, or all where there are fewer]. batch_size: lines a gradient. max_length: tokens a line [256, or what the
        backbone can read]. on_lines: called with the number of lines done, or left out as
        without a token.

    Raises `InputError` for an unknown criterion and for what is missing, unusable or of no use to the criterion,
    `MismatchError` for another backbone, `TrainingError` where the loss is not finite.
    """
    check_criterion(criterion, seed=seed, backbone=backbone, texts=texts, lines=lines)
    if criterion == "delta":
        return scores
    if criterion == "random":
        return random_scores(scores.parameters, scores.strategy, scores.fingerprint, seed or 0)
    if backbone is None:
        raise InputError(f"criterion {criterion!r} needs the backbone that the scores were found with; give it")
    _check_backbone(scores, backbone)
    if criterion == "magnitude":
        with backbone.applied(None):
            return magnitude_scores(scores, backbone)
    compute = compute or resolve(str(backbone.device))
    if max_length is None:
        max_length = min(ScoresSettings().max_length, backbone.max_length)
    corpus = _drawn(backbone, texts or (), LINES if lines is None else lines, max_length)
    if on_lines is not None:
        on_lines(corpus.dropped)
    with backbone.reserved():
        return gradient_scores(scores, criterion, backbone, corpus, batch_size, compute, on_lines)


def random_scores(parameters: tuple[EligibleParameter, ...], strategy: str, fingerprint: str, seed: int) -> Scores:
    """Return scores of an eligible set drawn uniformly from [0, 1): no stage 1 is needed for them.

    Parameter i draws its entries, in flat order and as fp32, from PCG64 seeded by (seed, i): the same on every machine.
    Raises `InputError` for a negative seed.
    """
    if seed < 0:
        raise InputError(f"the seed {seed} is negative; give 0 or more")
    tensors = {}
    for order, parameter in enumerate(parameters):
        generator = np.random.Generator(np.random.PCG64([seed, order]))
        tensors[parameter.name] = torch.from_numpy(generator.random(parameter.shape, dtype=np.float32))
    return Scores(parameters, tensors, strategy, fingerprint, criterion="random", seed=seed)


def magnitude_scores(scores: Scores, backbone: Backbone) -> Scores:
    """Return |θ|, the classical criterion of pruning (Han et al., NeurIPS 2015)."""
    tensors = {
        parameter.name: backbone.parameters[parameter.name].detach().abs().to("cpu", torch.float32)
        for parameter in scores.parameters
    }
    return _like(scores, tensors, "magnitude")


def gradient_scores(
    scores: Scores,
    criterion: str,
    backbone: Backbone,
    corpus: Lines,
    batch_size: int,
    compute: Compute,
    on_lines: Callable[[int], None] | None = None,
) -> Scores:
    """Return a moment of the gradient of the masked-LM loss at θ, over batches of `batch_size` lines.

    The loss of a batch is what a step of stage 1 minimises, the mean over its chosen tokens without the L1 term; masks,
    frozen parts and the decoupling of the embeddings are those of stage 1 with the scores' strategy. Dropout is off and
    nothing moves. Rows of words that never occur score 0.

    ``gradient``: |mean over the batches of the gradient|: how steeply the loss of the text falls along each entry. It
    is SNIP's saliency (Lee, Ajanthan and Torr, ICLR 2019) without its factor |θ|: what is chosen is trained, not kept
    while the rest is removed. ``fisher``: mean over the batches of the squared gradient, the diagonal of the empirical
    Fisher information (Sung, Nair and Raffel, NeurIPS 2021). With batches of one line it is that of the lines; a larger
    batch averages its lines' gradients before they are squared, so that their variance counts less, about by its size,
    and their mean as before; it is as much faster.

    Raises `InputError` for an unusable batch size, `TrainingError` where the loss is not finite.
    """
    if batch_size < 1:
        raise InputError(f"`batch_size` {batch_size} is not a positive number; leave it out for {BATCH_SIZE}")
    trainee = Trainee(backbone, scores.strategy, lr=0.0)
    masking = Masking.of(backbone)
    master = backbone.word_embeddings.weight.dtype
    sums = {p.name: torch.zeros(p.shape, dtype=master, device=backbone.device) for p in trainee.parameters}
    batches = math.ceil(len(corpus) / batch_size)
    with _differentiable(trainee.dense.values()):
        for number in range(batches):
            batch = [corpus[i] for i in range(number * batch_size, min((number + 1) * batch_size, len(corpus)))]
            inputs, targets = masking.apply(batch, np.random.default_rng([DRAW_SEED, 1, number]))
            loss = masked_gradient(trainee, inputs, targets, compute)
            if not math.isfinite(loss):
                raise TrainingError(f"the loss is {loss}, so it has no gradient; try `dtype` fp32")
            _add(sums, trainee, np.unique(np.concatenate(inputs)), squared=criterion == "fisher")
            if on_lines is not None:
                on_lines(len(batch))
    tensors = {name: value.div_(batches).abs_().to("cpu", torch.float32) for name, value in sums.items()}
    return _like(scores, tensors, criterion)


def _drawn(backbone: Backbone, texts: Sequence[str], lines: int, max_length: int) -> TokenizedCorpus:
    """Return `lines` of the texts, drawn without replacement and in the order of the draw, as token ids."""
    if lines < 1:
        raise InputError(f"`lines` {lines} is not a positive number; leave it out for {LINES:,}")
    backbone.check_length(max_length)
    order = np.random.default_rng([DRAW_SEED, 2]).permutation(len(texts))[:lines]
    return TokenizedCorpus.build([texts[i] for i in order], backbone.tokenizer, max_length=max_length)


@torch.no_grad()
def _add(sums: dict[str, Tensor], trainee: Trainee, words: np.ndarray, *, squared: bool) -> None:
    """Add the batch's gradient, or its square, to the sums; `words`, sorted, are those that the batch holds."""
    for name, parameter in trainee.dense.items():
        assert parameter.grad is not None
        # squared in place: the next batch has a gradient of its own
        sums[name] += parameter.grad.square_() if squared else parameter.grad
    if trainee.rows:
        assert trainee.rows.table.grad is not None
        places = torch.from_numpy(words).to(trainee.backbone.device)
        rows = trainee.rows.table.grad[trainee.rows.slots[places]]
        sums[trainee.backbone.word_name].index_add_(0, places, rows.square_() if squared else rows)


@contextmanager
def _differentiable(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let parameters have gradients within the block."""
    parameters = list(parameters)
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None


def _check_backbone(scores: Scores, backbone: Backbone) -> None:
    if backbone.fingerprint != scores.fingerprint:
        raise MismatchError(
            f"the scores are of the backbone {scores.fingerprint[:12]}, this backbone is {backbone.fingerprint[:12]}; "
            "give the `backbone` that they were found with"
        )


def _like(scores: Scores, tensors: dict[str, Tensor], criterion: str) -> Scores:
    return Scores(scores.parameters, tensors, scores.strategy, scores.fingerprint, criterion=criterion)
