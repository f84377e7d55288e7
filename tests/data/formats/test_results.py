"""COCO results are what pycocotools evaluates: perfect detections written out score 1."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pycocotools import coco as reference_coco
from pycocotools import cocoeval as reference_evaluation
from torch import Tensor

from saccade.data.formats.coco import Coco
from saccade.data.formats.results import coco_results, coco_results_text
from saccade.data.formats.writers import write_coco
from saccade.structures import Annotations, Detections, make_sample


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_perfect_detections_score_one_in_pycocotools(tmp_path: Path, kind: str) -> None:
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 3:40, 4:50] = masks[1, 50:60, 7:20] = True
    truth = Annotations(boxes=torch.tensor([[4.0, 3, 50, 40], [7, 50, 20, 60]]), labels=torch.tensor([1, 0]), masks=masks)
    write_coco([make_sample(torch.zeros(3, 64, 64, dtype=torch.uint8), truth, id=77)], tmp_path / "out", classes=["a", "b"], category_ids=[18, 44])
    data = Coco(root=tmp_path / "out", split="train", masks=True)
    sample = data[0]
    found = Detections(sample.boxes.as_subclass(Tensor), torch.tensor([0.9, 0.8]), sample.labels, sample.masks.as_subclass(Tensor))
    text = coco_results_text([(sample.meta.id, found)], data.category_ids)
    assert [entry["category_id"] for entry in json.loads(text)] == [44, 18] and json.loads(text)[0]["bbox"] == [4, 3, 46, 37]
    (tmp_path / "results.json").write_text(text)
    reference = reference_coco.COCO(data.file)
    evaluation = reference_evaluation.COCOeval(reference, reference.loadRes(str(tmp_path / "results.json")), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_no_detections_are_an_empty_list() -> None:
    assert coco_results(Detections.empty(), 1, [1]) == [] and json.loads(coco_results_text([(1, Detections.empty())], [1])) == []
