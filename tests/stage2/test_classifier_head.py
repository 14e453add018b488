"""Plain fine-tuning against the stock sequence classifier of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.stage2 import Toy, assert_equal, batches, sp_recipe, texts, train_method
from helpers.toys import KINDS, toy_model
from torch import nn
from torch.nn import functional
from transformers import XLMRobertaForSequenceClassification

from ltprompt.stage2.classifier_head import PooledClassifier, classify
from ltprompt.stage2.methods import METHODS
from ltprompt.stage2.readout import fold

each_kind = pytest.mark.parametrize("kind", KINDS)


def classifier(toy: Toy) -> PooledClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return PooledClassifier(toy.backbone.hidden_size, 3, toy.backbone.init_std).to(
            toy.backbone.word_embeddings.weight
        )


def stock_classifier(toy: Toy, head: PooledClassifier) -> Any:
    config = toy.backbone.model.config
    config.num_labels = 3
    model = XLMRobertaForSequenceClassification(config).double()
    encoder = {n.removeprefix("roberta."): t for n, t in toy.theta.items() if n.startswith("roberta.")}
    missing = model.roberta.load_state_dict(encoder, strict=True)
    assert not missing.missing_keys
    for ours, theirs in ((head.pool, model.classifier.dense), (head.out, model.classifier.out_proj)):
        theirs.load_state_dict(ours.state_dict())
    return model


def adam(model: Any, rate: float) -> torch.optim.Optimizer:
    norms = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.LayerNorm)}
    groups = [
        {"params": [p], "weight_decay": 0.0 if "bias" in n or n in norms else 0.01} for n, p in model.named_parameters()
    ]
    return torch.optim.Adam(groups, lr=rate, foreach=False, fused=False)


def test_twenty_steps_are_those_of_the_stock_classifier() -> None:
    toy = Toy.of("xlm-roberta", parts=None)
    model, recipe = stock_classifier(toy, classifier(toy)), sp_recipe()
    model.train()
    optimizer, tokenizer, pairs, steps = adam(model, recipe.lr), toy.backbone.tokenizer, texts(len(toy.train)), 0
    for batch in batches(len(toy.train), recipe):
        inputs = tokenizer(
            [pairs[i][0] for i in batch], [pairs[i][1] for i in batch], padding=True, return_tensors="pt"
        )
        optimizer.zero_grad()
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        functional.cross_entropy(logits, torch.tensor(toy.train.labels[batch])).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip, foreach=False)
        optimizer.step()
        steps += 1
    assert steps == 20
    found = train_method(toy, "ft", recipe, classifier(toy))
    expected = {f"roberta.{n}": p.detach() for n, p in model.roberta.named_parameters()}
    assert_equal({n: t for n, t in found.state.items() if n in expected}, expected, 1e-10)
    head = {"pool": model.classifier.dense, "out": model.classifier.out_proj}
    plain = {f"{name}.{part}": value for name, layer in head.items() for part, value in layer.state_dict().items()}
    assert_equal(found.prompt.state_dict(), plain, 1e-10)


@each_kind
def test_the_language_model_head_does_not_move_and_every_word_row_drifts(kind: str) -> None:
    toy = Toy.of(kind, parts=None, double=False)
    found = train_method(toy, "ft", sp_recipe(epochs=1), classifier(toy))
    prefix = toy.backbone.model.base_model_prefix
    assert found.changes.keys() == {name for name in toy.theta if name.startswith(f"{prefix}.")}
    assert (found.state[toy.backbone.word_name] != toy.theta[toy.backbone.word_name]).any(1).all()


@each_kind
def test_input_is_what_the_tokenizer_makes_of_a_pair(kind: str) -> None:
    toy = Toy.of(kind, parts=None)
    for example, (premise, hypothesis) in zip(toy.train.examples, texts(len(toy.train)), strict=True):
        assert example.ids.tolist() == toy.backbone.tokenizer(premise, hypothesis)["input_ids"]
        assert example.read_at == 0


def test_the_folded_classifier_computes_as_its_layers() -> None:
    torch.manual_seed(0)
    head, first = PooledClassifier(6, 4, 0.5), torch.randn(5, 6)
    nn.init.normal_(head.pool.bias)
    nn.init.normal_(head.out.bias)
    folded = fold(head)
    assert folded is not None
    assert folded.shape == (10, 7)
    torch.testing.assert_close(classify(first, folded, 0.0), head.out(head.pool(first).tanh()))


def test_dropout_is_on_in_training_alone() -> None:
    toy = Toy.of("xlm-roberta", parts=None, double=False)
    toy.backbone.model.config.classifier_dropout = 0.5
    folded = fold(classifier(toy))
    rows = (torch.empty(0, toy.backbone.width), None)
    toy.backbone.model.train()
    drawn = [toy.reader.logits(toy.train.examples[:3], folded, toy.backbone.word_embeddings, rows) for _ in range(2)]
    assert not torch.equal(*drawn)
    toy.backbone.model.eval()
    fixed = [toy.reader.logits(toy.train.examples[:3], folded, toy.backbone.word_embeddings, rows) for _ in range(2)]
    assert torch.equal(*fixed)


def test_it_starts_as_a_new_layer_of_transformers_does() -> None:
    model = toy_model("xlm-roberta")
    torch.manual_seed(1)
    head = PooledClassifier(400, 3, model.config.initializer_range)
    assert float(head.pool.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert not head.pool.bias.any()
    assert not head.out.bias.any()


def test_it_is_optimised_as_published() -> None:
    recipe = METHODS["ft"].recipe
    assert (recipe.optimizer, recipe.lr, recipe.prompt_lr, recipe.weight_decay) == ("adam", 1e-5, 1e-5, 0.01)
    assert (recipe.batch_size, recipe.epochs, recipe.clip, recipe.schedule) == (8, 50, 1.0, "constant")
