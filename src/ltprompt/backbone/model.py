"""The backbone: a masked language model and its tokenizer; the only file that knows model architectures.

What it knows, it finds by structure: the layers are the largest list of like modules in the encoder, a normalisation
layer is a leaf module whose parameters are all vectors, the head is whatever the stock forward runs after the encoder.
What was found is checked against the stock model's own logits when the backbone is built.
"""

from __future__ import annotations

import copy
import hashlib
import json
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer
from transformers.initialization import no_init_weights
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging as transformers_logging

from ltprompt.backbone.int8 import load_small
from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.device import full_precision
from ltprompt.errors import BackboneError, InputError
from ltprompt.files.artifacts import canonical_json, update_digest
from ltprompt.packing.attention import PACKED
from ltprompt.packing.dropout import FastDropout
from ltprompt.packing.last_layer import forget_read_rows, keep_read_rows, module_after_attention
from ltprompt.packing.sequences import Sequences, encode_packed, encode_padded

MINI = "mini"
SMALL_WEIGHTS = "model.int8.safetensors"
# Settings that name a model, or say how it was first made or how to run it, but do not change what it computes.
INERT_SETTINGS = (
    "_name_or_path",
    "architectures",
    "dtype",
    "initializer_range",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)
TOLERANCE = 1e-4


