"""One run of a grid: a loaded backbone, a training, its evaluations, and the record of what came out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ltprompt.classifier import Fit, PromptClassifier
from ltprompt.device import resolve
from ltprompt.errors import LtpError, MismatchError
from ltprompt.experiments.data.sources import TestTable
from ltprompt.experiments.grid.backbones import Backbones
from ltprompt.experiments.grid.plan import resolve_settings
from ltprompt.experiments.records import DEV, TASK, TEST, TICKET, TRAIN, LanguageResult, RunResult, RunSpec
from ltprompt.experiments.run.local import Outcome, Worker
from ltprompt.settings import TrainSettings
from ltprompt.stage2.measures import Evaluation, Measures

_OF_USER = ("epochs", "batch_size", "lr", "prompt_lr", "schedule", "prompt_length", "max_length", "language", "size")


@dataclass(frozen=True)
class WorkerMaker:
    """Makes workers, in this process or another.

    device: as `device.resolve` takes it; precision is the runs' own.
    """

    device: str = "auto"

    def __call__(self) -> Worker:
        """Return a worker, which loads its backbone with its first run."""
        return GridWorker(self)


class GridWorker:
    """Makes runs around one loaded backbone. backbones: those that this process has loaded already."""

    def __init__(self, maker: WorkerMaker, backbones: Backbones | None = None) -> None:
        self._maker = maker
        self._backbones = {} if backbones is None else {backbones.compute.dtype_name: backbones}

    def run(self, spec: RunSpec, assets: Mapping[str, Any]) -> Outcome:
        """Train and evaluate. assets: by role, as the constants above name them.

        Raises `MismatchError` where the backbone of that name is not the one that the run was planned with.
        """
        backbone = self._backbones_of(spec.dtype).get(spec.backbone, spec.revision)
        if backbone.fingerprint != spec.fingerprint:
            raise MismatchError(
                f"{spec.backbone} is the backbone {backbone.fingerprint[:12]} here, the run was planned with "
                f"{spec.fingerprint[:12]}; put the same checkpoint on every machine"
            )
        settings = TrainSettings.of(**{name: spec.settings[name] for name in _OF_USER}, seed=spec.seed)
        classifier = PromptClassifier(
            backbone, assets[TASK], spec.method, assets.get(TICKET),
            compute=self._backbones_of(spec.dtype).compute, settings=settings,
        )  # fmt: skip
        if resolve_settings(spec.method, settings) != spec.settings:
            raise LtpError("this worker resolves settings otherwise; install the driver's version of ltprompt here")
        start = time.perf_counter()
        fit = classifier.fit(assets[TRAIN], dev=assets.get(DEV)).history_
        trained = time.perf_counter()
        tests: dict[str, TestTable] = {language: assets[f"{TEST}{language}"] for language in spec.tests}
        found = classifier.evaluate({language: table.rows for language, table in tests.items()})
        evaluated = time.perf_counter()
        return Outcome(_result(fit, found, tests), trained - start, evaluated - trained)

    def _backbones_of(self, dtype: str) -> Backbones:
        if dtype not in self._backbones:
            self._backbones = {dtype: Backbones(resolve(self._maker.device, dtype))}
        return self._backbones[dtype]


def _result(fit: Fit, found: Evaluation, tests: Mapping[str, TestTable]) -> RunResult:
    return RunResult(
        kept_epoch=fit.kept_epoch,
        dev_accuracy=fit.epochs[fit.kept_epoch - 1].dev_accuracy,
        losses=tuple(epoch.loss for epoch in fit.epochs),
        dev_accuracies=tuple(epoch.dev_accuracy for epoch in fit.epochs),
        changed_entries=fit.changed_entries,
        languages={
            language: _language(measures, found, language, tests[language].note)
            for language, measures in found.by_language.items()
        },
    )


def _language(measures: Measures, found: Evaluation, language: str, note: str) -> LanguageResult:
    right = found.probabilities[language].argmax(1) == found.gold[language]
    return LanguageResult(
        accuracy=measures.accuracy,
        macro_f1=measures.macro_f1_of_all,
        confusion=measures.confusion,
        hits="".join("1" if hit else "0" for hit in right),
        note=note,
    )
