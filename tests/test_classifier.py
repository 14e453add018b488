from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.precision import FAST
from helpers.toy_classifiers import (
    CPU,
    LABELS,
    OTHER,
    TRAIN,
    TRAINED,
    assert_same_bits,
    bits,
    theta,
    toy_classifier,
    toy_ticket,
)
from helpers.toys import KINDS, toy_backbone, toy_model

from ltprompt import device
from ltprompt.classifier import PromptClassifier
from ltprompt.device import resolve
from ltprompt.errors import InputError, TrainingError
from ltprompt.tasks import load_task, parse_task

UNTRAINED: dict[str, Any] = {"task": "xnli", "method": "prompt-only", "compute": CPU, "max_length": 48}


def by_hand(classifier: PromptClassifier, rows: list[dict[str, str]]) -> np.ndarray:
    """Probabilities from an untied stock model with the adapter's entries in it, one row at a time, the whole head."""
    backbone, adapter = classifier.backbone, classifier.adapter
    assert adapter is not None
    kind = "bert" if "bert.embeddings.word_embeddings.weight" in backbone.parameters else "xlm-roberta"
    weights, word = theta(kind), backbone.word_name
    decoder = f"{backbone.decoder_path}.weight"
    output = weights[word].clone()
    for change in adapter.changes:
        weights[change.name].view(-1)[change.index.long()] = change.values
    weights[decoder] = weights[word] if adapter.moves_output else output
    head = backbone.decoder_path.removesuffix(".decoder")
    weights[f"{backbone.decoder_path}.bias"] = weights[f"{head}.bias"]
    model = toy_model(kind, tied=False).eval()
    model.load_state_dict(weights)
    pieces = [backbone.tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("right", "maybe", "wrong")]
    found = []
    for row in rows:
        (filled,) = classifier.resolved.template.encode([(row["premise"], row["hypothesis"])])
        ids = torch.from_numpy(filled.ids)
        words = model.get_input_embeddings()(ids.clamp_min(0)).detach()
        words[ids < 0] = adapter.folded[-ids[ids < 0] - 1]
        logits = model(inputs_embeds=words[None]).logits[0, filled.read_at].detach()
        found.append(torch.stack([logits[ids].mean() for ids in pieces]).softmax(0).numpy())
    return np.stack(found)


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_those_of_a_stock_model(kind: str, trained: str) -> None:
    classifier = toy_classifier(toy_backbone(kind), trained)
    found = classifier.predict_proba(TRAIN + OTHER)
    assert found.shape == (9, 3)
    assert np.abs(found - by_hand(classifier, TRAIN + OTHER)).max() <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_rows_changes_probabilities_by_rounding_alone(kind: str) -> None:
    classifier = toy_classifier(toy_backbone(kind))
    rows = (TRAIN + OTHER) * 5
    order = np.random.default_rng(0).permutation(len(rows))
    found = classifier.predict_proba([rows[i] for i in order])
    assert np.abs(found - classifier.predict_proba(rows)[order]).max() <= 1e-5


def test_predictions_and_measures_follow_from_the_probabilities() -> None:
    classifier = toy_classifier(toy_backbone("bert"))
    probabilities = classifier.predict_proba(TRAIN)
    predicted = [LABELS[int(row.argmax())] for row in probabilities]
    assert classifier.predict(TRAIN).tolist() == predicted
    found = classifier.evaluate({"en": TRAIN, "xx": OTHER})
    pairs = [(LABELS.index(row["label"]), LABELS.index(label)) for row, label in zip(TRAIN, predicted, strict=True)]
    english = found.by_language["en"]
    assert english.accuracy == sum(gold == guess for gold, guess in pairs) / 6
    assert english.confusion == tuple(tuple(pairs.count((g, p)) for p in range(3)) for g in range(3))
    assert np.array_equal(found.probabilities["en"], probabilities)
    assert found.gold["xx"].tolist() == [LABELS.index(row["label"]) for row in OTHER]
    assert found.mean["accuracy"] == pytest.approx((english.accuracy + found.by_language["xx"].accuracy) / 2)
    assert list(found.to_json()["languages"]) == ["en", "xx"]


