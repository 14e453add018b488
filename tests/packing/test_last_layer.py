from __future__ import annotations

import copy

import pytest
import torch
from helpers.families import FAMILIES, LENGTHS, PADDED, family, words
from helpers.threads import at_once
from torch import Tensor

from ltprompt.packing.last_layer import LastLayer, module_after_attention
from ltprompt.packing.sequences import Sequences

AFTER = {"distilbert": "sa_layer_norm", "albert": "ffn"}  # by its name in the layer; in the others the output


def test_threads_that_read_different_rows_get_their_own() -> None:
    backbone, sequences = family("bert"), Sequences(LENGTHS)
    embeddings = backbone.word_embeddings(words(backbone)).detach()
    reads = [torch.tensor(rows) for rows in ([0], [35, 2], [9, 18, 27, 31], [5, 4, 3])]

    def encoded(read: Tensor) -> Tensor:
        with torch.no_grad():
            return backbone.encode(embeddings, sequences, read)

    expected = [encoded(read) for read in reads]
    found = at_once([lambda number=number: encoded(reads[number % 4]) for number in range(80)], threads=4)
    for number, hidden in enumerate(found):
        assert torch.equal(hidden, expected[number % 4])
    assert backbone._last_layer is not None
    assert not backbone._last_layer._read


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in PADDED])
def test_the_module_behind_the_attention_is_found_and_no_hook_left(name: str) -> None:
    backbone = family(name)
    layer = backbone.layers[-1]
    hooks = [len(module._forward_pre_hooks) for module in layer.modules()]
    embeddings = backbone.word_embeddings(words(backbone))
    found = module_after_attention(layer, lambda: backbone.encode(embeddings, Sequences(LENGTHS)))
    path = next(path for path, module in layer.named_modules() if module is found)
    assert path.rpartition(".")[2] == AFTER.get(name, "output")
    assert [len(module._forward_pre_hooks) for module in layer.modules()] == hooks


def test_rows_are_left_out_within_the_block_alone() -> None:
    module, rows = torch.nn.Identity(), torch.arange(12.0).view(1, 4, 3)
    last = LastLayer(module)
    assert torch.equal(module(rows), rows)
    with last.reading(torch.tensor([2, 0])):
        assert torch.equal(module(rows), rows[:, [2, 0]])
    with pytest.raises(ZeroDivisionError), last.reading(torch.tensor([2, 0])):
        raise ZeroDivisionError
    assert torch.equal(module(rows), rows)
    assert torch.equal(copy.deepcopy(module)(rows), rows)
    last.remove()
    with last.reading(torch.tensor([1])):
        assert torch.equal(module(rows), rows)