class Backbone:
    """A masked language model with its tokenizer, in fp32 masters, with its parts found and verified.

    model: the stock Hugging Face model, in evaluation mode, no parameter requiring a gradient.
    eligible: the parameters that may enter a ticket, in parameter order.
    kept_output: rows of the output matrix that an adapter's input side has overwritten in a tied matrix, as
        (sorted row numbers, the original rows); logits are computed from the original rows.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str = "", revision: str | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.revision = revision
        self.base: nn.Module = _encoder(model)
        self.word_embeddings: nn.Embedding = model.get_input_embeddings()
        self.decoder: nn.Linear = _decoder(model)
        self.decoder_path = next(name for name, module in model.named_modules() if module is self.decoder)
        self.layers = _layers(self.base)
        self.eligible = _eligible(model, self.base, self.layers, self.word_embeddings)
        self.norms = frozenset(_norm_parameters(model))
        self.kept_output: tuple[Tensor, Tensor] | None = None
        self.applied: object | None = None
        self._positions = _position_embeddings(model, self.word_embeddings)
        self._can_pack = self._can_narrow = False  # until it is tried
        self._head = _head_view(model, self.decoder_path)
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
        place = _place(name)
        model = _load_model(place, revision)
        tokenizer = load_tokenizer(name, revision)
        _check_rows(tokenizer, model, str(name))
        folder = Path(place).is_dir() and str(name) != MINI
        label = str(Path(place).resolve()) if folder else str(name)
        return cls(model.to(device), tokenizer, name=label, revision=revision)

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
    def hidden(self) -> int:
        """Width of a hidden state, which may be another than that of a word embedding."""
        return int(self.model.config.hidden_size)

    @property
    def classifier_dropout(self) -> float:
        """Dropout that the configuration has for a classifier's inputs, else for hidden states."""
        own = getattr(self.model.config, "classifier_dropout", None)
        return float(getattr(self.model.config, "hidden_dropout_prob", 0.0) if own is None else own)

    @property
    def spread(self) -> float:
        """Deviation of the weights of a new layer."""
        return float(getattr(self.model.config, "initializer_range", 0.02))

    @property
    def encoder_names(self) -> list[str]:
        """Names of the encoder's parameters: all but the head's own."""
        inside = {id(parameter) for parameter in self.base.parameters()}
        return [name for name, parameter in self.parameters.items() if id(parameter) in inside]

    @property
    def word_name(self) -> str:
        """Name of the word-embedding matrix in the state dict."""
        return next(n for n, p in self.parameters.items() if p is self.word_embeddings.weight)

    @property
    def tied(self) -> bool:
        """Whether the input and the output embeddings are one matrix."""
        return self.decoder.weight is self.word_embeddings.weight

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter once, by name; a shared one under its name inside the encoder."""
        prefix = self.model.base_model_prefix
        inside = {f"{prefix}.{name}": parameter for name, parameter in self.base.named_parameters()}
        seen = {id(parameter) for parameter in inside.values()}
        outside = {name: parameter for name, parameter in self.model.named_parameters() if id(parameter) not in seen}
        return inside | outside

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
            limits.append(self._positions.num_embeddings - _first_position(self._positions))
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
        # A feed-forward network that runs in chunks takes no empty batch.
        first, narrowed = _first_position(self._positions), self._can_narrow and read is not None and len(read) > 0
        with FastDropout() if self.training else nullcontext():
            hidden = encode_packed(self.base, embeddings, sequences, first, read if narrowed else None)
        return hidden if read is None or narrowed else hidden[read]

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
        if self.kept_output is not None:
            ids, originals = self.kept_output
            place = torch.searchsorted(ids, words).clamp_max(len(ids) - 1)
            rows = torch.where((ids[place] == words)[:, None], originals[place], rows)
        return rows, None if self.decoder.bias is None else self.decoder.bias[words]

    def word_logits(self, hidden: Tensor, rows: Tensor, bias: Tensor | None) -> Tensor:
        """Return logits [N, n] of a few words, in the weights' precision: their rounding decides labels."""
        with full_precision(hidden.device):
            return functional.linear(self.head(hidden.to(rows.dtype)), rows, bias)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the fp32 weights, the settings that change behaviour and the tokenizer; computed once."""
        if self.applied is not None:
            raise RuntimeError("the fingerprint must be taken before an adapter is applied")
        digest = hashlib.sha256()
        for name, tensor in sorted(_unique_state(self.model).items()):
            update_digest(digest, name, tensor.detach().to("cpu", torch.float32).contiguous())
        digest.update(canonical_json(_behaviour(self.model.config)).encode())
        digest.update(canonical_json(_tokenizer_state(self.tokenizer)).encode())
        return digest.hexdigest()

    def _restore_output(self, module: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor | None:
        if self.kept_output is None:
            return None
        ids, originals = self.kept_output
        bias = None if self.decoder.bias is None else self.decoder.bias[ids]
        return logits.index_copy(-1, ids, functional.linear(inputs[0], originals, bias).to(logits.dtype))

    @torch.no_grad()
    def _verify(self) -> None:
        """Refuse a model whose logits, computed from the parts found here, are not the stock forward's."""
        pad = self.tokenizer.pad_token_id
        low = min(5, self.word_embeddings.num_embeddings - 4)
        ids = torch.tensor([[low, low + 1, low + 2, low + 3], [low + 2, low, pad, pad]], device=self.device)
        attention = (ids != pad).long()
        stock = self.model(input_ids=ids, attention_mask=attention).logits
        if not stock.isfinite().all():
            raise BackboneError(
                f"{self.name or 'the model'} has weights that are not finite; copy the checkpoint again"
            )
        real, sequences = attention.bool(), Sequences((4, 2))
        embeddings = self.word_embeddings(ids[real])
        hidden = encode_padded(self.base, embeddings, sequences)
        ours, words = self.logits(hidden), torch.arange(3, device=self.device)
        few = self.word_logits(hidden, *self.output_rows(words))
        for found, expected in ((ours, stock[real]), (few, stock[real][:, :3])):
            if not _alike(found, expected):
                raise BackboneError(
                    f"{type(self.model).__name__} computes its logits in a way that ltprompt does not know; "
                    "use an XLM-R or BERT-like masked language model"
                )
        self._can_pack = self._packs_alike(embeddings, sequences, hidden)
        self._can_narrow = self._can_pack and self._narrows_alike(embeddings, sequences, hidden)

    def _packs_alike(self, embeddings: Tensor, sequences: Sequences, expected: Tensor) -> bool:
        """Let the encoder attend within packed sequences, if it then gives the same; else it is left as it was."""
        config: Any = self.base.config
        if self._positions is None or self.device.type != "cpu" or config._attn_implementation != "sdpa":
            return False
        config._attn_implementation = PACKED
        alike = self._encodes_alike(embeddings, sequences, None, expected)
        if not alike:
            config._attn_implementation = "sdpa"
        return alike

    def _narrows_alike(self, embeddings: Tensor, sequences: Sequences, expected: Tensor) -> bool:
        """Let the last layer leave out rows that are not read, if it then gives the same; else it is left as it was.

        This thread must have attended last in this backbone's last layer.
        """
        follower = module_after_attention(self.layers[-1])
        if follower is None:
            return False
        hooks = [
            self.layers[-1].register_forward_pre_hook(forget_read_rows),
            follower.register_forward_pre_hook(keep_read_rows),
        ]
        # Neither one row nor all: a part left whole would then fit those that are not, and no error would tell.
        read = torch.tensor([4, 1, 2], device=self.device)
        alike = self._encodes_alike(embeddings, sequences, read, expected[read])
        if not alike:
            for hook in hooks:
                hook.remove()
        return alike

    def _encodes_alike(self, embeddings: Tensor, sequences: Sequences, read: Tensor | None, expected: Tensor) -> bool:
        """Whether packed sequences give what is expected, in evaluation and in training, which attends in another way.

        Padded ones must do so still. An encoder of another build may refuse any of them in ways of its own.
        """
        assert self._positions is not None
        first = _first_position(self._positions)
        try:
            found = [encode_packed(self.base, embeddings, sequences, first, read)]
            with torch.enable_grad():
                given = embeddings.detach().requires_grad_()
                found.append(encode_packed(self.base, given, sequences, first, read).detach())
            padded = encode_padded(self.base, embeddings, sequences)
        except (TypeError, ValueError, RuntimeError, IndexError):
            return False
        return all(_alike(hidden, expected) for hidden in [*found, padded if read is None else padded[read]])