def test_rows_need_no_labels_to_be_predicted() -> None:
    classifier = toy_classifier(toy_backbone("bert"))
    bare = [{"premise": row["premise"], "hypothesis": row["hypothesis"]} for row in TRAIN]
    assert np.array_equal(classifier.predict_proba(bare), classifier.predict_proba(TRAIN))
    with pytest.raises(InputError, match="label"):
        classifier.evaluate({"en": bare})


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("kind", KINDS)
def test_the_backbone_is_theta_after_training(kind: str, trained: str) -> None:
    backbone = toy_backbone(kind)
    classifier = toy_classifier(backbone, trained)
    assert_same_bits(backbone.model.state_dict(), theta(kind))
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert classifier.adapter is not None
    assert bool(classifier.adapter.changes) is (trained != "prompt-only")


def test_a_ticket_of_ratio_0_is_prompt_only() -> None:
    backbone = toy_backbone("bert")
    nothing = PromptClassifier(
        backbone, "xnli", "ltp", toy_ticket(backbone, 0), compute=CPU, lr=0.02, epochs=2, batch_size=4, max_length=48
    )
    nothing.fit(TRAIN)
    prompt_only = toy_classifier(backbone, "prompt-only")
    assert nothing.adapter is not None
    assert prompt_only.adapter is not None
    assert nothing.adapter.changes == prompt_only.adapter.changes == ()
    assert torch.equal(bits(nothing.adapter.folded), bits(prompt_only.adapter.folded))


def test_a_ticket_of_ratio_1_changes_every_eligible_parameter_and_no_other() -> None:
    backbone = toy_backbone("bert")
    whole = PromptClassifier(
        backbone, "xnli", "ltp", toy_ticket(backbone, 1), compute=CPU, lr=0.02, epochs=2, batch_size=4, max_length=48
    )
    whole.fit(TRAIN)
    assert whole.adapter is not None
    assert {change.name for change in whole.adapter.changes} == {parameter.name for parameter in backbone.eligible}


def test_equal_seeds_train_equal_adapters_and_others_do_not() -> None:
    prompts = [toy_classifier(toy_backbone("bert", dropout=0.1), seed=seed).adapter.folded for seed in (3, 3, 4)]  # type: ignore[union-attr]
    assert torch.equal(bits(prompts[0]), bits(prompts[1]))
    assert not torch.equal(prompts[0], prompts[2])


def test_training_leaves_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    toy_classifier(toy_backbone("bert", dropout=0.1))
    assert torch.equal(torch.rand(3), expected)


def test_every_epoch_is_told_and_the_kept_one_predicts() -> None:
    heard: list[Any] = []
    backbone = toy_backbone("bert")
    classifier = PromptClassifier(backbone, **(UNTRAINED | {"epochs": 5, "lr": 0.05}))
    fit = classifier.fit(TRAIN, OTHER, on_epoch=heard.append).history_
    assert tuple(heard) == fit.epochs
    assert [epoch.number for epoch in fit.epochs] == [1, 2, 3, 4, 5]
    accuracies = [epoch.dev_accuracy for epoch in fit.epochs]
    assert fit.kept_epoch == 1 + accuracies.index(max(accuracies))  # type: ignore[type-var]
    assert classifier.evaluate({"en": OTHER}).mean["accuracy"] == max(accuracies)  # type: ignore[type-var]


