"""Evaluation hands every image to every metric and observer, and leaves model and random numbers as they were."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import Noise, tiny_experiment, tiny_recipe

from saccade.data.formats.coco_panoptic import read_segment_ids
from saccade.data.loading import Loader
from saccade.engine.evaluation import EvaluationStoppedError, PredictionCollector, evaluate, write_results
from saccade.metrics.classification import ClassificationAccuracy
from saccade.metrics.image_quality import image_quality
from saccade.structures import Annotations, Batch, Classification, Detections, Meta, Panoptic, Segment


def loader(batch_size: int = 4) -> Loader:
    return Loader(dataset=Noise(10), batch_size=batch_size, training=False)


def test_the_figures_do_not_depend_on_the_batch_size() -> None:
    model = tiny_experiment(tiny_recipe()).model
    metric = ClassificationAccuracy(classes=model.classes)
    figures = [evaluate(model, loader(size), [metric]) for size in (1, 3, 10)]
    assert figures[0] == figures[1] == figures[2]
    assert len(metric.outcomes().label) == 10


def test_the_model_is_evaluated_in_evaluation_mode_and_left_as_it_was() -> None:
    model = tiny_experiment(tiny_recipe()).model
    modes = []
    model.register_forward_hook(lambda *_: modes.append(model.training))
    model.train()
    evaluate(model, loader(), [])
    assert modes == [False] * 3 and model.training
    model.eval()
    evaluate(model, loader(), [])
    assert not model.training


def test_observers_see_every_batch_with_its_predictions() -> None:
    model = tiny_experiment(tiny_recipe()).model
    seen: list[tuple[int, int]] = []
    evaluate(model, loader(), [], [lambda batch, predictions: seen.append((len(batch), len(predictions)))])
    assert seen == [(4, 4), (4, 4), (2, 2)]


def test_a_request_to_stop_ends_it() -> None:
    model = tiny_experiment(tiny_recipe()).model
    seen: list[Batch] = []
    with pytest.raises(EvaluationStoppedError):
        evaluate(model, loader(), [], [lambda batch, predictions: seen.append(batch)], stop=lambda: len(seen) == 2)
    assert len(seen) == 2


def test_detections_become_coco_results_with_class_names_and_classifications_their_best(tmp_path: Path) -> None:
    collector = PredictionCollector(("cat", "dog"), category_ids=(17, 18))
    boxes = torch.tensor([[1.0, 2.0, 4.0, 6.0]])
    batch = Batch(torch.zeros(2, 3, 4, 4), [], [Meta("set", 7), Meta("set", "x")])
    collector(batch, [Detections(boxes, torch.tensor([0.5]), torch.tensor([1])), Classification(torch.tensor([0.25, 0.75]))])
    metric = ClassificationAccuracy(classes=("cat", "dog"))
    write_results(tmp_path / "val", {"a": float("nan"), "b": 0.5}, [metric], collector, {"7": "cut off"})
    assert json.loads((tmp_path / "val" / "skipped.json").read_text()) == {"7": "cut off"}
    assert json.loads((tmp_path / "val/predictions.json").read_text()) == [
        {"image_id": 7, "category_id": 18, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5, "category": "dog"},
        {"id": "x", "top": [{"label": 1, "class": "dog", "score": 0.75}, {"label": 0, "class": "cat", "score": 0.25}]},
    ]
    assert json.loads((tmp_path / "val/figures.json").read_text()) == {"a": "NaN", "b": 0.5}
    assert "classification" in json.loads((tmp_path / "val/details.json").read_text())


def test_panoptic_predictions_become_a_json_and_a_folder_of_pngs_with_the_data_sets_ids(tmp_path: Path) -> None:
    collector, other = PredictionCollector(("cat", "sky"), category_ids=(17, 187)), PredictionCollector(("cat", "sky"), category_ids=(17, 187))
    segment_map = torch.tensor([[0, 1], [1, 300]])
    found = Panoptic(segment_map, (Segment(1, 1, False, score=0.5), Segment(300, 0, True, score=0.75)))
    collector(Batch(torch.zeros(1, 3, 2, 2), [], [Meta("set", 7)]), [found])
    other(Batch(torch.zeros(1, 3, 2, 2), [], [Meta("set", 8)]), [Panoptic(torch.zeros(2, 2, dtype=torch.int64), ())])

    class Two:
        def gathered(self, value: list[Any]) -> list[list[Any]]:
            return [value, other.maps if value is collector.maps else other.lines]

    collector.gather(Two())  # type: ignore[arg-type]
    write_results(tmp_path / "val", {}, [], collector, {})
    content = json.loads((tmp_path / "val/predictions.json").read_text())
    assert [(a["image_id"], a["file_name"]) for a in content["annotations"]] == [(7, "000000000007.png"), (8, "000000000008.png")]
    assert [(s["id"], s["category_id"], s["area"]) for s in content["annotations"][0]["segments_info"]] == [(1, 187, 2), (300, 17, 1)]
    assert read_segment_ids(tmp_path / "val/predictions/000000000007.png").tolist() == segment_map.tolist()


def test_panoptic_quality_ranks_images_for_the_gallery() -> None:
    truth = Annotations(panoptic=Panoptic(torch.tensor([[1, 1, 2, 2]]), (Segment(1, 0, True), Segment(2, 3, False))))
    assert truth.panoptic is not None
    assert image_quality(truth.panoptic, truth) == 1.0
    half = Panoptic(torch.tensor([[1, 1, 1, 1]]), (Segment(1, 3, False),))
    assert image_quality(half, truth) == 0.0
    assert image_quality(half, Annotations()) is None
    empty = Panoptic(torch.zeros(1, 4, dtype=torch.int64), ())
    assert image_quality(empty, Annotations(panoptic=empty)) == 1.0
