"""The classifier under scikit-learn's own tools: they are the reference for what an estimator must do."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from helpers.toy_classifiers import CPU, LABELS, OTHER, TRAIN, toy_classifier, toy_ticket
from helpers.toys import toy_backbone, toy_folder
from sklearn.base import clone, is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import (
    check_estimator_cloneable,
    check_estimator_repr,
    check_estimator_tags_renamed,
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_set_params,
    check_valid_tag_types,
)
from sklearn.utils.validation import check_is_fitted

from ltprompt.backbone.model import Backbone, shared_backbone
from ltprompt.classifier import PromptClassifier
from ltprompt.errors import InputError
from ltprompt.settings import TrainSettings
from ltprompt.tasks import load_task, parse_task, rows_from

MOOD = parse_task(
    {
        "name": "mood",
        "labels": ["good", "bad"],
        "columns": ["text"],
        "templates": {"soft": ["{text}", "{prompt}", "{mask}"]},
        "words": {"en": {"good": "good", "bad": "bad"}},
    },
    "here",
)
TEXTS = [
    text for place in ("mat", "cat", "dog", "a mat", "the cat", "no dog") for text in (f"good {place}", f"bad {place}")
]
MOODS = ["good", "bad"] * 6
PAIRS = [(row["premise"], row["hypothesis"]) for row in TRAIN]
GOLD = [row["label"] for row in TRAIN]
QUICK: dict[str, Any] = {"trains": "nothing", "lr": 0.02, "epochs": 2, "batch_size": 4, "max_length": 48}


def mood(backbone: Backbone | str | Path | None = None, **given: Any) -> PromptClassifier:
    return PromptClassifier(toy_backbone("bert") if backbone is None else backbone, MOOD, **(QUICK | given))


def test_parameters_are_every_setting_with_its_own_default() -> None:
    parameters = inspect.signature(PromptClassifier).parameters
    assert {name: parameters[name].default for name in TrainSettings.model_fields} == TrainSettings().model_dump()
    backbone = toy_backbone("bert")
    given = {
        "task": MOOD,
        "device": "cpu",
        "dtype": "fp32",
        "lr": 0.5,
        "seed": 3,
        "trains": "nothing",
        "max_length": 40,
    }
    found = PromptClassifier(backbone, **given).get_params()
    assert found == {name: one.default for name, one in parameters.items() if name != "unknown"} | given | {
        "backbone": backbone
    }


@pytest.mark.parametrize(
    "check",
    [
        check_get_params_invariance,
        check_set_params,
        check_no_attributes_set_in_init,
        check_estimator_cloneable,
        check_estimator_repr,
        check_estimator_tags_renamed,
        check_valid_tag_types,
    ],
)
@pytest.mark.parametrize("backbone", ["name", "object"])
def test_scikit_learn_s_checks_of_parameters_pass(check: Any, backbone: str) -> None:
    check("PromptClassifier", mood("mini" if backbone == "name" else None))


@pytest.mark.parametrize("value", [-1, 3.0, "helloworld", np.array([1.0, 4.0]), [1], {}, []])
def test_nothing_is_refused_before_a_backbone_is_looked_for(value: Any) -> None:
    """As scikit-learn's check_do_not_raise_errors_in_init_or_set_params, which knows no keyword to be refused."""
    given = dict.fromkeys(mood().get_params(), value)
    classifier = PromptClassifier(**given).set_params(**given)
    assert all(found is value for found in classifier.get_params().values())


def test_it_is_a_classifier_of_texts() -> None:
    assert is_classifier(mood())
    assert is_classifier(make_pipeline(FunctionTransformer(), mood()))
    tags = get_tags(mood())
    assert (tags.input_tags.string, tags.input_tags.two_d_array, tags.target_tags.required) == (True, False, False)


