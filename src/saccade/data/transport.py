"""How a batch travels from a loading process to the main one.

torch sends every tensor of a batch through a shared memory file of its own. That is right for the images and bad for the several small tensors that
each image brings (boxes, labels, areas, the geometry): files and their handles cost more than the data, and large batches run out of handles. So
large tensors go torch's way, and everything else goes as one piece of bytes.
"""
from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from saccade.structures import Geometry

_LARGE = 1 << 16  # bytes from which a tensor is worth its own shared memory


@dataclass
class Parcel:
    """Anything picklable: its large tensors, and the bytes of the rest. It never leaves the machine, nor this run."""

    tensors: list[Tensor]
    rest: bytes

    def pin_memory(self) -> Parcel:
        """The same with the large tensors in page-locked memory (called by torch's data loader on CUDA machines)."""
        return Parcel([tensor.pin_memory() for tensor in self.tensors], self.rest)


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file, protocol=5)
        self.tensors = tensors

    def persistent_id(self, thing: Any) -> Any:
        if isinstance(thing, Geometry):
            return "geometry", thing.as_subclass(Tensor).numpy(), thing.canvas_size, thing.exact
        if isinstance(thing, tv_tensors.Mask):
            return "mask", thing.as_subclass(Tensor)  # itself persistent in its turn
        if type(thing) is not Tensor or thing.device.type != "cpu" or thing.dtype == torch.bfloat16:
            return None
        if thing.numel() * thing.element_size() < _LARGE:
            return "small", np.ascontiguousarray(thing.numpy())
        self.tensors.append(thing)
        return "large", len(self.tensors) - 1


class _Unpacker(pickle.Unpickler):
    def __init__(self, parcel: Parcel) -> None:
        super().__init__(io.BytesIO(parcel.rest))
        self.tensors = parcel.tensors

    def persistent_load(self, known: Any) -> Any:
        kind, value, *more = known
        if kind == "geometry":
            return Geometry.from_matrix(torch.from_numpy(value), *more)
        if kind == "mask":
            return tv_tensors.Mask(value)
        return self.tensors[value] if kind == "large" else torch.from_numpy(value)


def pack(thing: Any) -> Parcel:
    """`thing` ready to be sent to another process."""
    file, tensors = io.BytesIO(), list[Tensor]()
    _Packer(file, tensors).dump(thing)
    return Parcel(tensors, file.getvalue())


def unpack(parcel: Parcel) -> Any:
    """What `pack` was given."""
    return _Unpacker(parcel).load()
