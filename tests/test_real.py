"""Positive controls on real data and the real small backbone: the method learns what there is to learn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ltprompt import Backbone, PromptClassifier, Task, Ticket, TrainSettings, load_task
from ltprompt.stage1.corpus import read_lines
from ltprompt.tasks import Rows, read_rows

pytestmark = pytest.mark.real

TRAINED, HELD_OUT = 1500, 600
STANDARD_ERROR = float(np.sqrt(1 / 3 * 2 / 3 / HELD_OUT))
# The rates that suit the small backbone; the paper's 2e-5 is for a larger one.
SUITABLE = {"lr": 2e-4, "prompt_lr": 1e-3, "schedule": "linear"}


@pytest.fixture(scope="module", autouse=True)
def _all_cores() -> Iterator[None]:
    """Real models gain from every core, as toys do not."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("xnli")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.from_pretrained("mini")


def shuffled(rows: Rows) -> Rows:
    labels = np.random.default_rng(0).permutation(np.array(rows.labels))
    return Rows(rows.texts, tuple(int(label) for label in labels), rows.name)


def accuracy(classifier: PromptClassifier, rows: Rows) -> float:
    return classifier.evaluate({"rows": rows}).by_language["rows"].accuracy


@pytest.mark.parametrize("method", ["ltp", "sp"])
def test_fits_96_examples(method: str, backbone: Backbone, task: Task, shared: Path) -> None:
    rows = read_rows(shared / "data" / "xnli" / "fewshot" / "en" / "train.32.jsonl", task)
    settings = TrainSettings(epochs=16, batch_size=16, lr=5e-4, prompt_lr=1e-3, schedule="linear", max_length=128)
    ticket = Ticket.load("mini-20") if method == "ltp" else None
    classifier = PromptClassifier(backbone, task, method, ticket, settings=settings)
    classifier.fit(rows, rows)  # the rows choose the epoch too: what counts is whether the method can fit them
    assert len(rows) == 96
    assert accuracy(classifier, rows) >= 0.95


def test_learns_inference_from_1500_pairs_and_nothing_from_shuffled_labels(
    backbone: Backbone, task: Task, shared: Path
) -> None:
    rows = read_rows(shared / "data" / "xnli" / "dev" / "en.tsv", task)
    train, held = rows.select(range(TRAINED)), rows.select(range(len(rows) - HELD_OUT, len(rows)))
    settings = TrainSettings(epochs=4, max_length=128, seed=1, **SUITABLE)
    found = {}
    for name, part in (("true", train), ("shuffled", shuffled(train))):
        classifier = PromptClassifier(backbone, task, "ltp", Ticket.load("mini-75"), settings=settings)
        classifier.fit(part)
        found[name] = accuracy(classifier, held)
    print(f"held-out accuracy: {found}")
    majority = max(held.labels.count(label) for label in set(held.labels)) / len(held)
    assert found["true"] > majority + 3 * STANDARD_ERROR
    assert found["true"] > found["shuffled"] + 3 * np.sqrt(2) * STANDARD_ERROR


def test_embedded_backbone_is_as_good_as_the_original(shared: Path) -> None:
    """Its masked-LM loss on English text stays within 0.02 nats of the weights that it was made from."""
    from ltprompt.device import resolve
    from ltprompt.stage1.corpus import TokenizedCorpus
    from ltprompt.stage1.masking import Masking
    from ltprompt.stage1.training import held_out_loss
    from ltprompt.stage1.weights import Trainee

    original = Backbone.from_pretrained(shared / "models" / "mini")
    lines = read_lines([shared / "data" / "wiki" / "en.txt"])[:2000]
    losses = []
    for one in (Backbone.from_pretrained("mini"), original):
        corpus = TokenizedCorpus.build(lines, one.tokenizer, max_length=128)
        trainee = Trainee(one, "frozen-embeddings", lr=1e-5)
        held = np.arange(len(corpus))
        losses.append(held_out_loss(trainee, corpus, held, Masking.of(one), seed=0, compute=resolve("cpu", "fp32")))
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
