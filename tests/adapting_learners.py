"""Adapting learners of seconds, for tests."""
from __future__ import annotations

from torch import Tensor, nn
from torchvision.transforms.v2 import RandomHorizontalFlip

from saccade.adaptation.adapting import Adapting
from saccade.adaptation.objects import ConfidentDetections
from saccade.adaptation.terms.batch_norm_statistics import BatchNormStatistics
from saccade.adaptation.terms.entropy import Entropy
from saccade.adaptation.terms.pseudo_label_detection import PseudoLabelDetection
from saccade.adaptation.views import View
from saccade.data.transforms.ssd import PhotometricDistort
from saccade.engine.launch import start_fabric
from saccade.engine.settings import RunSettings
from saccade.learning.ema import MovingAverage
from saccade.learning.optimizers import SGD, Adam
from small_networks import classifier, detector


def started(learner: Adapting, accumulate: int = 1) -> Adapting:
    """The learner on the CPU."""
    learner.setup(start_fabric(RunSettings(batch_size=4, steps=5, accumulate=accumulate), "cpu"), 5, 5)
    return learner


def tent(**changes: object) -> Adapting:
    """TENT on a small classifier."""
    arguments: dict[str, object] = {"terms": [BatchNormStatistics(), Entropy()], "optimizer": Adam(lr=1e-2), "trainable": "norms", **changes}
    return started(Adapting(model=classifier(), **arguments))  # type: ignore[arg-type]


def mean_teacher(**changes: object) -> Adapting:
    """A mean teacher on a small detector."""
    arguments: dict[str, object] = {
        "terms": [PseudoLabelDetection()], "optimizer": SGD(lr=1e-4, momentum=0.9), "teacher": MovingAverage(momentum=0.1),
        "objects": ConfidentDetections(threshold=0.3, most=5), "clip_norm": 10.0,
        "views": {"teacher": View(transforms=[RandomHorizontalFlip(p=0.5)]), "student": View(after="teacher", transforms=[PhotometricDistort()])},
        **changes,
    }
    return started(Adapting(model=detector(), **arguments))  # type: ignore[arg-type]


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the network's tensors."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
