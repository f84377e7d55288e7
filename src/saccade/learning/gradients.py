"""Numbers that must be finite before an update: the check over all processes, and the error that says which were not.

One host synchronisation a step: loss terms and gradient norm travel in one small tensor, which is also what is logged.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saccade.errors import NumericError
from saccade.structures import Batch

_SHOWN = 5


class NotFiniteError(NumericError):
    """A loss or gradient that is not finite. `report` holds plain data for a file: step, figures and sample ids of every process."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all `gradients` together, a scalar on their device."""
    if not gradients:
        return torch.zeros(())
    if hasattr(gradients[0], "full_tensor"):  # sharded over processes
        norm: Any = torch.nn.utils.get_total_norm(gradients)
        whole: Tensor = norm.full_tensor()
        return whole
    if len({g.device for g in gradients}) > 1:
        return torch.nn.utils.get_total_norm(gradients)
    # The same without torch's grouping by device, which costs more than the sums of a small network.
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients))))


def all_finite(figures: Sequence[float]) -> bool:
    """Whether every one of `figures` is a finite number."""
    return all(map(math.isfinite, figures))


def sample_names(batches: Sequence[Batch]) -> list[str]:
    """The ids of all samples in `batches` and in their sources, with their data set's name where there is one."""
    metas = [meta for batch in batches for each in (batch, batch.source) if each is not None for meta in each.metas]
    return [f"{meta.dataset}/{meta.id}" if meta.dataset else str(meta.id) for meta in metas]


def parameters_not_finite(module: nn.Module) -> list[str]:
    """The names of parameters whose gradient is not finite."""
    return [n for n, p in module.named_parameters() if p.grad is not None and not bool(torch.isfinite(p.grad).all())]


def not_finite_error(step: int, records: Sequence[Mapping[str, Any]]) -> NotFiniteError:
    """The error for what the processes found at `step` (0-based).

    A record is one process's: `rank`, `terms` (name -> value), `grad_norm`, `parameters` (names with such a gradient), `samples` (ids).
    """
    found: list[str] = []
    for record in records:
        where = f" on process {record['rank']}" if len(records) > 1 else ""
        bad = {name: value for name, value in record["terms"].items() if not math.isfinite(value)}
        if bad:
            found.append(f"{', '.join(f'{n} = {v}' for n, v in bad.items())}{where} (samples {_few(record['samples'])})")
    if not found:
        record = records[0]
        everyone = [sample for each in records for sample in each["samples"]]
        found.append(f"the gradient of {_few(record['parameters']) or 'the loss'} while all losses are (samples {_few(everyone)})")
    message = (
        f"Training stopped before the update of step {step + 1}: not finite is {'; '.join(found)}. The weights are those of step {step}. "
        "Look at these samples and their annotations; otherwise lower the learning rate, warm up longer, or set learner.clip_norm."
    )
    return NotFiniteError(message, {"step": step + 1, "processes": [dict(r) for r in records]})


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
