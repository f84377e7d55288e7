"""Number types with a range, for constructor arguments; the recipe checker knows them by name."""
from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Probability = Annotated[float, Ge(0), Le(1)]
