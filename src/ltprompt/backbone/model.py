"""The backbone: a masked language model and its tokenizer, with its parts found and tried out.

What was found is checked against the stock model's own logits when the backbone is built.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltprompt.backbone import loading
from ltprompt.backbone.changes import Changes, Overlay
from ltprompt.backbone.fingerprint import fingerprint
from ltprompt.backbone.parts import (
    all_parameters,
    eligible_parameters,
    find_decoder,
    find_encoder,
    find_layers,
    first_position,
    head_view,
    norm_parameters,
    position_embeddings,
)
from ltprompt.backbone.verification import Sample, Trial
from ltprompt.device import full_precision
from ltprompt.errors import InputError
from ltprompt.packing.attention import PACKED
from ltprompt.packing.last_layer import LastLayer
from ltprompt.packing.sequences import Sequences, encode_packed, encode_padded

_SHARING = threading.Lock()  # held while a backbone that is shared is looked for or loaded


class _Shared:
    """What scikit-learn's `clone` returns as it is, where it would copy it."""

    def __sklearn_clone__(self) -> Self:
        return self


class Backbone(_Shared):
    """A masked language model with its tokenizer, in fp32 masters, with its parts found and verified.

    model: the stock Hugging Face model, in evaluation mode, no parameter requiring a gradient.
    parameters: every parameter once, by name; a shared one under its name inside the encoder. encoder_names: of all but
        the head's own. word_name: of the word-embedding matrix.
    eligible: the parameters that may enter a ticket, in parameter order.
    overlay: what is on the weights beside θ, and whose turn with them it is.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str = "", revision: str | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.revision = revision
        self.base: nn.Module = find_encoder(model)
        self.word_embeddings: nn.Embedding = model.get_input_embeddings()
        self.decoder: nn.Linear = find_decoder(model)
        self.decoder_path = next(name for name, module in model.named_modules() if module is self.decoder)
        self.layers = find_layers(self.base)
        self.parameters = all_parameters(model, self.base)
        self.encoder_names = [f"{model.base_model_prefix}.{name}" for name, _ in self.base.named_parameters()]
        self.word_name = next(n for n, p in self.parameters.items() if p is self.word_embeddings.weight)
        self.eligible = eligible_parameters(model, self.base, self.layers, self.word_embeddings)
        self.norms = frozenset(norm_parameters(model))
        self.overlay = Overlay(self.parameters, self.word_name if self.tied else None)
        self._positions = position_embeddings(model, self.word_embeddings)
        self._fingerprint: str | None = None
        self._last_layer: LastLayer | None = None  # until it is tried, as is packing
        self._can_pack = False
        self._head = head_view(model, self.decoder_path)
        self.decoder.register_forward_hook(self._restore_output)
        self._verify()

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, device: torch.device | str = "cpu"
    ) -> Backbone:
        """Load a backbone by hub id, folder, or ``mini``; only safetensors are read and no remote code is run.

        Raises `BackboneError` where the checkpoint has no masked-LM head or cannot be used, `InputError` where it
        cannot be found.
        """
        model, tokenizer = loading.load(name, revision)
        return cls(model.to(device), tokenizer, name=loading.label(name), revision=revision)

    def __repr__(self) -> str:
        return _described(self)

    @contextmanager
    def applied(self, changes: Changes | None) -> Iterator[None]:
        """Have an adapter, or with None nothing, on the backbone within the block; other threads may share it there.

        What else is on is taken off first, once no thread reads it any more; the adapter stays on after the block.
        Raises `MismatchError` for another backbone's, `InputError` where this thread reads another one, or trains.
        """
        if changes is not None:
            changes.check(self)
        with self.overlay.shared(changes):
            yield

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Have the backbone at θ and alone within the block, to train in it; at its end the weights must be θ again.

        Raises `InputError` where this very thread has the backbone already.
        """
        with self.overlay.alone():
            yield

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.word_embeddings.weight.device

    @property
    def training(self) -> bool:
        """Whether dropout is on."""
        return bool(self.model.training)

    @property
    def width(self) -> int:
        """Width of a word embedding, and so of a prompt vector."""
        return self.word_embeddings.embedding_dim

    @property
    def hidden_size(self) -> int:
        """Width of a hidden state, which may be another than that of a word embedding."""
        return int(self.model.config.hidden_size)

    @property
    def classifier_dropout(self) -> float:
        """Dropout that the configuration has for a classifier's inputs, else for hidden states."""
        own = getattr(self.model.config, "classifier_dropout", None)
        return float(getattr(self.model.config, "hidden_dropout_prob", 0.0) if own is None else own)

    @property
    def init_std(self) -> float:
        """Deviation of the weights of a new layer."""
        return float(getattr(self.model.config, "initializer_range", 0.02))

    @property
    def tied(self) -> bool:
        """Whether the input and the output embeddings are one matrix."""
        return self.decoder.weight is self.word_embeddings.weight

    @property
    def untied_size(self) -> int:
        """Number of entries of all parameters with the output embeddings counted apart (facts.md's N)."""
        size = sum(parameter.numel() for parameter in self.parameters.values())
        return size + (self.decoder.weight.numel() if self.tied else 0)

    @cached_property
    def max_length(self) -> int:
        """Longest input in tokens, special tokens included, that the position embeddings allow."""
        limits = [self.tokenizer.model_max_length]
        if self._positions is not None:
            limits.append(self._positions.num_embeddings - first_position(self._positions))
        return int(min(limits))

    def check_length(self, max_length: int) -> None:
        """Raise `InputError` where inputs of `max_length` tokens would not fit the backbone."""
        if not 8 <= max_length <= self.max_length:
            raise InputError(f"`max_length` {max_length} is outside 8 to {self.max_length}, what this backbone reads")

    @property
    def packs(self) -> bool:
        """Whether sequences run without padding: on a CPU, where its arithmetic is what takes the time."""
        attention = self.model.config._attn_implementation  # which a user may choose anew
        return self._can_pack and self.device.type == "cpu" and attention == PACKED

    def encode(self, embeddings: Tensor, sequences: Sequences, read: Tensor | None = None) -> Tensor:
        """Run the encoder on the word embeddings of sequences that stand one after another.

        embeddings: [T, width] before position and type embeddings are added. read: numbers of rows [n], int64; what no
        one reads is not computed where that can be left out. Returns hidden states [n, hidden], all T without `read`.
        """
        if not self.packs:
            hidden = encode_padded(self.base, embeddings, sequences)
            return hidden if read is None else hidden[read]
        assert self._positions is not None
        last = self._last_layer if self._narrows(read) else None
        narrowed = nullcontext() if last is None or read is None else last.reading(read)
        with narrowed:
            hidden = encode_packed(self.base, embeddings, sequences, first_position(self._positions))
        return hidden if read is None or last is not None else hidden[read]

    def _narrows(self, read: Tensor | None) -> bool:
        """Whether rows may be left out: not of none, which no network in chunks takes, nor if layers may run again."""
        return read is not None and len(read) > 0 and not (self.training and _checkpoints(self.base))

    def head(self, hidden: Tensor) -> Tensor:
        """Apply the head's transform, all of the head but its output matrix, to [N, hidden]."""
        transformed: Tensor = self._head(inputs_embeds=hidden.unsqueeze(0)).logits
        return transformed.squeeze(0)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [N, V] over all words for hidden states [N, hidden] of chosen positions."""
        logits: Tensor = self.decoder(self.head(hidden))
        return logits

    def output_rows(self, words: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return rows [n, width] of the output matrix and its bias [n] for word ids [n], as pretrained."""
        rows = self.decoder.weight[words]
        if self.overlay.kept_output is not None:
            ids, originals = self.overlay.kept_output
            place = torch.searchsorted(ids, words).clamp_max(len(ids) - 1)
            rows = torch.where((ids[place] == words)[:, None], originals[place], rows)
        return rows, None if self.decoder.bias is None else self.decoder.bias[words]

    def word_logits(self, hidden: Tensor, rows: Tensor, bias: Tensor | None) -> Tensor:
        """Return logits [N, n] of a few words, in the weights' precision: their rounding decides labels."""
        with full_precision(hidden.device):
            return functional.linear(self.head(hidden.to(rows.dtype)), rows, bias)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fp32 weights, the settings that change behaviour and the tokenizer; computed once, at θ."""
        if self._fingerprint is None:
            with self.applied(None):
                self._fingerprint = fingerprint(self.model, self.tokenizer)
        return self._fingerprint

    def _restore_output(self, module: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor | None:
        if self.overlay.kept_output is None:
            return None
        ids, originals = self.overlay.kept_output
        bias = None if self.decoder.bias is None else self.decoder.bias[ids]
        return logits.index_copy(-1, ids, functional.linear(inputs[0], originals, bias).to(logits.dtype))

    @torch.no_grad()
    def _verify(self) -> None:
        """Refuse a model whose logits, computed from the parts found here, are not the stock forward's."""
        sample = Sample.of(self.model, self.tokenizer.pad_token_id)
        hidden = encode_padded(self.base, sample.embeddings, sample.sequences)
        few = self.word_logits(hidden, *self.output_rows(torch.arange(3, device=self.device)))
        sample.check(self.logits(hidden), few, self.name or "the model", type(self.model).__name__)
        trial = Trial(self.base, self._positions, sample, hidden)
        self._can_pack = trial.packs()
        self._last_layer = trial.narrows(self.layers[-1]) if self._can_pack else None


def shared_backbone(name: str | Path, *, revision: str | None = None, device: torch.device | str = "cpu") -> Backbone:
    """Return a backbone that is loaded once a process, as `Backbone.from_pretrained` does, and shared by who asks.

    The last two are held. A folder whose files have changed is loaded anew.
    """
    with _SHARING:
        return _load_shared(loading.label(name), revision, str(device), _stamps(Path(name)))


@lru_cache(maxsize=2)
def _load_shared(name: str, revision: str | None, device: str, stamps: tuple[tuple[str, int, int], ...]) -> Backbone:
    return Backbone.from_pretrained(name, revision=revision, device=device)


def _stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, time and size of a folder's files; nothing where there is no folder."""
    if not folder.is_dir():
        return ()
    found = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)


def _checkpoints(base: nn.Module) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in base.modules())


def _described(backbone: Backbone) -> str:
    size = sum(parameter.numel() for parameter in backbone.parameters.values())
    shown = f"{size / 1e6:.1f} M" if size >= 1e5 else f"{size:,}"
    packed = "packed" if backbone.packs else "padded"
    return f"Backbone({backbone.name or 'unnamed'}, {shown} parameters, {backbone.device}, {packed})"
