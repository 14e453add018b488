"""Toy classifiers: rows of a natural-language-inference task, tickets of random scores, and adapters from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from helpers.toys import toy_backbone
from ltprompt.adapter import Adapter
from ltprompt.backbone.model import Backbone
from ltprompt.classifier import PromptClassifier
from ltprompt.device import Compute
from ltprompt.tickets.scores import Scores
from ltprompt.tickets.ticket import Ticket

LABELS = ("entailment", "neutral", "contradiction")
TRAIN = [
    {"premise": "the cat sat on a mat", "hypothesis": "the cat sat", "label": "entailment"},
    {"premise": "a mat", "hypothesis": "good", "label": "neutral"},
    {"premise": "the cat sat on the cat", "hypothesis": "no cat sat on a good cat.", "label": "contradiction"},
    {"premise": "on a good mat the bad cat sat", "hypothesis": "a bad cat", "label": "entailment"},
    {"premise": "cat", "hypothesis": "the mat is bad", "label": "neutral"},
    {"premise": "a bad mat", "hypothesis": "good mat!", "label": "contradiction"},
]
# Words that no row of TRAIN has, and lengths between theirs.
OTHER = [
    {"premise": "que the dog ran", "hypothesis": "talvez", "label": "neutral"},
    {"premise": "right", "hypothesis": "wrong on a mat, tion", "label": "contradiction"},
    {"premise": "the swer of a cat is on the mat", "hypothesis": "maybe the cat", "label": "entailment"},
]
CPU = Compute(torch.device("cpu"))
# What a classifier trains: name -> method and the strategy of its ticket.
TRAINED = {
    "prompt-only": ("prompt-only", None),
    "ltp-decoupled": ("ltp", "decoupled"),
    "ltp-tied": ("ltp", "tied"),
    "sp": ("sp", None),
    "dp": ("dp", None),
    "mp": ("mp", None),
    "bitfit": ("bitfit", None),
    "lora": ("lora", None),
    "super-tuning": ("super-tuning", None),
}
SIZES = {"lora": 2, "super-tuning": 0.5}


def toy_ticket(backbone: Backbone, ratio: float = 0.5, strategy: str = "decoupled", seed: int = 0) -> Ticket:
    """A ticket of random scores: entries in every tensor, embeddings among them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {p.name: torch.rand(p.shape, generator=generator) for p in backbone.eligible}
    return Scores(backbone.eligible, tensors, strategy, backbone.fingerprint).select(ratio)


def toy_classifier(backbone: Backbone, kind: str = "ltp-decoupled", seed: int = 0, **given: Any) -> PromptClassifier:
    """A classifier of one of the TRAINED kinds, or of a method, that has moved far from where it started."""
    method, strategy = TRAINED.get(kind, (kind, None))
    ticket = None if strategy is None else toy_ticket(backbone, strategy=strategy, seed=seed)
    settings = {"lr": 0.02, "epochs": 2, "batch_size": 4, "max_length": 48, "seed": seed, "size": SIZES.get(kind)}
    settings |= given
    classifier = PromptClassifier(backbone, "xnli", method, ticket, compute=CPU, **settings)
    classifier.fit(TRAIN)
    return classifier


def toy_adapter(backbone: Backbone, kind: str = "ltp-decoupled", seed: int = 0, **given: Any) -> Adapter:
    """The adapter of a `toy_classifier`."""
    adapter = toy_classifier(backbone, kind, seed, **given).adapter
    assert adapter is not None
    return adapter


def theta(kind: str, **options: Any) -> dict[str, torch.Tensor]:
    """Pretrained weights of a toy by name, from a model of their own."""
    return {name: tensor.clone() for name, tensor in toy_backbone(kind, **options).model.state_dict().items()}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bit patterns of an fp32 tensor: equal bits tell 0 from -0."""
    return tensor.detach().contiguous().view(torch.int32)


def assert_same_bits(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Assert that two state dicts are bit for bit the same."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(bits(found[name]), bits(tensor)), name


def write_table(path: Path, rows: list[dict[str, str]], columns: tuple[str, ...] = ()) -> Path:
    """Write rows as TSV."""
    names = columns or tuple(rows[0])
    lines = ["\t".join(names), *("\t".join(row[name] for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
