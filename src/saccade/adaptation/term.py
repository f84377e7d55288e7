"""What a term is: one idea of an adaptation method, as a small class in a file of `terms/`."""
from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from saccade.adaptation.context import Context
from saccade.adaptation.opponents import Opponent
from saccade.models.contract import Model


class Term(ABC):
    """Reads outputs of the networks for the views of a step and gives weighted losses by name.

    A subclass says in its docstring which outputs it reads; with `context.read` a model that lacks them is refused by name. Its constructor takes
    plain keyword arguments, its losses are scalars, and their names are those of the log. A term whose condition is not met in a step (no pseudo
    object, say) gives a loss of 0, so that the log has the same names in every step.
    """

    @abstractmethod
    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The weighted losses of this step, each a scalar with a gradient for the student; none for terms that only act on the student's layers."""

    def prepare(self, student: Model) -> None:  # noqa: B027
        """Called once, before the first step. Raises InputError where the term can't work with this model; nothing by default."""

    def around(self, student: Model, teacher: Model | None, step: int) -> AbstractContextManager[object]:
        """A context that surrounds all forward passes of a step, for terms that change how layers compute; by default none."""
        return contextlib.nullcontext()

    def opponent(self) -> Opponent | None:
        """The network that this term plays against, asked for once after `prepare`; by default none."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on, besides the opponent's: tensors, numbers, text, the same in every process; by default nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on where `state` was taken; nothing by default."""
