"""What models say about an image, in pixels of the original image."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saccade.structures.panoptic import Panoptic

if TYPE_CHECKING:
    import supervision


@dataclass
class Classification:
    """`scores` (K,) float: probabilities of the classes (they sum to one, or are independent where several classes can hold)."""

    scores: Tensor

    @property
    def label(self) -> int:
        """The most probable class."""
        return int(self.scores.argmax())

    def top(self, k: int = 5) -> list[tuple[int, float]]:
        """The `k` best (class, probability), best first."""
        values, classes = self.scores.topk(min(k, len(self.scores)))
        return list(zip(classes.tolist(), values.tolist(), strict=True))

    def to_supervision(self) -> supervision.Classifications:
        """As `supervision.Classifications`."""
        import numpy as np
        import supervision

        scores = self.scores.detach().cpu().float().numpy()
        return supervision.Classifications(class_id=np.arange(len(scores)), confidence=scores)

    @classmethod
    def from_supervision(cls, found: supervision.Classifications, num_classes: int) -> Classification:
        """From `supervision.Classifications`; classes that it does not name get probability 0."""
        scores = torch.zeros(num_classes)
        confidence = found.confidence if found.confidence is not None else [1.0] * len(found.class_id)
        scores[torch.as_tensor(found.class_id)] = torch.as_tensor(confidence, dtype=scores.dtype)
        return cls(scores)


@dataclass
class Detections:
    """Found objects, best first where a model made them.

    `boxes` (n, 4) float (x1, y1, x2, y2) in pixels of the original image; `scores` (n,) in 0..1; `labels` (n,) int64; optional `masks`
    (n, H, W) bool, `track_ids` (n,) int64, `embeddings` (n, D).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    track_ids: Tensor | None = None
    embeddings: Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        wrong = {f.name: len(v) for f in fields(self) if (v := getattr(self, f.name)) is not None and len(v) != n}
        if wrong:
            raise ValueError(f"Detections: {n} boxes, but {wrong}; every field needs one row a box")

    @classmethod
    def empty(cls, device: torch.device | str = "cpu") -> Detections:
        """No detections."""
        return cls(torch.zeros(0, 4, device=device), torch.zeros(0, device=device), torch.zeros(0, dtype=torch.int64, device=device))

    def __len__(self) -> int:
        return len(self.boxes)

    def _map(self, change: Any) -> Detections:
        return replace(self, **{f.name: change(v) for f in fields(self) if (v := getattr(self, f.name)) is not None})

    def __getitem__(self, keep: Tensor | slice) -> Detections:
        """The detections that `keep` names: bool mask, indices or slice."""
        return self._map(lambda value: value[keep])

    def to(self, device: torch.device | str) -> Detections:
        """The same on `device`."""
        return self._map(lambda value: value.to(device))

    def above(self, score: float) -> Detections:
        """Those with a score above `score`."""
        return self[self.scores > score]

    def to_supervision(self, classes: tuple[str, ...] | None = None) -> supervision.Detections:
        """As `supervision.Detections`; with `classes` their names go into `data["class_name"]`."""
        import numpy as np
        import supervision

        labels = self.labels.cpu().numpy()
        data: dict[str, Any] = {} if classes is None else {"class_name": np.array([classes[i] for i in labels], dtype=object)}
        return supervision.Detections(
            xyxy=self.boxes.detach().cpu().float().numpy().reshape(-1, 4),
            mask=None if self.masks is None else self.masks.cpu().numpy().astype(bool),
            confidence=self.scores.detach().cpu().float().numpy(),
            class_id=labels,
            tracker_id=None if self.track_ids is None else self.track_ids.cpu().numpy(),
            data=data,
        )

    @classmethod
    def from_supervision(cls, found: supervision.Detections) -> Detections:
        """From `supervision.Detections`; absent confidences become 1, absent classes 0."""
        n = len(found.xyxy)
        return cls(
            boxes=torch.as_tensor(found.xyxy, dtype=torch.float32).reshape(-1, 4),
            scores=torch.ones(n) if found.confidence is None else torch.as_tensor(found.confidence, dtype=torch.float32),
            labels=torch.zeros(n, dtype=torch.int64) if found.class_id is None else torch.as_tensor(found.class_id, dtype=torch.int64),
            masks=None if found.mask is None else torch.as_tensor(found.mask, dtype=torch.bool),
            track_ids=None if found.tracker_id is None else torch.as_tensor(found.tracker_id, dtype=torch.int64),
        )


@dataclass
class SegmentationMap:
    """`labels` (H, W) int64 of the original image's size; optional `scores` (H, W) or (K, H, W) probabilities.

    `coarse` (K, h, w): probabilities at the network's own resolution, for entropy and its map; None where they are not known.
    """

    labels: Tensor
    scores: Tensor | None = None
    coarse: Tensor | None = None

    def to(self, device: torch.device | str) -> SegmentationMap:
        """The same on `device`."""
        known = {f.name: value.to(device) for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return SegmentationMap(**known)


@dataclass
class Tubes:
    """Action tubes of one video: each tube is one person through time.

    `frames[i]` (t,) int64, `boxes[i]` (t, 4), `scores` (n,), `labels` (n,) int64 of tube i.
    """

    frames: list[Tensor]
    boxes: list[Tensor]
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.frames)


Prediction = Classification | Detections | SegmentationMap | Panoptic | Tubes
Outputs = Mapping[str, Any]
