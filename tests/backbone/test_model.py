from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.toys import KINDS, example, toy_backbone, toy_folder, toy_model
from transformers import (
    AutoModelForMaskedLM,
)

from ltprompt.backbone.model import Backbone
from ltprompt.errors import InputError
from ltprompt.packing.sequences import Sequences


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_at_chosen_positions_are_the_stock_models(kind: str, tied: bool) -> None:
    backbone, (ids, attention) = toy_backbone(kind, tied=tied), example(kind)
    with torch.no_grad():
        stock = toy_model(kind, tied=tied).eval()(input_ids=ids, attention_mask=attention).logits
        hidden = backbone.encode(backbone.word_embeddings(ids[attention.bool()]), Sequences((6, 3)))
        rows, columns, places = torch.tensor([0, 0, 1]), torch.tensor([5, 2, 1]), torch.tensor([5, 2, 7])
        words = torch.tensor([17, 4, 30])
        found = backbone.logits(hidden[places])
        few = backbone.word_logits(hidden[places], *backbone.output_rows(words))
    assert found.shape == (3, len(backbone.tokenizer))
    assert (found - stock[rows, columns]).abs().max() <= 1e-5
    assert (few - stock[rows, columns][:, words]).abs().max() <= 1e-5


def test_the_longest_input_is_what_the_position_embeddings_hold() -> None:
    assert toy_backbone("bert").max_length == 64
    assert toy_backbone("xlm-roberta").max_length == 64  # 66 rows, positions start at 2
    for length in (7, 65):
        with pytest.raises(InputError, match=f"`max_length` {length} is outside 8 to 64"):
            toy_backbone("bert").check_length(length)


def test_tied_and_untied_are_told_apart(tmp_path: Path) -> None:
    found = {tied: toy_folder("bert", tmp_path / str(tied), tied=tied) for tied in (True, False)}
    for tied, folder in found.items():
        backbone = Backbone.from_pretrained(folder)
        stock = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32)
        assert backbone.tied is tied
        assert torch.equal(backbone.decoder.weight, stock.get_output_embeddings().weight)
