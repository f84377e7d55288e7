"""The network that stays fixed beside a student: that of a checkpoint, or the student as it began."""
from __future__ import annotations

from dataclasses import dataclass

from saccade.engine.checkpoints import load_model
from saccade.models.contract import Model


@dataclass(frozen=True, kw_only=True)
class FixedNetwork:
    """`checkpoint`: a run folder (its best checkpoint, else its last) or a checkpoint folder, whose model is built as it says itself. None takes the
    student as it is before the first step; its weights are then in every checkpoint of the run."""

    checkpoint: str | None = None

    def opens(self) -> Model | None:
        """The checkpoint's network, None without one. Raises InputError for what is no checkpoint, StorageError for a damaged one."""
        return None if self.checkpoint is None else load_model(self.checkpoint)
