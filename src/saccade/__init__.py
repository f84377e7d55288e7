"""saccade: one PyTorch toolkit for visual perception.

Importing this package imports nothing heavy; `saccade.load(path)` opens a checkpoint as a model that takes raw uint8 RGB.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from saccade.models.contract import Model


def load(path: str, device: str = "cpu") -> Model:
    """The model of a checkpoint folder (or of a run folder: its best checkpoint, else its last), in evaluation mode on `device`."""
    from saccade.engine.checkpoints import load_model

    return load_model(path, device)
