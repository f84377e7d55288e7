"""QDTrack's association (Pang et al. 2021, "Quasi-dense similarity learning for multiple object tracking", section 3.3): appearance alone.

Detections are compared with all remembered tracks and with the backdrops (unmatched boxes of the last frames, which draw false matches to
themselves) by a softmax in both directions. There is no motion model and no gate, so objects may move as they like between frames.

Equal to the QuasiDenseTracker of mmtracking and DARTH with `reference_quirks`, where a frame without detections leaves the memory as it is (tracks
do not age, backdrops stay), a label may change within a track, and ids count from 0.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.errors import NumericError
from saccade.ops.boxes import pairwise_iou
from saccade.structures import Detections
from saccade.structures.ranges import NonNegativeInt, PositiveInt, Probability
from saccade.tracking.contract import Flags, Floats, Integers, Tracker, needed_embeddings

UNMATCHED, SUPPRESSED = -1, -2


class QuasiDense(Tracker):
    """Appearance alone; detections need `embeddings`.

    `init_threshold`: the score above which an unmatched detection begins a track; `score_threshold`: that above which a detection continues one;
    `match_threshold`: the similarity that a match needs. A detection of lower score that is more similar than `weak_match_threshold` is taken for a
    weak copy of its match and dropped. Detections that overlap a better one by more than `duplicate_iou` (`backdrop_iou` where their score is below
    `score_threshold`) are passed over. `memory_frames`: a track is forgotten when it was last seen so many frames ago; `backdrop_frames`: how long
    unmatched detections are remembered; `momentum`: the share of the newest embedding. `match_metric`: softmax over tracks and over detections, over
    tracks alone, or the cosine. `within_class`: only detections of a track's class match it; else it keeps its first class.
    """

    def __init__(
        self, *, init_threshold: Probability = 0.8, score_threshold: Probability = 0.5, match_threshold: float = 0.5, memory_frames: PositiveInt = 10,
        backdrop_frames: NonNegativeInt = 1, momentum: Probability = 0.8, weak_match_threshold: float = 0.5, backdrop_iou: Probability = 0.3,
        duplicate_iou: Probability = 0.7, match_metric: Literal["bisoftmax", "softmax", "cosine"] = "bisoftmax", within_class: bool = True,
        reference_quirks: bool = False,
    ) -> None:
        self.init_threshold, self.score_threshold, self.match_threshold = init_threshold, score_threshold, match_threshold
        self.memory_frames, self.backdrop_frames, self.momentum = memory_frames, backdrop_frames, momentum
        self.weak_match_threshold, self.backdrop_iou, self.duplicate_iou = weak_match_threshold, backdrop_iou, duplicate_iou
        self.match_metric, self.within_class, self.reference_quirks = match_metric, within_class, reference_quirks
        self.reset()

    def reset(self) -> None:
        """See `Tracker.reset`."""
        self.last_frame = None
        self.next_id = 0 if self.reference_quirks else 1
        self.ids = self.labels = self.last_frames = np.zeros(0, dtype=np.int64)
        self.embeddings = torch.zeros(0, 0)  # (tracks, D)
        self.backdrops: deque[tuple[Tensor, Integers]] = deque(maxlen=self.backdrop_frames)  # the newest first: embeddings and labels

    def update(self, detections: Detections, frame_index: int) -> Detections:
        """See `Tracker.update`. Raises InputError for detections without embeddings."""
        rows, ids, labels = self.associate(detections, frame_index)
        kept = (ids > UNMATCHED).nonzero()[0]
        order = kept[np.argsort(rows[kept])]
        device = detections.boxes.device
        chosen = detections[torch.from_numpy(rows[order]).to(device)]
        return replace(chosen, labels=torch.from_numpy(labels[order]).to(device), track_ids=torch.from_numpy(ids[order]).to(device))

    def associate(self, detections: Detections, frame_index: int) -> tuple[Integers, Integers, Integers]:
        """The rows of the detections that were looked at (best score first), their track ids, and their labels.

        An id is -1 where a detection is new but not sure enough to begin a track, -2 where it is a weak copy of a match.
        """
        missing = self._enter(frame_index)
        if not len(detections):
            if not self.reference_quirks:
                self._forget(frame_index, missing + 1)
            return (np.zeros(0, dtype=np.int64),) * 3
        if not self.reference_quirks:
            self._forget(frame_index - 1, missing)
        embeddings = needed_embeddings(detections, "QuasiDense").detach()
        boxes, scores = detections.boxes.detach().cpu(), detections.scores.detach().cpu()
        if not bool(boxes.isfinite().all() and scores.isfinite().all() and embeddings.isfinite().all()):
            raise NumericError(f"frame {frame_index}: the detections have boxes, scores or embeddings that are not finite, so they can't be tracked")
        rows = self._distinct(boxes, scores)
        place = torch.from_numpy(rows)
        boxes, labels, embeddings = boxes[place], detections.labels.cpu().numpy()[rows], embeddings[place.to(embeddings.device)]
        certain, initial = (scores[place] > self.score_threshold).numpy(), (scores[place] > self.init_threshold).numpy()
        ids, columns = self._match(embeddings, labels, certain)
        new = ((ids == UNMATCHED) & initial).nonzero()[0]
        ids[new] = np.arange(self.next_id, self.next_id + len(new))
        self.next_id += len(new)
        self._remember(ids, columns, new, boxes, labels, embeddings, frame_index)
        if not self.reference_quirks:
            known = columns >= 0
            labels = np.where(known, self.labels[np.where(known, columns, 0)] if len(self.labels) else labels, labels)
        self._forget(frame_index, 0)
        return rows, ids, labels

    def _distinct(self, boxes: Tensor, scores: Tensor) -> Integers:
        """Rows of boxes with an area that do not lie on a better one, best first."""
        order = scores.argsort(descending=True, stable=True)
        order = order[(boxes[order, 2:] > boxes[order, :2]).all(1)]
        iou = pairwise_iou(boxes[order], boxes[order]).tril(-1)
        limits = torch.where(scores[order] < self.score_threshold, self.backdrop_iou, self.duplicate_iou)
        return order[~(iou > limits[:, None]).any(1)].numpy()

    def _match(self, embeddings: Tensor, labels: Integers, certain: Flags) -> tuple[Integers, Integers]:
        """Ids of the detections, and the place in memory of the tracks that they continue (-1: none)."""
        ids, columns = np.full(len(labels), UNMATCHED), np.full(len(labels), -1)
        if not len(self.ids):
            return ids, columns
        similarity = self._similarity(embeddings, labels)
        tracks = len(self.ids)
        for row in range(len(labels)):  # the best first: each match takes its track away from those after it
            column = int(similarity[row].argmax())
            value = similarity[row, column]
            if column >= tracks or not value > self.match_threshold:
                continue
            if certain[row]:
                ids[row], columns[row] = self.ids[column], column
                similarity[:, column] = 0.0
            elif value > self.weak_match_threshold:
                ids[row] = SUPPRESSED
        return ids, columns

    def _similarity(self, embeddings: Tensor, labels: Integers) -> Floats:
        """(detections, tracks and backdrops): how alike they are."""
        memory = torch.cat([self.embeddings.to(embeddings), *(known.to(embeddings) for known, _ in self.backdrops if len(known))])
        if self.match_metric == "cosine":
            similarity = F.normalize(embeddings) @ F.normalize(memory).T
        else:
            products = embeddings @ memory.T
            similarity = products.softmax(1)
            if self.match_metric == "bisoftmax":
                similarity = (similarity + products.softmax(0)) / 2
        values = similarity.cpu().float().numpy()
        if self.within_class:
            remembered = np.concatenate([self.labels, *(known for _, known in self.backdrops)])
            values = values * (labels[:, None] == remembered[None, :])
        return values

    def _remember(
        self, ids: Integers, columns: Integers, new: Integers, boxes: Tensor, labels: Integers, embeddings: Tensor, frame_index: int
    ) -> None:
        """Take the matched and new detections into the tracks, and the unmatched ones into the backdrops."""
        matched = (columns >= 0).nonzero()[0]
        place = torch.from_numpy(columns[matched]).to(embeddings.device)
        memory = self.embeddings.to(embeddings) if len(self.ids) else embeddings[:0]
        blend = (1 - self.momentum) * memory[place] + self.momentum * embeddings[torch.from_numpy(matched).to(embeddings.device)]
        # Not in place: the memory may come from inference mode, and this frame not.
        self.embeddings = torch.cat([memory.index_copy(0, place, blend), embeddings[torch.from_numpy(new).to(embeddings.device)]])
        self.last_frames[columns[matched]] = frame_index
        if self.reference_quirks:
            self.labels[columns[matched]] = labels[matched]
        self.ids = np.concatenate([self.ids, ids[new]])
        self.labels = np.concatenate([self.labels, labels[new]])
        self.last_frames = np.concatenate([self.last_frames, np.full(len(new), frame_index)])
        alone = ~(pairwise_iou(boxes, boxes).tril(-1) > self.backdrop_iou).any(1).numpy()
        rest = ((ids == UNMATCHED) & alone).nonzero()[0]
        self.backdrops.appendleft((embeddings[torch.from_numpy(rest).to(embeddings.device)], labels[rest]))

    def _forget(self, frame_index: int, empty_frames: int) -> None:
        """Drop the tracks that are too old after the frame `frame_index`, and the backdrops that `empty_frames` push out."""
        stay = frame_index - self.last_frames < self.memory_frames
        if not stay.all():
            self.ids, self.labels, self.last_frames = self.ids[stay], self.labels[stay], self.last_frames[stay]
            self.embeddings = self.embeddings[torch.from_numpy(stay).to(self.embeddings.device)]
        for _ in range(min(empty_frames, self.backdrop_frames)):
            self.backdrops.appendleft((self.embeddings[:0], np.zeros(0, dtype=np.int64)))

    def state_dict(self) -> dict[str, Any]:
        """See `Tracker.state_dict`."""
        return {
            "next_id": self.next_id, "last_frame": self.last_frame, "embeddings": self.embeddings.cpu().clone(),
            **{name: torch.from_numpy(getattr(self, name).copy()) for name in ("ids", "labels", "last_frames")},
            "backdrops": [(known.cpu().clone(), torch.from_numpy(labels.copy())) for known, labels in self.backdrops],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Tracker.load_state_dict`."""
        self.next_id, self.last_frame, self.embeddings = state["next_id"], state["last_frame"], state["embeddings"].clone()
        self.ids, self.labels, self.last_frames = (state[name].numpy().copy() for name in ("ids", "labels", "last_frames"))
        self.backdrops = deque(((known.clone(), labels.numpy().copy()) for known, labels in state["backdrops"]), maxlen=self.backdrop_frames)
