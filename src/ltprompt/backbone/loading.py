"""From a name to a model and its tokenizer: what a checkpoint must have, and the embedded backbone `mini`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from ltprompt.backbone.int8 import load_small
from ltprompt.errors import BackboneError, InputError

MINI = "mini"
SMALL_WEIGHTS = "model.int8.safetensors"


def load(name: str | Path, revision: str | None = None) -> tuple[Any, Any]:
    """Return model and tokenizer of a hub id, folder or ``mini``; only safetensors are read and no remote code is run.

    The model is in fp32 on the CPU. Raises `BackboneError` where the checkpoint has no masked-LM head or cannot be
    used, `InputError` where it cannot be found.
    """
    model = _load_model(_place(name), revision)
    tokenizer = load_tokenizer(name, revision)
    _check_rows(tokenizer, model, str(name))
    return model, tokenizer


def label(name: str | Path) -> str:
    """Return what a backbone is called in records: its hub id, ``mini``, or its folder as an absolute path."""
    place = _place(name)
    folder = Path(place).is_dir() and str(name) != MINI
    return str(Path(place).resolve()) if folder else str(name)


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
    try:
        with _quiet_transformers():
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
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise BackboneError(
            f"{place} has no masked-LM head or lacks weights: {', '.join(missing[:5])} would be random; "
            "use a checkpoint saved from a masked language model"
        )
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Have transformers say nothing and draw no bar; how it does is the process's, and is afterwards as it was."""
    shown, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(shown)
        if bars:
            transformers_logging.enable_progress_bar()


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