@pytest.mark.parametrize("name", ["lr", "method", "task", "ticket"])
def test_a_parameter_that_is_set_is_used_by_the_next_fit(name: str) -> None:
    backbone = toy_backbone("bert")
    ticket = toy_ticket(backbone)
    start: dict[str, Any] = {"task": "xnli", "method": "ltp", "ticket": toy_ticket(backbone, 0.1), "max_length": 48}
    start |= {"lr": 0.01, "epochs": 1}
    value = {"lr": 0.05, "method": "ltp", "task": load_task("xnli"), "ticket": ticket}[name]
    if name == "method":
        start |= {"method": "prompt-only", "ticket": None}
    classifier = PromptClassifier(backbone, **start)
    assert classifier.set_params(**{name: value}) is classifier
    if name == "method":
        with pytest.raises(InputError, match="'ltp' trains a ticket"):
            classifier.fit(TRAIN)
        classifier.ticket = ticket
    expected = PromptClassifier(backbone, **(start | {name: value, "ticket": classifier.ticket})).fit(TRAIN)
    assert np.array_equal(classifier.fit(TRAIN).predict_proba(OTHER), expected.predict_proba(OTHER))


def test_a_trained_classifier_predicts_as_trained_whatever_is_set_since() -> None:
    classifier = toy_classifier(toy_backbone("bert"))
    before = classifier.predict_proba(OTHER)
    classifier.set_params(max_length=20, task=MOOD, method="sp", ticket=None)
    assert np.array_equal(classifier.predict_proba(OTHER), before)
    assert classifier.classes_.tolist() == list(LABELS)


def test_an_unknown_parameter_and_a_bad_value_are_told() -> None:
    classifier = mood()
    with pytest.raises(InputError, match=r"epoch: unknown key; did you mean 'epochs'\?"):
        classifier.set_params(epoch=3)
    with pytest.raises(InputError, match="`lr` cannot be -1"):
        classifier.set_params(lr=-1).fit(TEXTS, MOODS)
    with pytest.raises(InputError, match="give settings=, or lr, seed as keywords, not both"):
        mood(lr=0.1, seed=1, settings=TrainSettings(), epochs=None, batch_size=None, max_length=256)
    for name, value in (("device", "cpu"), ("dtype", "bf16")):
        with pytest.raises(InputError, match="give compute=, or device= and dtype=, not both"):
            mood(compute=CPU, **{name: value})


def test_it_is_shown_as_it_is_built() -> None:
    shown = repr(PromptClassifier("mini", ticket="mini-20", lr=0.5))
    assert shown == "PromptClassifier(backbone='mini', ticket='mini-20', lr=0.5)"


def test_a_clone_shares_the_backbone_and_is_not_trained() -> None:
    backbone = toy_backbone("bert")
    ticket = toy_ticket(backbone)
    classifier = PromptClassifier(backbone, "xnli", ticket=ticket, max_length=48, epochs=1).fit(TRAIN)
    copy = clone(classifier)
    assert copy is not classifier
    assert (copy.backbone, copy.ticket, copy.epochs) == (backbone, ticket, 1)
    assert not copy.__sklearn_is_fitted__()
    assert clone(backbone, safe=False) is backbone
    check_is_fitted(classifier)


def test_fit_returns_the_classifier_and_labels_may_stand_apart() -> None:
    backbone = toy_backbone("bert")
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, MOODS, strict=True)]
    apart = mood(backbone)
    assert apart.fit(TEXTS, np.array(MOODS)) is apart
    together = mood(backbone).fit(rows)
    found = apart.predict(TEXTS)
    assert isinstance(found, np.ndarray)
    assert set(found) <= set(MOODS)
    assert np.array_equal(apart.predict_proba(TEXTS), together.predict_proba(rows))
    assert apart.history_ == together.history_
    assert apart.classes_.tolist() == ["good", "bad"]
    assert apart.score(TEXTS, MOODS) == apart.score(rows) == accuracy_score(MOODS, found)
    with pytest.raises(InputError, match="rows number 12 and labels 11"):
        apart.fit(TEXTS, MOODS[1:])


def test_a_data_frame_is_taken_whole_and_in_two_parts() -> None:
    backbone = toy_backbone("bert")
    frame = pandas.DataFrame({"text": TEXTS, "label": MOODS})
    apart = mood(backbone).fit(frame[["text"]], frame["label"], dev=(frame[["text"]], frame["label"]))
    together = mood(backbone).fit(frame, frame)
    assert apart.history_ == together.history_ == mood(backbone).fit(TEXTS, MOODS, dev=(TEXTS, MOODS)).history_
    assert apart.score(frame) == together.score(frame["text"], frame["label"])
    assert cross_val_score(
        mood(backbone, epochs=1), frame[["text"]], frame["label"], cv=2, error_score="raise"
    ).shape == (2,)


