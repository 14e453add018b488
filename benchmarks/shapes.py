"""The backbones that are measured: how large, and how they are laid out on disk for every process to load."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast, XLMRobertaConfig

from ltprompt.adapter import Adapter
from ltprompt.backbone.changes import Change
from ltprompt.backbone.loading import MINI
from ltprompt.backbone.model import Backbone
from ltprompt.backbone.tokens import SpecialTokens, special_ids
from ltprompt.errors import InputError, choices
from ltprompt.files.artifacts import canonical_json, read_json, sha256, write_json
from ltprompt.tickets.scores import Scores
from ltprompt.tickets.ticket import Ticket, popcount

SEED = 1
RATIO = 0.2
EMBEDDED = 0.39  # of the benchmark ticket's entries, in the embeddings: what a real ticket of 20 % has
MODEL, STILL, TICKET, SCORES, ADAPTER, IDS = "model", "still", "ticket.safetensors", "scores", "adapter", "ids.json"
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


@dataclass(frozen=True)
class Shape:
    """How large a backbone is, and how much of it a run measures.

    vocabulary to positions: of a stock XLM-R with random weights, or of the embedded backbone, which is used as it is.
    max_length: tokens that lengths are cut at and to which the published loop pads. batch: examples a step. examples:
    evaluated a language; its time is scaled to 500. series: examples of the evaluations that show linearity. lines: of
    the stage 1 that do.
    """

    name: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    positions: int
    embedded: bool = False
    max_length: int = 256
    batch: int = 32
    examples: int = 8
    series: tuple[int, ...] = (1_000, 5_000, 20_000, 75_000)
    lines: tuple[int, ...] = (256, 512, 1_024, 2_048, 4_096)


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("xlmr", 250_002, 768, 12, 12, 3072, 514),
        Shape("mini", 36_000, 384, 12, 12, 1536, 512, embedded=True, examples=128),
        Shape("toy", 600, 64, 2, 2, 96, 66, max_length=48, batch=8, examples=4, series=(15, 60, 240), lines=(16, 32)),
    )
}


def folder_name(shape: Shape) -> str:
    """Return the name of a shape's folder: another one as soon as anything of the shape is another."""
    return f"{shape.name}-{sha256(canonical_json(asdict(shape)))[:8]}"


def find_shape(name: str) -> Shape:
    """Return a shape by name. Raises `InputError` for an unknown one."""
    if name not in SHAPES:
        raise InputError(f"unknown shape {name!r}: {choices(name, SHAPES)}")
    return SHAPES[name]


@dataclass(frozen=True)
class Ids:
    """Token ids of a backbone: what stands around a text, mask, padding, all special ones; and the number of all."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    mask: int
    pad: int
    special: tuple[int, ...]
    vocabulary: int


@dataclass(frozen=True)
class Place:
    """A folder with everything of one shape that `prepare` made."""

    folder: Path
    shape: Shape

    def model_folder(self, *, dropout: bool) -> Path:
        """Return the backbone's folder; without dropout its configuration alone is another."""
        return self.folder / (MODEL if dropout else STILL)

    def backbone(self, *, dropout: bool) -> Backbone:
        """Load the backbone as users of ltprompt do."""
        return Backbone.from_pretrained(self.model_folder(dropout=dropout))

    def stock(self, *, dropout: bool) -> Any:
        """Load the backbone as users of transformers do."""
        return AutoModelForMaskedLM.from_pretrained(self.model_folder(dropout=dropout), dtype=torch.float32)

    def ids(self) -> Ids:
        """Return the token ids."""
        found = read_json(self.folder / IDS, "what `prepare` wrote")
        lists = {key: tuple(found[key]) for key in ("prefix", "suffix", "special")}
        return Ids(**lists, mask=found["mask"], pad=found["pad"], vocabulary=found["vocabulary"])

    def ticket(self) -> Ticket:
        """Return the benchmark ticket: 20 % of the eligible entries, 39 % of them in the embeddings."""
        return Ticket.load(self.folder / TICKET)

    def scores(self) -> Scores:
        """Return random scores of every eligible entry, mapped from their file."""
        return Scores.load(self.folder / SCORES)

    @property
    def adapter_folder(self) -> Path:
        """Folder of the adapter that changes the benchmark ticket's entries in the layers."""
        return self.folder / ADAPTER


