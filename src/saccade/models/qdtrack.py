"""QDTrack, quasi-dense similarity learning for tracking (Pang et al. 2021, arXiv:2006.06664): a two-stage detector whose boxes have embeddings.

Read from top to bottom: a pair of frames goes through one backbone and pyramid; the detector learns on the key frame; regions of both frames get
embeddings, and each sampled object of the key frame is told apart from all sampled regions of the reference frame. Frame by frame, a tracker then
joins detections whose embeddings are alike. Facts: spec tracking.md, 1 to 6. Left out: segmentation (QDTrack-MOTS), the tracker of TAO.
"""
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from saccade.layers.assigning import Assignment, MaxIoUAssigner
from saccade.layers.backbone import TimmBackbone
from saccade.layers.contrastive import cosine_loss, instance_targets, multi_positive_loss, pairwise_cosines
from saccade.layers.pixels import IMAGENET_MEAN, PixelNorm
from saccade.layers.sampling import Sampler
from saccade.layers.track_head import TrackHead
from saccade.layers.two_stage import MMDET, SMOOTH_L1, Truth, TwoStage, TwoStageSettings, truths_of
from saccade.models.contract import VideoModel
from saccade.ops.boxes import clip_to_canvas
from saccade.structures import Annotations, Batch, Detections, Outputs, Prediction

# mmdetection's detector, but boxes may leave the picture, and the proposal network's boxes learn by smooth L1 (spec 1, 3).
QDTRACK = replace(MMDET, clip_boxes=False, rpn_box_beta=SMOOTH_L1)
NOBODY = -1  # the instance id of what belongs to no object


