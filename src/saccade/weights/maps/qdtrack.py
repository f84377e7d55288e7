"""Key names of QDTrack in mmtracking 0.14 and in DARTH's checkpoints (github.com/mattiasegu/darth); spec tracking.md 1.3.

The detector has mmdetection's names behind `detector.`. A DARTH checkpoint holds the student under these names and the teacher under the same with
`teacher_` in front. `qdtrack` fills a model with the student and leaves the teacher's tensors over as `teacher.*`; `qdtrack_teacher` fills it with
the teacher and leaves the student's over as `student.*`; name them in `missing` of the weights section. The background is the last class.
"""
from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor, nn

from saccade.weights.key_map import KeyMap, Tensors
from saccade.weights.maps.mmdet import mmdet_name

# Our names of the track head -> theirs.
_RENAMES = (
    (r"^track_head\.convs\.(\d+)\.0\.", r"track_head.embed_head.convs.\1.conv."),
    (r"^track_head\.convs\.(\d+)\.1\.", r"track_head.embed_head.convs.\1.gn."),
    (r"^track_head\.hidden\.(\d+)\.", r"track_head.embed_head.fcs.\1."),
    (r"^track_head\.embedding\.", r"track_head.embed_head.fc_embed."),
)


def original_name(key: str) -> str:
    """The original's name for a key of `QDTrack`; other keys stay as they are."""
    if key.startswith("detector."):
        return f"detector.{mmdet_name(key).removeprefix('detector.')}"
    for ours, theirs in _RENAMES:
        if re.match(ours, key):
            return re.sub(ours, theirs, key)
    return key


def student_to_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under our names; those of a teacher behind `teacher.`."""
    student, teacher = _two(tensors, module)
    return student | {f"teacher.{key}": value for key, value in teacher.items()}


def teacher_to_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """The teacher of `tensors` under our names; the student's behind `student.`."""
    student, teacher = _two(tensors, module)
    return teacher | {f"student.{key}": value for key, value in student.items()}


def student_from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under the original's names; those behind `teacher.` as a DARTH teacher's."""
    return {("teacher_" if key.startswith("teacher.") else "") + original_name(key.removeprefix("teacher.")): v for key, v in tensors.items()}


def teacher_from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under the original's names as a DARTH teacher's; those behind `student.` as the student's."""
    return {("" if key.startswith("student.") else "teacher_") + original_name(key.removeprefix("student.")): v for key, v in tensors.items()}


def _two(tensors: Tensors, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Student and teacher under our names, each without the counters of batch norms that `module` has frozen."""
    ours = {original_name(key): key for key in module.state_dict()}
    found: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
    for key, value in tensors.items():
        plain = key.removeprefix("teacher_")
        if plain in ours or not plain.endswith(".num_batches_tracked"):
            found[key.startswith("teacher_")][ours.get(plain, plain)] = value
    return found


def recognises(keys: Collection[str]) -> bool:
    """Whether these are the keys of mmtracking's QDTrack: its embedding head, and a detector under that name."""
    return any(k.startswith("track_head.embed_head.") for k in keys) and any(k.startswith("detector.roi_head.bbox_head.") for k in keys)


KEY_MAP = KeyMap("qdtrack", recognises, student_to_saccade, student_from_saccade)