def test_imbalance_is_a_warning_with_counts_and_an_absent_class_an_error() -> None:
    classifier = PromptClassifier(toy_backbone("bert"), **(UNTRAINED | {"epochs": 1}))
    fit = classifier.fit([*TRAIN, TRAIN[0]]).history_
    assert len(fit.warnings) == 1
    assert "entailment 3, neutral 2, contradiction 2" in fit.warnings[0]
    with pytest.raises(InputError, match="no example of neutral"):
        classifier.fit([row for row in TRAIN if row["label"] != "neutral"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"method": "ltp"}, ("adamw", 2e-5, 2e-5, 32, 70, 0.0, "constant")),
        ({"method": "prompt-only"}, ("adamw", 2e-5, 2e-5, 32, 70, 0.0, "constant")),
        ({"method": "sp"}, ("adam", 1e-5, 1e-5, 12, 50, 0.01, "constant")),
        ({"method": "ltp", "lr": 1e-3, "epochs": 3}, ("adamw", 1e-3, 1e-3, 32, 3, 0.0, "constant")),
        ({"method": "sp", "prompt_lr": 1e-3}, ("adam", 1e-5, 1e-3, 12, 50, 0.01, "constant")),
        ({"method": "ltp", "lr": 1e-4, "prompt_lr": 1e-3}, ("adamw", 1e-4, 1e-3, 32, 70, 0.0, "constant")),
        ({"method": "sp", "batch_size": 5, "schedule": "linear"}, ("adam", 1e-5, 1e-5, 5, 50, 0.01, "linear")),
    ],
)
def test_what_the_user_says_goes_over_the_methods_recipe(given: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = PromptClassifier(toy_backbone("bert"), **(UNTRAINED | given)).recipe
    assert expected == (
        found.optimizer, found.lr, found.prompt_lr, found.batch_size, found.epochs, found.weight_decay, found.schedule
    )  # fmt: skip
    assert found.clip == 1


@pytest.mark.parametrize("loaded", [False, True])
def test_ltp_without_a_ticket_is_refused(loaded: bool) -> None:
    backbone = toy_backbone("bert")
    classifier = PromptClassifier(backbone, "xnli", "ltp", max_length=48)
    if loaded:  # an adapter says what its ticket became, not what the ticket was
        adapter = toy_classifier(backbone).adapter
        assert adapter is not None
        classifier = PromptClassifier.of(adapter, backbone)
    with pytest.raises(InputError, match=r"'ltp' trains a ticket; give one as `ticket`, or use method 'prompt-only'"):
        classifier.fit(TRAIN)


@pytest.mark.parametrize("method", ["sp", "prompt-only"])
def test_a_ticket_that_the_method_does_not_train_is_refused(method: str) -> None:
    backbone = toy_backbone("bert")
    with pytest.raises(InputError, match=f"'{method}' takes no ticket"):
        PromptClassifier(backbone, "xnli", method, toy_ticket(backbone), max_length=48)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "lpt"}, r"unknown method 'lpt': did you mean 'ltp'\?"),
        ({"task": "xlni"}, r"unknown task 'xlni'.* did you mean 'xnli'\?"),
        ({"language": "xx"}, "no words in 'xx'"),
        ({"max_length": 65}, "`max_length` 65 is outside 8 to 64"),
        ({"max_length": 11}, "too short"),
        ({"epochs": 0}, "`epochs` cannot be 0"),
        ({"lr": float("inf")}, "`lr` cannot be inf"),
        ({"prompt_length": 0}, "`prompt_length` cannot be 0"),
        ({"epoch": 3}, r"epoch: unknown key; did you mean 'epochs'\?"),
    ],
)
def test_unusable_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PromptClassifier(toy_backbone("bert"), **(UNTRAINED | given))


@pytest.mark.parametrize("call", ["predict", "predict_proba", "save_pretrained"])
def test_an_untrained_classifier_is_refused(call: str, tmp_path: Any) -> None:
    classifier = PromptClassifier(toy_backbone("bert"), **UNTRAINED)
    with pytest.raises(InputError, match="not trained yet"):
        getattr(classifier, call)(tmp_path / "out" if call == "save_pretrained" else TRAIN)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("trained", ["ltp-decoupled", "sp"])
def test_a_loss_that_stops_being_finite_leaves_the_backbone_and_no_adapter(trained: str) -> None:
    backbone = toy_backbone("bert")
    method, strategy = TRAINED[trained]
    ticket = toy_ticket(backbone, strategy=strategy) if strategy else None
    classifier = PromptClassifier(backbone, "xnli", method, ticket, compute=CPU, lr=1e30, epochs=5, max_length=48)
    with pytest.raises(TrainingError, match=r"the loss became nan at step 2; .*Lower `lr` \(now 1e\+30\)"):
        classifier.fit(TRAIN)
    assert classifier.adapter is None
    assert_same_bits(backbone.model.state_dict(), theta("bert"))


def test_words_of_several_pieces_are_told() -> None:
    plain = load_task("xnli").model_dump()
    plain["words"]["en"]["neutral"] = "the cat"
    classifier = PromptClassifier(toy_backbone("bert"), **(UNTRAINED | {"task": parse_task(plain, "here")}))
    assert len(classifier.notes) == 1
    assert "'the cat' of label 'neutral' is 2 pieces" in classifier.notes[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["ft", "dp", "mp", "bitfit", "lora", "shira", "super-tuning"])
