from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.toys import KINDS, toy_model, toy_tokenizer

from ltprompt.backbone.model import Backbone
from ltprompt.errors import BackboneError


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_scales_its_logits_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model(kind)
    forward = type(model).forward

    def scaled(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        output.logits = output.logits * 1.01
        return output

    monkeypatch.setattr(type(model), "forward", scaled)
    with pytest.raises(BackboneError, match="computes its logits in a way that ltprompt does not know"):
        Backbone(model, toy_tokenizer(kind))


def test_a_model_whose_embeddings_need_more_than_words_is_refused() -> None:
    model = toy_model("bert")

    def second_segment(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if kwargs.get("input_ids") is not None:
            kwargs["token_type_ids"] = torch.ones_like(kwargs["input_ids"])
        return args, kwargs

    model.bert.embeddings.register_forward_pre_hook(second_segment, with_kwargs=True)
    with pytest.raises(BackboneError, match="computes its logits in a way that ltprompt does not know"):
        Backbone(model, toy_tokenizer("bert"))
