"""The closed table of what a recipe may name with `type:`.

A name stands for a class or function of saccade (or of torchvision's transforms); recipes cannot reach anything else. Entries are strings, so that
reading this table imports nothing.
"""
from __future__ import annotations

# kind -> name -> "module:attribute"
TABLE: dict[str, dict[str, str]] = {
    "models": {
    },
    "backbones": {
    },
    "losses": {
    },
    "datasets": {
    },
    "transforms": {
    },
    "batch transforms": {
    },
    "learners": {
    },
    "optimizers": {
    },
    "schedules": {
    },
    "metrics": {
    },
    "loggers": {
    },
}
