"""Merging: adapter and backbone as one plain Hugging Face folder, the prompt as added words of the vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import Tensor

from ltprompt.adapter import Adapter
from ltprompt.backbone.model import Backbone
from ltprompt.errors import InputError
from ltprompt.files.artifacts import atomic_folder
from ltprompt.files.places import check_new
from ltprompt.tasks import Task
from ltprompt.tasks.verbaliser import Verbaliser

# An added word must never be predicted: it stands in the input only. Small enough for fp16, too low for any softmax.
NEVER = -1e4


def merge(
    backbone: Backbone,
    adapter: Adapter,
    out: str | Path,
    *,
    task: Task,
    parts: Sequence[str],
    verbaliser: Verbaliser,
    max_length: int,
) -> None:
    """Write backbone and adapter as a folder that stock `from_pretrained` loads with nothing missing.

    The n vectors of the folded prompt become n added words <p1> ... <pn>. Where the adapter moved the input embeddings
    of a tied backbone alone, the output matrix and its bias are written out. README.md in the folder shows template and
    label words. parts: of the template, as `Task.template_for` gives them. max_length: tokens of a filled template.
    Raises `InputError` where `out` exists or cannot be made, `OutputError` where it cannot be written.
    """
    out = Path(out)
    check_new(out)
    words = [f"<p{number + 1}>" for number in range(len(adapter.folded))]
    with atomic_folder(out) as folder:
        _write(backbone, adapter, words, folder)
        page = _readme(task, parts, verbaliser, words, backbone.tokenizer.mask_token, max_length)
        (folder / "README.md").write_text(page, encoding="utf-8")


def _write(backbone: Backbone, adapter: Adapter, words: list[str], folder: Path) -> None:
    """Write weights, configuration and tokenizer. words: those that stand for the prompt's vectors."""
    tokenizer = copy.deepcopy(backbone.tokenizer)
    taken = set(words) & set(tokenizer.get_vocab())
    if taken:
        raise InputError(f"the backbone's vocabulary already has {', '.join(sorted(taken))}; it cannot be merged into")
    tokenizer.add_tokens([AddedToken(word, lstrip=True, normalized=False) for word in words])
    first = tokenizer.convert_tokens_to_ids(words[0]) if words else backbone.word_embeddings.num_embeddings
    try:
        with backbone.applied(adapter):
            untied = backbone.overlay.kept_output is not None or not backbone.tied
            state = merged_state(backbone, adapter.folded, first, _output(backbone) if untied else None)
    finally:
        adapter.revert(backbone)
    config = copy.deepcopy(backbone.model.config)
    config.vocab_size = first + len(words)
    config.tie_word_embeddings = not untied
    config.dtype = "float32"
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def merged_state(backbone: Backbone, prompt: Tensor, first: int, output: Tensor | None) -> dict[str, Tensor]:
    """Return the state dict of the merged model, on the CPU.

    The prompt's vectors stand at rows `first` and following of the input embeddings. output: the output matrix to write
    out, or None where it is the input matrix. Biases over the vocabulary are written under every name they have, for a
    model that is no longer tied looks for each.
    """
    matrix, decoder = backbone.word_embeddings.weight, backbone.decoder
    size = first + len(prompt)
    state = {}
    for name, parameter in backbone.model.named_parameters(remove_duplicate=False):
        value = parameter.detach().cpu()
        if decoder.bias is not None and name in _vocabulary_biases(backbone):
            value = _longer(value, size, NEVER)
        elif parameter is decoder.weight and output is not None and _is_output(backbone, name):
            value = _longer(output, size, 0.0)
        elif parameter is matrix:
            if _is_output(backbone, name):
                continue  # tied: written once, under its input name
            value = _longer(value, size, 0.0)
            value[first:] = prompt
        state[name] = value.clone() if value.data_ptr() == parameter.data_ptr() else value
    return state


def _output(backbone: Backbone) -> Tensor:
    """Return the output matrix on the CPU, with the rows that an adapter overwrote on the input side put back."""
    output = backbone.decoder.weight.detach().cpu().clone()
    if backbone.overlay.kept_output is not None:
        ids, rows = backbone.overlay.kept_output
        output[ids.cpu()] = rows.cpu()
    return output


def _is_output(backbone: Backbone, name: str) -> bool:
    return bool(name == f"{backbone.decoder_path}.weight")


def _vocabulary_biases(backbone: Backbone) -> tuple[str, str]:
    """Return the names a bias over the vocabulary may have: the decoder's, and its head's, which is apart if untied."""
    head = backbone.decoder_path.rpartition(".")[0]
    return f"{backbone.decoder_path}.bias", f"{head}.bias"


def _longer(value: Tensor, size: int, fill: float) -> Tensor:
    longer = torch.full((size, *value.shape[1:]), fill, dtype=value.dtype)
    kept = min(size, len(value))
    longer[:kept] = value[:kept]
    return longer


def _readme(
    task: Task, parts: Sequence[str], verbaliser: Verbaliser, words: list[str], mask: str, max_length: int
) -> str:
    filled = ["".join(words) if part == "{prompt}" else part for part in parts]
    shown = " ".join(filled).replace("{mask}", mask)
    rows: list[Any] = [
        f"| {label} | {word} | {list(ids)} |"
        for label, word, ids in zip(verbaliser.labels, verbaliser.words, verbaliser.piece_ids, strict=True)
    ]
    return "\n".join(
        [
            f"# A masked language model with a merged prompt for the task {task.name}",
            "",
            f"Template: `{shown}`, at most {max_length} tokens; only the text fields are cut.",
            *([f"Prompt slots: {len(words)}, as the added words {', '.join(words)}."] if words else []),
            *(["Trailing ASCII punctuation of each text field is stripped first."] if task.strip_punctuation else []),
            "",
            "| label | word | ids whose mean logit at the mask scores it |",
            "|---|---|---|",
            *rows,
            "",
            "```python",
            "from transformers import AutoModelForMaskedLM, AutoTokenizer",
            "",
            'model, tokenizer = (auto.from_pretrained(".") for auto in (AutoModelForMaskedLM, AutoTokenizer))',
            "# Fill the template, tokenise it, and compare the logits of the ids above at the mask.",
            "```",
            "",
        ]
    )
