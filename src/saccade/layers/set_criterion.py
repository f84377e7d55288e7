"""The set criterion (Carion et al. 2020, sections 3.1 and A.2; detr_family.md 1.8): what queries are taught once they are matched with objects.

Every decoder layer is matched by itself and taught the same; all layers and images are computed together. Left out: the encoder's proposals of
two-stage models.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.ops import box_convert, sigmoid_focal_loss

from saccade.layers.set_matching import CostWeights, Matches, SetTruth, cost_terms, match_sets, matching_costs
from saccade.ops.boxes import generalized_iou
from saccade.ops.distributed import mean_over_processes
from saccade.structures.ranges import NonNegativeFloat, Probability

# Mask losses of more pixels than these are computed in parts, and again in the backward pass, instead of being kept: 16 MiB a tensor. Measured
# with 40 masks of 800 x 1066 on a CPU: half the time of all at once and half the peak memory, although the forward pass runs twice.
PIXELS_AT_ONCE = 2**22
_MASK_ALPHA, _MASK_GAMMA = 0.25, 2.0


@dataclass(frozen=True, kw_only=True)
class SetCriterion:
    """Matching and losses of DETR and its kin.

    `class_loss`: cross-entropy over the classes and "no object" (the last logit), whose queries count `eos_coef`; or a focal loss of one sigmoid a
    class with `focal_alpha` and `focal_gamma`, without such a logit. `cost_*`: what class, L1 distance and generalised IoU count in the matching;
    `weight_*`: what each loss counts in the sum (`weight_mask` and `weight_dice` for models with masks).
    """

    class_loss: Literal["softmax", "focal"] = "softmax"
    eos_coef: Probability = 0.1
    focal_alpha: Probability = 0.25
    focal_gamma: NonNegativeFloat = 2.0
    cost_class: NonNegativeFloat = 1.0
    cost_bbox: NonNegativeFloat = 5.0
    cost_giou: NonNegativeFloat = 2.0
    weight_ce: NonNegativeFloat = 1.0
    weight_bbox: NonNegativeFloat = 5.0
    weight_giou: NonNegativeFloat = 2.0
    weight_mask: NonNegativeFloat = 1.0
    weight_dice: NonNegativeFloat = 1.0

    def match(
        self, outputs: Mapping[str, Any], truth: SetTruth, sample_names: Sequence[str] = (), *, forced: Tensor | None = None,
        forbidden: Tensor | None = None,
    ) -> Matches:
        """The pairs of every decoder layer; arguments and errors are those of `match_sets`."""
        logits, boxes = outputs["logits"], outputs["boxes"]
        focal = {"alpha": self.focal_alpha, "gamma": self.focal_gamma}
        weights = CostWeights(self.cost_class, self.cost_bbox, self.cost_giou)
        return match_sets(
            matching_costs(logits, boxes, truth, weights, self.class_loss, **focal), truth.counts, forced=forced, forbidden=forbidden,
            sample_names=sample_names, terms=lambda: cost_terms(logits, boxes, truth, self.class_loss, **focal),
        )

    def losses(
        self, outputs: Mapping[str, Any], truth: SetTruth, sample_names: Sequence[str] = (), *, matches: Matches | None = None
    ) -> dict[str, Tensor]:
        """Weighted scalar terms: the training loss is their sum.

        `loss_ce`, `loss_bbox`, `loss_giou` of the last decoder layer, `loss_mask` and `loss_dice` where there are masks, and `loss_ce_0` and so on of
        the layers before. `outputs`: `logits` (L, N, Q, R + 1) or, focal, (L, N, Q, R); `boxes` (L, N, Q, 4) relative (cx, cy, w, h); optional
        `masks` (N, Q, h, w), logits of the last layer. `matches`: those of `match`, for callers that need them too (`matches.of_layer(L - 1)` is the
        last layer's); matched here if None. Over several processes each must call it: they share the number of objects. Raises NumericError for costs
        that are not finite, naming the sample; ValueError for masks without truth.
        """
        logits, boxes, masks = outputs["logits"], outputs["boxes"], outputs.get("masks")
        if matches is None:
            matches = self.match(outputs, truth, sample_names)
        objects = mean_over_processes(torch.tensor(float(len(truth.labels)), device=logits.device)).clamp(min=1)
        distance, overlap = box_losses(boxes, truth, matches)
        by_layer = {
            "loss_ce": self.weight_ce * self._label_losses(logits, truth, matches, objects),
            "loss_bbox": self.weight_bbox / objects * distance, "loss_giou": self.weight_giou / objects * overlap,
        }  # (L,) each
        apart = {name: values.unbind(0) for name, values in by_layer.items()}
        terms = {name: values[-1] for name, values in apart.items()}
        if masks is not None:
            focal, dice = mask_losses(masks, truth, matches.of_layer(len(logits) - 1))
            terms |= {"loss_mask": self.weight_mask / objects * focal, "loss_dice": self.weight_dice / objects * dice}
        return terms | {f"{name}_{layer}": values[layer] for layer in range(len(logits) - 1) for name, values in apart.items()}

    @torch.no_grad()
    def figures(self, outputs: Mapping[str, Any], truth: SetTruth, matches: Matches) -> dict[str, Tensor]:
        """What is worth watching but not taught.

        `class_error`: the percentage of the last layer's matched queries whose best class is wrong, 100 without any. `cardinality_error` (`_0`, ...
        for earlier layers): how far the number of queries that say something is off the number of objects, on average over images. A query says
        something when its best logit is not "no object"; with sigmoids, when a class has more than one half.
        """
        logits = outputs["logits"]
        last = matches.of_layer(len(logits) - 1)
        classes = logits if self.class_loss == "focal" else logits[..., :-1]
        right = logits[-1][last.image, last.query].argmax(-1) == truth.labels[last.target]
        says = logits.amax(-1) > 0 if self.class_loss == "focal" else logits.argmax(-1) < classes.shape[-1]  # (L, N, Q)
        off = (says.sum(2) - truth.counts.to(logits.device)).abs().float().mean(1)
        figures = {"class_error": 100 - 100 * right.sum() / max(len(right), 1), "cardinality_error": off[-1]}
        return figures | {f"cardinality_error_{layer}": value for layer, value in enumerate(off[:-1])}

    def _label_losses(self, logits: Tensor, truth: SetTruth, matches: Matches, objects: Tensor) -> Tensor:
        if self.class_loss == "softmax":
            return label_losses(logits, truth, matches, self.eos_coef)
        return focal_label_losses(logits, truth, matches, self.focal_alpha, self.focal_gamma) / objects


def label_losses(logits: Tensor, truth: SetTruth, matches: Matches, eos_coef: float) -> Tensor:
    """(L,): weighted mean of the cross-entropy over the queries of each layer; queries without object, whose class is the last, count `eos_coef`."""
    no_object = logits.shape[-1] - 1
    wanted = torch.full(logits.shape[:-1], no_object, device=logits.device)  # (L, N, Q)
    wanted[matches.layer, matches.image, matches.query] = truth.labels[matches.target]
    surprise = F.cross_entropy(logits.float().flatten(0, 2), wanted.flatten(), reduction="none").view_as(wanted)
    weight = torch.where(wanted == no_object, eos_coef, 1.0)
    return (surprise * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=torch.finfo(torch.float32).tiny)  # nothing counts: no object, eos_coef 0


def focal_label_losses(logits: Tensor, truth: SetTruth, matches: Matches, alpha: float, gamma: float) -> Tensor:
    """(L,): sum of the focal loss over all queries and classes of each layer; a query without object has none of the classes."""
    wanted = torch.zeros(logits.shape, device=logits.device)
    wanted[matches.layer, matches.image, matches.query, truth.labels[matches.target]] = 1
    loss: Tensor = sigmoid_focal_loss(logits.float(), wanted, alpha, gamma)
    return loss.sum((1, 2, 3))


def box_losses(boxes: Tensor, truth: SetTruth, matches: Matches) -> tuple[Tensor, Tensor]:
    """((L,), (L,)): sums over the matched pairs of each layer of the L1 distance and of 1 - generalised IoU; `boxes` (L, N, Q, 4) cxcywh."""
    got, wanted = boxes[matches.layer, matches.image, matches.query].float(), truth.boxes[matches.target]  # (M, 4)
    distance = (got - wanted).abs().sum(1)
    overlap = 1 - generalized_iou(box_convert(got, "cxcywh", "xyxy"), box_convert(wanted, "cxcywh", "xyxy"))
    nothing = got.new_zeros(len(boxes))
    return nothing.index_add(0, matches.layer, distance), nothing.index_add(0, matches.layer, overlap)


def mask_losses(masks: Tensor, truth: SetTruth, matches: Matches, pixels_at_once: int = PIXELS_AT_ONCE) -> tuple[Tensor, Tensor]:
    """Sums over the pairs of one layer of the focal loss, itself a mean over pixels, and of the dice loss; `masks` (N, Q, h, w) logits.

    Only matched masks are enlarged, bilinearly, to the size of the truth's; the padding counts as the rest does. Above `pixels_at_once` the memory
    stays that of so many pixels. Raises ValueError where the truth has no masks.
    """
    if truth.masks is None:
        raise ValueError("the outputs have masks but the truth has none; make it with set_truth(..., masks=True)")
    chosen = masks[matches.image, matches.query]  # (M, h, w)
    height, width = truth.masks.shape[-2:]
    most = max(1, pixels_at_once // max(1, height * width))
    parts = list(zip(chosen.split(most), matches.target.split(most), strict=True))
    if len(parts) == 1:
        sums = _focal_and_dice(chosen, truth.masks[matches.target])
    else:
        rerun = [checkpoint(_focal_and_dice, part, truth.masks[target], use_reentrant=False, preserve_rng_state=False) for part, target in parts]
        sums = torch.stack(rerun).sum(0)
    return sums[0], sums[1]


def _focal_and_dice(chosen: Tensor, wanted: Tensor) -> Tensor:
    """(2,): both sums for mask logits (m, h, w) and bool masks (m, H, W)."""
    logits = F.interpolate(chosen[:, None].float(), size=wanted.shape[-2:], mode="bilinear", align_corners=False).flatten(1)
    target = wanted.flatten(1).float()
    focal: Tensor = sigmoid_focal_loss(logits, target, _MASK_ALPHA, _MASK_GAMMA)
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * target).sum(1) + 1) / (probability.sum(1) + target.sum(1) + 1)
    return torch.stack([focal.mean(1).sum(), dice.sum()])
