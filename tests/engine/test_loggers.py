"""Loggers: TensorBoard's files hold the figures; a missing package is named with the extra that brings it."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from saccade.engine.loggers import Comet, Logger, MLflow, TensorBoard, WandB
from saccade.errors import InputError


def test_tensorboard_has_the_figures_and_hides_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        logger = TensorBoard()
        logger.start(tmp_path, "run", {}, start)
        for step in steps:
            logger.log(step, {"loss": step + start / 10, "val/coco/AP": 0.5})
        logger.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, round(e.value, 2)) for e in events.Scalars("train/loss")] == [(1, 1.0), (2, 2.0), (3, 3.2), (4, 4.2)]
    assert len(events.Scalars("val/coco/AP")) == 4


@pytest.mark.parametrize("logger, module, extra", [(Comet(), "comet_ml", "comet"), (WandB(), "wandb", "wandb"), (MLflow(), "mlflow", "mlflow")])
def test_a_package_that_is_missing_is_named_with_its_extra(
    logger: Logger, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"saccade\[{extra}\]"):
        logger.start(tmp_path, "run", {}, 0)
