"""Numbers that all processes of a run share."""
from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of `value` over all processes; `value` itself where there is one."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of `value` over all processes; `value` itself where there is one.

    Once gradients are averaged over processes, a loss that divides by this mean of its counts has the gradient of one process with the whole batch.
    """
    total = sum_over_processes(value)
    return total if total is value else total / dist.get_world_size()


def gathered(values: Tensor) -> Tensor:
    """`values` (n, ...) of all processes in the order of one process's batch (n * processes, ...): entry k of it is process k mod processes'.

    Every process has as many. `values` itself where there is one process.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    sent = values.detach().contiguous()
    parts = [sent.new_empty(sent.shape) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, sent)
    return torch.stack(parts, 1).flatten(0, 1)
