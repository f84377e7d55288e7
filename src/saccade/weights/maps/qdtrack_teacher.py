"""Key names of DARTH's checkpoints, of which the teacher is taken; see `qdtrack`, which is what "auto" takes."""
from __future__ import annotations

from collections.abc import Collection

from saccade.weights.key_map import KeyMap
from saccade.weights.maps.qdtrack import teacher_from_saccade, teacher_to_saccade


def recognises(keys: Collection[str]) -> bool:
    """Never by itself: the student has the same names, and is what a checkpoint is evaluated with."""
    return False


KEY_MAP = KeyMap("qdtrack_teacher", recognises, teacher_to_saccade, teacher_from_saccade)
