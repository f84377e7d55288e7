"""Random numbers that depend on (seed, epoch, index) alone.

Whatever draws for a sample, be it through torch, NumPy or `random`, draws from generators that were seeded for this sample and this pass over the
data. So the number of workers, the order in which they finish, and a restart in the middle change nothing. Pixels are computed by one thread
each: sums over an image depend in their last bits on how many threads share them, and a worker has one.
"""
from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def mixed_seed(*keys: int | str) -> int:
    """63 bits that depend on every one of `keys` and on their order; neighbouring keys give unrelated seeds."""
    text = "/".join(str(key) for key in keys).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def sample_seed(seed: int, epoch: int, index: int, copy: int = 0) -> int:
    """The seed of sample `index` in pass `epoch`; `copy` counts from 0 where a sampler takes the sample several times in one pass."""
    return mixed_seed("sample", seed, epoch, index, copy)


def generator(*keys: int | str) -> torch.Generator:
    """A generator on the CPU seeded with `mixed_seed(*keys)`."""
    return torch.Generator().manual_seed(mixed_seed(*keys))


def seed_globals(seed: int) -> None:
    """Start torch's CPU generator, NumPy's and Python's global ones from `seed`.

    torch's generator is seeded directly: `torch.manual_seed` would also queue a seeding of every accelerator, once a sample.
    """
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def preserved() -> Iterator[None]:
    """Within the block torch computes with one thread; afterwards the number of threads and the three global generators are as they were.

    One block serves many samples: keeping the states costs as much as all other bookkeeping of a sample.
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block everything is as the loader has it for a sample of this seed; afterwards as it was."""
    with preserved():
        seed_globals(seed)
        yield