def _alike(found: Tensor, expected: Tensor) -> bool:
    scale = TOLERANCE * expected.abs().max().clamp_min(1)
    return found.shape == expected.shape and bool((found - expected).abs().max() <= scale)


def load_config(name: str, revision: str | None) -> Any:
    """Return the transformers configuration of a hub id or folder, or raise `InputError`."""
    try:
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no backbone at {name!r}: give a hub id such as FacebookAI/xlm-roberta-base, a folder with config.json, "
            f"or mini ({_first_line(error)})"
        ) from error


def load_tokenizer(name: str | Path, revision: str | None = None) -> Any:
    """Return the fast tokenizer of a hub id, folder or ``mini``, without its model.

    Raises `InputError` where there is no backbone, `BackboneError` where its tokenizer cannot be used.
    """
    place = _place(name)
    load_config(place, revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BackboneError(f"{name} has no tokenizer that transformers can read: {_first_line(error)}") from error
    _check_tokenizer(tokenizer, str(name))
    return tokenizer


def mini_folder() -> Path:
    """Return the folder of the embedded backbone `mini`."""
    return Path(__file__).resolve().parents[1] / MINI


def _place(name: str | Path) -> str:
    return str(mini_folder() if str(name) == MINI else name)


def _load_model(place: str, revision: str | None) -> Any:
    config = load_config(place, revision)
    if (Path(place) / SMALL_WEIGHTS).is_file():
        return _load_small_model(Path(place), config)
    shown = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, report = AutoModelForMaskedLM.from_pretrained(
            place,
            config=config,
            revision=revision,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BackboneError(f"{place} cannot be loaded as a masked language model: {_first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(shown)
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise BackboneError(
            f"{place} has no masked-LM head or lacks weights: {', '.join(missing[:5])} would be random; "
            "use a checkpoint saved from a masked language model"
        )
    return model


def _load_small_model(folder: Path, config: Any) -> Any:
    with no_init_weights():  # random ones take longer than all the rest, and every one is replaced
        model = AutoModelForMaskedLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    model.tie_weights()
    # Not strict: a tied tensor has several names in the model and one in the file, whose checksum says it is whole.
    model.load_state_dict(load_small(folder / SMALL_WEIGHTS), strict=False)
    return model


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _check_tokenizer(tokenizer: Any, name: str) -> None:
    if not tokenizer.is_fast:
        raise BackboneError(f"{name} has no fast tokenizer (tokenizer.json); convert it with transformers first")
    # Where the files are missing, transformers makes a tokenizer of the special tokens alone and says nothing.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise BackboneError(f"{name} has no tokenizer files; copy tokenizer.json and tokenizer_config.json there")
    for token in ("mask", "pad"):
        if getattr(tokenizer, f"{token}_token_id") is None:
            raise BackboneError(
                f"the tokenizer of {name} has no {token} token; use a masked language model's tokenizer"
            )


def _check_rows(tokenizer: Any, model: Any, name: str) -> None:
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise BackboneError(f"the tokenizer of {name} has {len(tokenizer)} tokens but the model only {rows} rows")


def _encoder(model: Any) -> nn.Module:
    base = model.base_model
    if base is model:
        raise BackboneError(f"{type(model).__name__} has no encoder apart from its head; use a masked language model")
    encoder: nn.Module = base
    return encoder


def _decoder(model: Any) -> nn.Linear:
    decoder = model.get_output_embeddings()
    if not isinstance(decoder, nn.Linear):
        raise BackboneError(
            f"{type(model).__name__} has no plain output-embedding matrix; use an XLM-R or BERT-like model"
        )
    return decoder


def _layers(base: nn.Module) -> nn.ModuleList:
    lists = [module for module in base.modules() if isinstance(module, nn.ModuleList) and len(module)]
    alike = [found for found in lists if len({type(layer) for layer in found}) == 1]
    if not alike:
        raise BackboneError(f"no list of Transformer layers was found in {type(base).__name__}")
    return max(alike, key=lambda found: sum(parameter.numel() for parameter in found.parameters()))


def _is_norm(module: nn.Module) -> bool:
    """A normalisation layer of any class: a leaf that owns parameters, all of them vectors."""
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(module.children()) and all(parameter.ndim <= 1 for parameter in own)


def _norm_parameters(module: nn.Module) -> list[str]:
    found = []
    for path, child in module.named_modules():
        if _is_norm(child):
            found += [f"{path}.{name}" for name, _ in child.named_parameters(recurse=False)]
    return found


def _parent(model: nn.Module, child: nn.Module) -> nn.Module:
    path = next(name for name, module in model.named_modules() if module is child)
    return model.get_submodule(path.rpartition(".")[0])


def _position_embeddings(model: nn.Module, words: nn.Embedding) -> nn.Embedding | None:
    """Return the embeddings of positions: beside those of words the fewest that are more than any token types."""
    beside = [module for module in _parent(model, words).children() if isinstance(module, nn.Embedding)]
    found = [module for module in beside if module is not words and module.num_embeddings > 16]
    return min(found, key=lambda module: module.num_embeddings, default=None)


def _first_position(positions: nn.Embedding) -> int:
    return 0 if positions.padding_idx is None else positions.padding_idx + 1


def _eligible(model: Any, base: nn.Module, layers: nn.ModuleList, words: nn.Embedding) -> tuple[EligibleParameter, ...]:
    """List the eligible parameters: all input embeddings, then every layer's weights and biases but its norms."""
    prefix = model.base_model_prefix
    names = {module: name for name, module in base.named_modules()}
    found: dict[str, EligibleParameter] = {}

    def add(module: nn.Module, layer: int, root: str) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{prefix}.{names[module]}.{name}"
            kind = names[module].removeprefix(root).lstrip(".") or name
            found[full] = EligibleParameter(full, tuple(parameter.shape), layer, kind)

    parent = _parent(base, words)
    for module in parent.modules():
        if isinstance(module, nn.Embedding):
            add(module, 0, names[parent])
    for number, layer in enumerate(layers, start=1):
        for module in layer.modules():
            if not _is_norm(module):
                add(module, number, names[layer])
    return tuple(found.values())


class _GivenHidden(nn.Module):
    """Stands where the encoder stood and hands on hidden states that were computed before."""

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=inputs_embeds)


def _head_view(model: Any, decoder_path: str) -> Any:
    """Return a shallow copy of the model that runs its head's transform alone.

    The copy shares every module but two: the encoder gives way to hidden states passed in, and the output matrix to
    the identity. So the stock forward itself says how the head works, whatever its modules are called.
    """
    view = _shallow(model)
    view._modules[model.base_model_prefix] = _GivenHidden()
    place = view
    *parents, last = decoder_path.split(".")
    for name in parents:
        place._modules[name] = _shallow(place._modules[name])
        place = place._modules[name]
    place._modules[last] = nn.Identity()
    return view


def _shallow(module: Any) -> Any:
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def _unique_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters by name, a tied one once, under the first of its names in order."""
    unique: dict[int, tuple[str, Tensor]] = {}
    for name, parameter in sorted(model.named_parameters(remove_duplicate=False)):
        unique.setdefault(id(parameter), (name, parameter))
    return dict(unique.values())


def _behaviour(config: Any) -> dict[str, Any]:
    """Return the settings that differ from their defaults: a field that a later release adds changes nothing."""
    defaults = type(config)().to_dict()
    settings = {key: value for key, value in config.to_dict().items() if value != defaults.get(key)}
    chosen = {key: value for key, value in settings.items() if key not in INERT_SETTINGS}
    plain: dict[str, Any] = json.loads(json.dumps({**chosen, "model_type": config.model_type}, default=str))
    return plain


def _tokenizer_state(tokenizer: Any) -> dict[str, Any]:
    """Return the serialised tokenizer without its padding and truncation, which calls leave behind in it."""
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return {key: value for key, value in state.items() if key not in ("padding", "truncation")}
