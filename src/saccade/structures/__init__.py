"""The vocabulary: samples, batches, predictions. Imports nothing else of saccade."""
from saccade.structures.batch import Batch, collate
from saccade.structures.geometry import Geometry
from saccade.structures.panoptic import Panoptic, Segment
from saccade.structures.predictions import Classification, Detections, Outputs, Prediction, SegmentationMap, Tubes
from saccade.structures.sample import IGNORE, Annotations, Applied, Clip, Meta, Sample, first_frame, make_sample

__all__ = [
    "IGNORE", "Annotations", "Applied", "Batch", "Classification", "Clip", "Detections", "Geometry", "Meta", "Outputs", "Panoptic", "Prediction",
    "Sample", "Segment", "SegmentationMap", "Tubes", "collate", "first_frame", "make_sample",
]
