"""What there is in the town: classes, stuff, actions, domains, splits.

Semantic labels begin with the object classes, so a thing has the same number as an object label, in a semantic map and in a panoptic map.
"""
from __future__ import annotations

from typing import Literal

DomainName = Literal["day", "night", "fog", "rain", "sketch", "camera"]

CLASSES = ("person", "car", "bus", "truck", "bicycle", "dog")
STUFF = ("road", "sidewalk", "building", "vegetation", "sky", "furniture")
SEMANTIC_CLASSES = CLASSES + STUFF
ACTIONS = ("stand", "walk", "run", "wave", "jump", "sit", "turn", "ride")
DOMAINS: tuple[DomainName, ...] = ("day", "night", "fog", "rain", "sketch", "camera")
SPLITS = ("train", "val", "test")

NO_ACTION = -1  # what `actions` says of an object that is no person

PERSON, CAR, BUS, TRUCK, BICYCLE, DOG = range(len(CLASSES))
ROAD, SIDEWALK, BUILDING, VEGETATION, SKY, FURNITURE = range(len(CLASSES), len(SEMANTIC_CLASSES))
STAND, WALK, RUN, WAVE, JUMP, SIT, TURN, RIDE = range(len(ACTIONS))