def test_pairs_of_texts_are_rows_too() -> None:
    backbone = toy_backbone("bert")
    given: dict[str, Any] = {"method": "prompt-only", "epochs": 1, "max_length": 48}
    apart = PromptClassifier(backbone, "xnli", **given).fit(PAIRS, GOLD)
    together = PromptClassifier(backbone, "xnli", **given).fit(TRAIN)
    assert np.array_equal(apart.predict_proba(PAIRS), together.predict_proba(TRAIN))


def test_dev_rows_are_taken_in_second_place_by_name_and_in_two_parts() -> None:
    backbone = toy_backbone("bert")
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, MOODS, strict=True)]
    table = rows_from(rows, MOOD)
    ways = [
        mood(backbone).fit(rows, rows),
        mood(backbone).fit(rows, table),
        mood(backbone).fit(rows, dev=rows),
        mood(backbone).fit(TEXTS, MOODS, dev=rows),
        mood(backbone).fit(TEXTS, MOODS, dev=(TEXTS, MOODS)),
    ]
    assert ways[0].history_.epochs[0].dev_accuracy is not None
    assert all(way.history_ == ways[0].history_ for way in ways)
    with pytest.raises(InputError, match="dev rows are given twice"):
        mood(backbone).fit(rows, rows, dev=rows)


def test_cross_validation_is_stratified_and_its_scores_are_those_found_by_hand() -> None:
    classifier = mood(epochs=1)
    order = sorted(range(12), key=MOODS.__getitem__)  # folds that are not stratified would lack a class
    texts, moods = [TEXTS[i] for i in order], [MOODS[i] for i in order]
    found = cross_val_score(classifier, texts, moods, cv=2, error_score="raise")
    held = [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]
    expected = []
    for fold in held:
        rest = [i for i in range(12) if i not in fold]
        trained = mood(classifier.backbone, epochs=1).fit([texts[i] for i in rest], [moods[i] for i in rest])
        expected.append(accuracy_score([moods[i] for i in fold], trained.predict([texts[i] for i in fold])))
    assert found.tolist() == expected
    assert cross_val_predict(classifier, texts, moods, cv=2).shape == (12,)
    assert classifier.adapter is None


def test_rows_that_carry_their_labels_are_cross_validated_too() -> None:
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, MOODS, strict=True)]
    assert cross_val_score(mood(epochs=1), rows, cv=2, error_score="raise").shape == (2,)


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_a_grid_search_over_the_rate_refits_the_best() -> None:
    search = GridSearchCV(mood(), {"lr": np.array([1e-9, 0.05])}, cv=2, error_score="raise").fit(TEXTS, MOODS)
    assert search.best_params_["lr"] in (1e-9, 0.05)
    again = mood(search.best_estimator_.backbone, lr=search.best_params_["lr"]).fit(TEXTS, MOODS)
    assert np.array_equal(search.predict_proba(TEXTS), again.predict_proba(TEXTS))
    assert search.classes_.tolist() == ["good", "bad"]
    with pytest.warns(FitFailedWarning, match="`lr` cannot be -1"):
        GridSearchCV(mood(), {"lr": [-1, 0.05]}, cv=2, refit=False).fit(TEXTS, MOODS)


def test_a_grid_may_hold_backbones_and_tickets() -> None:
    backbone = toy_backbone("bert")
    grid = {"backbone": [backbone], "ticket": [toy_ticket(backbone, 0.1), toy_ticket(backbone, 0.5)]}
    classifier = PromptClassifier(backbone, MOOD, max_length=48, epochs=1, lr=0.02)
    search = GridSearchCV(classifier, grid, cv=2, error_score="raise").fit(TEXTS, MOODS)
    assert search.best_estimator_.backbone is backbone