def prepare(place: Place) -> None:
    """Make the folder unless it is whole: the backbone with and without dropout, ids, ticket, scores and adapter."""
    if (place.folder / IDS).exists():
        return
    _save_backbone(place)
    backbone = place.backbone(dropout=True)
    ticket = make_ticket(backbone)
    ticket.save(place.folder / TICKET)
    _make_scores(backbone).save(place.folder / SCORES, {})
    make_adapter(backbone, ticket).save(place.adapter_folder)
    _save_ids(place, backbone)  # last: it says that the folder is whole


def _save_backbone(place: Place) -> None:
    shape, folder, still = place.shape, place.model_folder(dropout=True), place.model_folder(dropout=False)
    if shape.embedded:
        embedded = Backbone.from_pretrained(MINI)
        model, tokenizer = embedded.model, embedded.tokenizer
    else:
        model, tokenizer = _random_model(shape), synthetic_tokenizer(shape.vocabulary)
    for path in (folder, still):
        tokenizer.save_pretrained(path)
    model.save_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    config.update(dict.fromkeys(DROPOUTS, 0.0))
    config.save_pretrained(still)
    _link(folder / "model.safetensors", still / "model.safetensors")


def _random_model(shape: Shape) -> Any:
    config = XLMRobertaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.positions,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        dtype=torch.float32,
    )
    torch.manual_seed(SEED)
    return AutoModelForMaskedLM.from_config(config)


def synthetic_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of made-up words with XLM-R's special ids: four first and the mask last."""
    words = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{number}" for number in range(4, size - 1)), "<mask>"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in (*words[:4], "<mask>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _save_ids(place: Place, backbone: Backbone) -> None:
    special = SpecialTokens.of(backbone.tokenizer)
    write_json(
        place.folder / IDS,
        {
            "prefix": special.prefix,
            "suffix": special.suffix,
            "mask": special.mask,
            "pad": special.pad,
            "special": sorted(special_ids(backbone.tokenizer)),
            "vocabulary": len(backbone.tokenizer),
        },
    )


def make_ticket(backbone: Backbone) -> Ticket:
    """Return a ticket of entries at random, as dense in the embeddings and in the layers as the benchmark ticket is."""
    generator = np.random.default_rng([SEED, 1])
    sizes = {part: sum(p.numel for p in backbone.eligible if (p.layer == 0) is part) for part in (True, False)}
    density = {
        part: share * RATIO * sum(sizes.values()) / sizes[part]
        for part, share in ((True, EMBEDDED), (False, 1 - EMBEDDED))
    }
    bitmaps = {}
    for parameter in backbone.eligible:
        chosen = generator.random(parameter.numel, np.float32) < density[parameter.layer == 0]
        if chosen.any():
            bitmaps[parameter.name] = np.packbits(chosen, bitorder="little")
    active = sum(map(popcount, bitmaps.values())) / sum(sizes.values())
    return Ticket(
        parameters=backbone.eligible,
        bitmaps=bitmaps,
        tied=False,
        fingerprint=backbone.fingerprint,
        strategy="decoupled",
        ratio=active,
        scope="global",
        layers="all",
        zero_entries=0,
    )


def _make_scores(backbone: Backbone) -> Scores:
    """Return scores that are normal and so almost without ties, as measured movements are."""
    generator = torch.Generator().manual_seed(SEED)
    tensors = {p.name: torch.randn(p.shape, generator=generator).abs_() for p in backbone.eligible}
    return Scores(backbone.eligible, tensors, "decoupled", backbone.fingerprint)


def make_adapter(backbone: Backbone, ticket: Ticket) -> Adapter:
    """Return an adapter that changes every entry of a ticket but those of word rows, of which few are ever trained."""
    changes = []
    for name in ticket.bitmaps:
        if name != backbone.word_name:
            index = ticket.indices(name)
            values = backbone.parameters[name].detach().reshape(-1)[index] + 1e-3
            changes.append(Change(name, index.to(torch.int32), values))
    return Adapter(
        changes=tuple(changes),
        shapes={change.name: tuple(backbone.parameters[change.name].shape) for change in changes},
        folded=torch.zeros(4, backbone.width),
        moves_output=False,
        fingerprint=backbone.fingerprint,
        backbone=backbone.name,
        revision=None,
        settings={},
    )