def test_every_method_is_saved_and_loaded(kind: str, method: str, tmp_path: Path) -> None:
    size = {"lora": 2, "shira": 2, "super-tuning": 0.5}.get(method)
    classifier = toy_classifier(toy_backbone(kind), method, size=size)
    classifier.save_pretrained(tmp_path / "adapter")
    loaded = PromptClassifier.from_pretrained(tmp_path / "adapter", toy_backbone(kind), compute=CPU)
    assert loaded.resolved.method.name == method
    assert np.array_equal(loaded.predict_proba(OTHER), classifier.predict_proba(OTHER))
    untrained = toy_classifier(toy_backbone(kind), method, size=size, lr=1e-9)
    assert np.abs(untrained.predict_proba(OTHER) - classifier.predict_proba(OTHER)).max() > 1e-3


def trained_in(dtype: str | None, folder: Path) -> PromptClassifier:
    """A saved classifier that was trained in a dtype; None: in fp32, by a version that did not record it."""
    used = resolve("cpu", dtype or "fp32")
    classifier = PromptClassifier(toy_backbone("bert"), "xnli", "sp", compute=used, epochs=1, lr=0.02, max_length=48)
    classifier.fit(TRAIN)
    assert classifier.adapter is not None
    if dtype is None:
        del classifier.adapter.record["dtype"]
    classifier.save_pretrained(folder)
    return classifier


@pytest.mark.parametrize(
    ("trained", "sets", "expected"),
    [
        ("fp32", ("amx_tile", "avx512_bf16"), "fp32"),
        ("bf16", ("avx512_bf16",), "bf16"),
        ("bf16", (), "fp32"),
        (None, ("amx_tile", "avx512_bf16"), "bf16"),
        (None, (), "fp32"),
    ],
)
def test_an_adapter_is_used_in_the_dtype_that_it_was_trained_in(
    trained: str | None, sets: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "FAST_BF16", FAST)
    monkeypatch.setattr(device, "_processor_has", lambda name: name in sets)
    classifier = trained_in(trained, tmp_path)
    loaded = PromptClassifier.from_pretrained(tmp_path, toy_backbone("bert"))
    assert loaded.compute == resolve("cpu", expected)
    found = loaded.evaluate({"en": TRAIN})
    assert found.dtype == found.to_json()["dtype"] == expected
    assert np.array_equal(loaded.predict_proba(OTHER), classifier.predict_proba(OTHER)) == (
        expected == (trained or "fp32")
    )
    for name in ("fp32", "bf16"):
        given = PromptClassifier.from_pretrained(tmp_path, toy_backbone("bert"), compute=resolve("cpu", name))
        assert given.compute.dtype_name == name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "lr", "epochs"),
    [("dp", 0.01, 30), ("mp", 0.01, 30), ("bitfit", 0.02, 200), ("lora", 0.03, 40), ("super-tuning", 0.03, 40)],
)
def test_every_prompting_method_learns(kind: str, method: str, lr: float, epochs: int) -> None:
    classifier = toy_classifier(toy_backbone(kind), method, lr=lr, epochs=epochs)
    assert classifier.predict(TRAIN).tolist() == [row["label"] for row in TRAIN]


def test_the_epoch_with_the_best_dev_accuracy_is_kept_with_its_classifier() -> None:
    backbone = toy_backbone("bert")
    classifier = PromptClassifier(backbone, "xnli", "ft", compute=CPU, lr=0.01, epochs=30, batch_size=4, max_length=48)
    fit = classifier.fit(TRAIN, TRAIN).history_
    best = max(epoch.dev_accuracy or 0 for epoch in fit.epochs)
    assert fit.kept_epoch == next(epoch.number for epoch in fit.epochs if epoch.dev_accuracy == best)
    assert fit.kept_epoch < 30, "an earlier epoch must be kept for this test to mean anything"
    assert classifier.evaluate({"en": TRAIN}).by_language["en"].accuracy == best


def test_a_task_without_the_method_s_template_is_refused() -> None:
    task = load_task("xnli").model_copy(update={"templates": {"soft": load_task("xnli").templates["soft"]}})
    with pytest.raises(InputError, match="no 'discrete' template"):
        PromptClassifier(toy_backbone("bert"), task, "dp", compute=CPU, max_length=48)


def test_fine_tuning_needs_no_words_in_the_language() -> None:
    classifier = PromptClassifier(toy_backbone("bert"), "xnli", "ft", compute=CPU, max_length=48, language="quy")
    assert classifier.notes == ()