def test_a_pipeline_prepares_texts() -> None:
    classifier = mood()
    shouted = [text.upper() for text in TEXTS]
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = make_pipeline(lower, classifier).fit(shouted, MOODS)
    assert np.array_equal(pipeline.predict_proba(shouted), clone(classifier).fit(TEXTS, MOODS).predict_proba(TEXTS))
    assert pipeline.score(shouted, MOODS) == classifier.score(TEXTS, MOODS)
    pipeline.set_params(promptclassifier__lr=0.5)
    assert classifier.lr == 0.5


def test_names_are_loaded_when_first_used_and_shared(tmp_path: Path) -> None:
    folder, ticket = toy_folder("bert", tmp_path / "toy"), tmp_path / "ticket.safetensors"
    backbone = Backbone.from_pretrained(folder)
    toy_ticket(backbone).save(ticket)
    given: dict[str, Any] = {"task": "xnli", "epochs": 1, "lr": 0.02, "max_length": 48, "dtype": "fp32"}
    named = PromptClassifier(folder, ticket=ticket, device="cpu", **given)
    assert (named.backbone, named.ticket) == (folder, ticket)
    PromptClassifier(tmp_path / "absent", ticket="absent", lr=-1)  # nothing is looked for yet
    expected = PromptClassifier(backbone, ticket=toy_ticket(backbone), **given).fit(TRAIN).predict_proba(OTHER)
    assert np.array_equal(named.fit(TRAIN).predict_proba(OTHER), expected)
    assert clone(named).resolved.backbone is named.resolved.backbone
    assert PromptClassifier(str(folder), **(given | {"method": "sp"})).resolved.backbone is named.resolved.backbone
    named.save_pretrained(tmp_path / "adapter")
    loaded = PromptClassifier.from_pretrained(tmp_path / "adapter", str(folder), device="cpu", dtype="fp32")
    assert loaded.backbone is named.resolved.backbone
    assert np.array_equal(loaded.predict_proba(OTHER), expected)


def test_a_folder_that_was_written_anew_is_loaded_anew(tmp_path: Path) -> None:
    folder = toy_folder("bert", tmp_path)
    first = shared_backbone(folder)
    assert shared_backbone(str(folder)) is first
    toy_folder("bert", folder, seed=1)
    assert shared_backbone(folder).fingerprint != first.fingerprint


def test_a_missing_ticket_is_told_before_a_backbone_is_loaded() -> None:
    with pytest.raises(InputError, match="'ltp' trains a ticket"):
        PromptClassifier("no/such-backbone", "xnli").fit(TRAIN)


def test_a_device_where_the_backbone_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltprompt.device._checked", lambda name: name)
    with pytest.raises(InputError, match="device 'cuda:1' is not where the backbone is, cpu"):
        mood(device="cuda:1")
    assert mood(device="cpu", dtype="bf16").resolved.compute.dtype_name == "bf16"


def test_a_classifier_on_a_name_can_be_pickled(tmp_path: Path) -> None:
    folder = toy_folder("bert", tmp_path)
    classifier = mood(str(folder)).fit(TEXTS, MOODS)
    again = pickle.loads(pickle.dumps(classifier))
    assert np.array_equal(again.predict_proba(TEXTS), classifier.predict_proba(TEXTS))


def test_scikit_learn_is_not_imported_to_train() -> None:
    code = "import sys, ltprompt.classifier; sys.exit(any(name.startswith('sklearn') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_progress_is_shown_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    classifier = mood(toy_backbone("bert")).fit(TEXTS, MOODS)
    classifier.predict_proba(TEXTS)
    assert capsys.readouterr().err == ""
    classifier.fit(TEXTS, MOODS, progress=True)
    classifier.evaluate({"en": classifier_rows()}, progress=True)
    classifier.predict_proba(TEXTS, progress=True)
    lines = capsys.readouterr().err.splitlines()
    epochs = classifier.recipe.epochs
    assert [line.partition(",")[0] for line in lines] == [
        f"training {epochs}/{epochs}", f"evaluating {len(TEXTS)}/{len(TEXTS)}", f"predicting {len(TEXTS)}/{len(TEXTS)}"
    ]  # fmt: skip


def classifier_rows() -> list[dict[str, str]]:
    return [{"text": text, "label": label} for text, label in zip(TEXTS, MOODS, strict=True)]