class Tracker(Protocol):
    """What joins the detections of one frame after another: see `saccade.tracking`."""

    def update(self, detections: Detections, frame_index: int) -> Detections: ...
    def reset(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass
class Following:
    """The state of one video: a tracker of its own (None: frames are not joined), and the number of the next frame where frames have none."""

    tracker: Tracker | None
    frame: int = 0


class QDTrack(VideoModel):
    """Detector and tracker of `classes`.

    `backbone` gives the maps of the pyramid, finest first; `settings` are the detector's. `tracker` joins detections; without one frames are
    predicted one by one. Regions of a frame that learn to be told apart: at most `track_samples`, up to half of them objects (overlap at least 0.7)
    of which each object gives about as many, the others background (overlap below `track_negative`), at most three an object, drawn by
    `track_negatives`.
    `track_weight` and `aux_weight`: of the two losses on embeddings. `learn_both`: the detector learns on both frames of a pair, which costs little,
    as both are computed anyway; the original learns on the key frame alone. `pixel_norm`: caffe's BGR statistics unless given.

    `reference_quirks`: as in the original, objects whose instance id is 0 never match, objects outside the picture are learnt, fewer samples are
    drawn than could be, and the detector has its own quirks (`TwoStageSettings`).
    """

    def __init__(
        self, *, classes: Sequence[str], backbone: TimmBackbone, settings: TwoStageSettings = QDTRACK, track_head: TrackHead | None = None,
        tracker: Tracker | None = None, track_samples: int = 256, track_negative: float = 0.5,
        track_negatives: Literal["random", "iou_balanced"] = "random", track_weight: float = 0.25, aux_weight: float = 1.0,
        learn_both: bool = False, pixel_norm: PixelNorm | None = None, reference_quirks: bool = False,
    ) -> None:
        super().__init__(classes, pixel_norm or PixelNorm(mean=IMAGENET_MEAN, std=(1.0, 1.0, 1.0), channel_order="bgr"))
        settings = replace(settings, reference_quirks=settings.reference_quirks or reference_quirks)
        self.detector = TwoStage(num_classes=len(self.classes), backbone=backbone, settings=settings)
        self.track_head = track_head or TrackHead(in_channels=settings.channels, strides=backbone.strides)
        self.tracker, self.track_weight, self.aux_weight = tracker, track_weight, aux_weight
        self.learn_both, self.reference_quirks = learn_both, reference_quirks
        self.track_assigner = MaxIoUAssigner(positive=0.7, negative=track_negative, low_quality=False)
        self.track_sampler = Sampler(
            track_samples, 0.5, negatives_per_positive=3.0, positives="instance_balanced", negatives=track_negatives,
            reference_quirks=reference_quirks,
        )

    def forward(self, batch: Batch) -> Outputs:
        """What `TwoStage.forward` gives of the images or, for pairs (N, 2, 3, H, W), of the key frames; then with the same of the other frames as
        `reference`, whose proposals are those of testing, and of the keys followed by the others as `both`.
        """
        if batch.images.ndim == 4:
            return self.detector(self.pixel_norm(batch.images, batch.padding), batch.padding)
        if batch.images.shape[1] != 2:
            raise ValueError(f"QDTrack learns from pairs of frames (data set FramePairs); got clips of {batch.images.shape[1]}")
        count = len(batch)
        images = batch.images.transpose(0, 1).flatten(0, 1)  # (2N, 3, H, W), the keys first
        padding = None if batch.padding is None else batch.padding.transpose(0, 1).flatten(0, 1)
        both = self.detector.maps(self.pixel_norm(images, padding), padding)
        frames = []
        for own, training in ((slice(0, count), self.training), (slice(count, None), False)):
            part: dict[str, Any] = {name: [level[own] for level in both[name]] for name in ("features", "rpn_logits", "rpn_deltas")}
            part |= {"sizes": both["sizes"][own], "canvas": both["canvas"]}
            frames.append(part | {"proposals": self.detector.propose(part, training)})
        return frames[0] | {"reference": frames[1], "both": both | {"proposals": frames[0]["proposals"] + frames[1]["proposals"]}}

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The detector's four losses on the key frames (or both), and `loss_track` and `loss_track_aux` on the pairs.

        Single images are pairs with themselves.
        """
        if "reference" not in outputs:
            reference = {**outputs, "proposals": self.detector.propose(outputs, False)}
            return self._detection_losses(outputs, batch.targets) | self.contrast(outputs, batch.targets, reference, batch.targets)
        keys, references = batch.targets[0::2], batch.targets[1::2]
        detection = self._detection_losses(outputs["both"], keys + references) if self.learn_both else self._detection_losses(outputs, keys)
        return detection | self.contrast(outputs, keys, outputs["reference"], references)

    def _detection_losses(self, outputs: Outputs, targets: Sequence[Annotations]) -> dict[str, Tensor]:
        return self.detector.losses(outputs, self._truths(targets, outputs))

    def detection_losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The detector's four losses alone, on images: what self-training on pseudo objects learns from."""
        return self.detector.losses(outputs, self._truths(batch.targets, outputs))

    def contrast(
        self, key: Outputs, key_targets: Sequence[Annotations], reference: Outputs, reference_targets: Sequence[Annotations]
    ) -> dict[str, Tensor]:
        """`loss_track` and `loss_track_aux`, means over the pairs: objects of the key frames against regions of the reference frames.

        Read of both outputs: `features`, `proposals`, `sizes`. Targets: `boxes` in pixels of the network's input, `labels`, `track_ids`.
        """
        keys = self.sample_instances(key, key_targets, objects_only=True)
        references = self.sample_instances(reference, reference_targets, objects_only=False)
        key_vectors = self.embed(key["features"], [boxes for boxes, _ in keys])
        reference_vectors = self.embed(reference["features"], [boxes for boxes, _ in references])
        track, aux = [], []
        for left, right, (_, left_ids), (_, right_ids) in zip(key_vectors, reference_vectors, keys, references, strict=True):
            same = instance_targets(left_ids, right_ids)
            track.append(multi_positive_loss(left @ right.T, same))
            aux.append(cosine_loss(pairwise_cosines(left, right), same))
        return {"loss_track": self.track_weight * torch.stack(track).mean(), "loss_track_aux": self.aux_weight * torch.stack(aux).mean()}

    @torch.no_grad()
    def sample_instances(self, outputs: Outputs, targets: Sequence[Annotations], *, objects_only: bool) -> list[tuple[Tensor, Tensor]]:
        """Of each picture (boxes (n, 4), instance ids (n,)) of a sample of its objects and proposals; background, unless left out, follows with
        id -1.
        """
        found = []
        for proposals, truth, target in zip(outputs["proposals"], self._truths(targets, outputs), targets, strict=True):
            boxes = torch.cat([truth.boxes.to(proposals.dtype), proposals])
            assignment: Assignment = self.track_assigner(boxes, truth.boxes)
            sampled = self.track_sampler(assignment)
            ids = self._ids(target, truth)[assignment.matched[sampled.positive]]
            if objects_only:
                found.append((boxes[sampled.positive], ids))
            else:
                found.append((boxes[torch.cat(sampled)], torch.cat([ids, torch.full_like(sampled.negative, NOBODY)])))
        return found

    def _truths(self, targets: Sequence[Annotations], outputs: Outputs) -> list[Truth]:
        sizes = outputs["sizes"]
        if self.reference_quirks:
            sizes = torch.full_like(sizes, float("inf"))
        return truths_of(targets, sizes)

    def _ids(self, target: Annotations, truth: Truth) -> Tensor:
        """The instance ids (g,) of the objects of `truth`: their rows where they have none."""
        ids = truth.rows if target.track_ids is None else target.track_ids.to(truth.rows.device)[truth.rows]
        return ids.masked_fill(ids <= 0, NOBODY) if self.reference_quirks else ids

    def embed(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """(n_i, D) float32 embeddings of `boxes`, one (n_i, 4) an image in pixels of the network's input; `features` the pyramid."""
        vectors: Tensor = self.track_head(features, boxes)
        return list(vectors.float().split([len(own) for own in boxes]))

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """`Detections` with embeddings of every image (of pairs: of the key frame), in pixels of the original, best first."""
        metas = batch.metas[::2] if "reference" in outputs else batch.metas
        found = self.detector.detect(outputs)
        embeddings = self.embed(outputs["features"], [boxes for boxes, _, _ in found])
        made: list[Prediction] = []
        for (boxes, scores, labels), vectors, meta in zip(found, embeddings, metas, strict=True):
            if meta.geometry is not None:
                boxes = meta.geometry.boxes_to_original(boxes)
            if self.detector.settings.clip_boxes and meta.original_size is not None:
                boxes = clip_to_canvas(boxes, meta.original_size)
            made.append(Detections(boxes, scores, labels, embeddings=vectors)[(boxes[:, 2:] > boxes[:, :2]).all(1)])
        return made

    def start(self) -> Following:
        """The state before the first frame of a video."""
        tracker = copy.deepcopy(self.tracker)
        if tracker is not None:
            tracker.reset()
        return Following(tracker)

    def step(self, batch: Batch, state: Following) -> tuple[Detections, Following]:
        """The detections of the next frame that belong to a track, with `track_ids`; all of them, without, where there is no tracker."""
        found = self.predictions(self(batch), batch)[0]
        assert isinstance(found, Detections)
        if state.tracker is None:
            return found, state
        number = batch.metas[0].frame
        frame = state.frame if number is None else number
        return state.tracker.update(found, frame), Following(state.tracker, frame + 1)

    def detect(self, outputs: Outputs) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(boxes (n, 4) in pixels of the network's input, scores (n,), labels (n,)) of every image, best first."""
        return self.detector.detect(outputs)

    def extract(self, images: Tensor) -> list[Tensor]:
        """The pyramid of normalised `images` (N, 3, H, W), finest first."""
        return self.detector.extract(images)

    def propose(self, outputs: Outputs, training: bool) -> list[Tensor]:
        """(p, 4) proposals of every image, best first, detached."""
        return self.detector.propose(outputs, training)

    def box_outputs(self, features: Sequence[Tensor], rois: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (R, K + 1), background last, and deltas (R, 4K) of `rois`, one (n_i, 4) an image."""
        return self.detector.box_outputs(features, rois)

    def parameter_groups(self) -> dict[str, list[str]]:
        """`backbone`, `track_head`, and `head` for pyramid and both stages of the detector."""
        names = [name for name, _ in self.named_parameters()]
        backbone = [name for name in names if name.startswith("detector.backbone.")]
        track = [name for name in names if name.startswith("track_head.")]
        return {"backbone": backbone, "head": [name for name in names if name not in {*backbone, *track}], "track_head": track}

    def head_keys(self) -> tuple[str, ...]:
        """The last two layers of the box head."""
        return ("detector.box_head.logits.", "detector.box_head.deltas.")
