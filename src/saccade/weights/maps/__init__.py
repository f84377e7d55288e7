"""Key maps, one file an origin: which names and layouts a foreign checkpoint has. Reading this table imports none of them."""
from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection

from saccade.errors import InputError
from saccade.weights.key_map import KeyMap

# origin -> module with a KEY_MAP; files are recognised in this order, the most particular names first.
ORIGINS: dict[str, str] = {
    "qdtrack": "saccade.weights.maps.qdtrack",
    "qdtrack_teacher": "saccade.weights.maps.qdtrack_teacher",
    "mmdet": "saccade.weights.maps.mmdet",
    "torchvision_detection": "saccade.weights.maps.torchvision_detection",
    "detr": "saccade.weights.maps.detr",
    "transformers_detr": "saccade.weights.maps.transformers_detr",
    "lufficc_ssd": "saccade.weights.maps.lufficc_ssd",
    "torchvision_ssd": "saccade.weights.maps.torchvision_ssd",
    "proda": "saccade.weights.maps.proda",
    "adaptsegnet": "saccade.weights.maps.adaptsegnet",
    "advent": "saccade.weights.maps.advent",
    "deeplab_init": "saccade.weights.maps.deeplab_init",
    "fc_discriminator": "saccade.weights.maps.fc_discriminator",
    "advent_discriminator": "saccade.weights.maps.advent_discriminator",
    "saccade": "saccade.weights.maps.saccade",
    "mmcls": "saccade.weights.maps.mmcls",
    "torchvision": "saccade.weights.maps.torchvision",
    "timm": "saccade.weights.maps.timm",
}


def key_map(origin: str) -> KeyMap:
    """The key map of `origin`. Raises InputError with the nearest name for an unknown one."""
    if origin not in ORIGINS:
        near = difflib.get_close_matches(origin, ORIGINS, n=1)
        raise InputError(f"There is no key map for {origin!r}{f'; did you mean {near[0]!r}?' if near else ''}. Known: {', '.join(ORIGINS)}.")
    found: KeyMap = importlib.import_module(ORIGINS[origin]).KEY_MAP
    return found


def recognise(keys: Collection[str]) -> str | None:
    """The first origin whose checkpoints have names like `keys`, or None."""
    return next((origin for origin in ORIGINS if key_map(origin).recognises(keys)), None)
