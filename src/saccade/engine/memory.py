"""How much memory a process has used."""
from __future__ import annotations

import resource
import sys

import torch


def peak_memory() -> float:
    """GiB in use at most so far: of the GPU where one is used, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
