"""The `weights:` section of a recipe: which file goes into which part of the model before training starts."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from saccade.errors import InputError
from saccade.weights.load import load_into, read_tensors


@dataclass(frozen=True)
class WeightSource:
    """One file (or published checkpoint) and the part of the model that it fills.

    `source`: a file, a checkpoint folder, or a name of `saccade weights list`. `into`: dotted path of the part, e.g. "backbone"; empty for the
    whole model. `origin`: whose key names the file has; "auto" recognises it. `reinitialise` and `missing`: key prefixes that may have another
    shape (and are then drawn anew) or be absent; everything else must match.
    """

    source: str
    into: str = ""
    origin: str = "auto"
    reinitialise: Sequence[str] = ()
    missing: Sequence[str] = ()

    def fill(self, model: nn.Module) -> str:
        """Load the file into its part of `model`; returns one line that says what was loaded. Raises InputError with the keys on a miss."""
        part = find_part(model, self.into)
        report = load_into(part, read_tensors(self.source), origin=self.origin, missing=self.missing, reinitialise=self.reinitialise)
        return f"{self.source} -> {self.into or 'model'}: {report.summary()}"


def find_part(model: nn.Module, path: str) -> nn.Module:
    """The sub-module of that dotted path. Raises InputError that names those of its parent where there is none."""
    part = model
    for depth, name in enumerate(path.split(".") if path else []):
        children = dict(part.named_children())
        if name not in children:
            above = ".".join(path.split(".")[:depth]) or type(model).__name__
            raise InputError(f"weights: there is no part {path!r}: {above} has {', '.join(children)}")
        part = children[name]
    return part
