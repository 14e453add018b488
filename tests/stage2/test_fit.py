"""The bar of a training; what `fit` leaves is tested with the weights that it trains."""

from __future__ import annotations

import pytest

from ltprompt.stage2.fit import training_bar
from ltprompt.stage2.training import Epoch


def test_the_bar_of_a_training_tells_loss_and_dev_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    with training_bar(2) as on_epoch:
        on_epoch(Epoch(1, 0.6931, None))
        on_epoch(Epoch(2, 0.25, 0.875))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("training 2/2, ")
    assert ", loss 0.2500, dev accuracy 87.5%, " in line


def test_an_epoch_without_a_dev_set_tells_its_loss() -> None:
    assert str(Epoch(1, 0.6931, None)) == "loss 0.6931"
