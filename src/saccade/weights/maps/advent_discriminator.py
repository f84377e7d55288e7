"""Key names of ADVENT's discriminator: the places of its convolutions in a list of layers."""
from __future__ import annotations

from functools import partial

from saccade.weights.key_map import KeyMap
from saccade.weights.maps import fc_discriminator

_NAMES = ("0", "2", "4", "6", "8")

KEY_MAP = KeyMap(
    "advent_discriminator", partial(fc_discriminator.recognises, names=_NAMES), partial(fc_discriminator.to_saccade, names=_NAMES),
    partial(fc_discriminator.from_saccade, names=_NAMES),
)
