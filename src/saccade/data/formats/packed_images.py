"""Classification sets whose pictures lie packed in a few files: CIFAR-10 and -100 (Krizhevsky 2009), MNIST and Fashion-MNIST.

CIFAR's "python" files are pickles. They are read with an unpickler that knows NumPy's array constructor and nothing else, so that a forged file is
refused instead of run. Files are compared with the published checksums and a difference is listed in `problems`. Nothing is downloaded.
"""
from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from saccade.data.classes import CIFAR10, CIFAR100, FASHION_MNIST, MNIST
from saccade.data.contract import Problem, Video
from saccade.data.formats.still_images import existing_folder
from saccade.errors import DataError
from saccade.structures import Annotations, Sample, make_sample

_CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f", "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751", "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb", "test_batch": "40351d587109b95175f43aff81a1287e",
}
_CIFAR100_MD5 = {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}


class _PackedImages(ABC):
    """Pictures (n, 3 or 1, H, W) uint8 with labels (n,) in memory; see `data.contract.Dataset`."""

    def __init__(self, name: str, root: Path, split: str, classes: tuple[str, ...]) -> None:
        self.name, self.root, self.split, self.classes = name, root, split, classes
        self.videos: Sequence[Video] = ()
        self.problems: list[Problem] = []
        self._pixels, self._labels = self._read()
        if len(self._labels) and int(self._labels.max()) >= len(classes):
            raise DataError(f"{root} has the label {int(self._labels.max())}, {name} has {len(classes)} classes; is it another data set's folder?")

    @abstractmethod
    def _read(self) -> tuple[np.ndarray, np.ndarray]: ...

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        pixels = torch.from_numpy(np.array(self._pixels[index]))
        return make_sample(pixels.expand(3, -1, -1).contiguous(), self.annotations(index), dataset=self.name, id=self.item_id(index))

    def annotations(self, index: int) -> Annotations:
        """The class of picture `index`."""
        return Annotations(label=int(self._labels[index]))

    def item_id(self, index: int) -> str:
        """Split and number, as "test_00042"."""
        return f"{self.split}_{range(len(self))[index]:05d}"

    def describe(self) -> dict[str, Any]:
        """Name, format, root, number of images and classes."""
        left_out = sum(problem.consequence == "left out" for problem in self.problems)
        return {"name": self.name, "format": type(self).__name__, "root": str(self.root), "images": len(self), "classes": len(self.classes),
                "left out": left_out}


class Cifar(_PackedImages):
    """CIFAR-10 (`variant` 10) or CIFAR-100 with its fine labels (100), from the python or the binary files.

    `root`: the unpacked folder (`cifar-10-batches-py`, `cifar-10-batches-bin`, `cifar-100-python`, `cifar-100-binary`) or the one above it.
    """

    def __init__(
        self, *, root: str | Path, split: Literal["train", "test"] = "train", variant: Literal[10, 100] = 10, name: str | None = None
    ) -> None:
        self._variant = variant
        folder = existing_folder(root, "the CIFAR root")
        super().__init__(name or f"cifar{variant}", folder, split, CIFAR10 if variant == 10 else CIFAR100)

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        if self._variant == 10:
            files = ["test_batch"] if self.split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
            below, checksums, key, head = ("cifar-10-batches-py", "cifar-10-batches-bin"), _CIFAR10_MD5, "labels", 1
        else:
            files, below, checksums, key, head = [self.split], ("cifar-100-python", "cifar-100-binary"), _CIFAR100_MD5, "fine_labels", 2
        folders = [self.root, *(self.root / b for b in below)]
        for folder in folders:
            if all((folder / f).is_file() for f in files):
                parts = [_read_cifar_pickle(folder / f, key) for f in files]
                self.problems += [p for f in files for p in _compare_checksum(folder / f, checksums[f])]
                break
            if all((folder / f"{f}.bin").is_file() for f in files):
                parts = [_read_cifar_binary(folder / f"{f}.bin", head) for f in files]
                break
        else:
            tried = ", ".join(map(str, folders))
            raise DataError(f"no CIFAR-{self._variant} files {', '.join(files)} (or with .bin) in {tried}; unpack the archive there")
        return np.concatenate([pixels for pixels, _ in parts]), np.concatenate([labels for _, labels in parts])


class Mnist(_PackedImages):
    """MNIST, or Fashion-MNIST (`variant`), from the idx files, gzipped or not, in `root` or its folder `raw`."""

    def __init__(
        self, *, root: str | Path, split: Literal["train", "test"] = "train", variant: Literal["digits", "fashion"] = "digits",
        name: str | None = None,
    ) -> None:
        folder = existing_folder(root, "the MNIST root")
        digits = variant == "digits"
        super().__init__(name or ("mnist" if digits else "fashion_mnist"), folder, split, MNIST if digits else FASHION_MNIST)

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        stem = "train" if self.split == "train" else "t10k"
        images, labels = read_idx(self._find(f"{stem}-images", "idx3-ubyte")), read_idx(self._find(f"{stem}-labels", "idx1-ubyte"))
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise DataError(f"the idx files of {self.root} have shapes {images.shape} and {labels.shape}; (n, height, width) and (n,) are expected")
        return images[:, None], labels.astype(np.int64)

    def _find(self, stem: str, kind: str) -> Path:
        places = (self.root, self.root / "raw", self.root / "MNIST" / "raw", self.root / "FashionMNIST" / "raw")
        tried = [folder / f"{stem}{dash}{kind}{suffix}" for folder in places for dash in "-." for suffix in ("", ".gz")]
        for file in tried:
            if file.is_file():
                return file
        raise DataError(f"no MNIST file {stem}-{kind} (or with .gz) in {self.root} or its folder raw; put the four idx files there")


# What the unpickler raises on cut or altered files.
_BROKEN_PICKLE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, MemoryError, OverflowError
)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays, containers, numbers and text; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        """The object that a pickle names: one of those that an array of numbers needs. Raises `pickle.UnpicklingError` for others."""
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.ndarray.__reduce__(np.empty(0))[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return {"ndarray": np.ndarray, "dtype": np.dtype}[name]
        if module == "_codecs" and name == "encode":  # how Python 3 writes bytes for Python 2
            return _encode_latin
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _encode_latin(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes bytes as {encoding}")
    return text.encode("latin1")


def _read_cifar_pickle(file: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3, 32, 32) uint8 and labels (n,) of one python file."""
    try:
        content = _ArrayUnpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
    except _BROKEN_PICKLE as error:
        raise DataError(f"{file} is no CIFAR file ({error}); only arrays, lists, numbers and text are read from it. Fetch it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} is no CIFAR file: it holds a {type(content).__name__}, not a mapping")
    values = {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()}
    pixels, labels = values.get("data"), values.get(key)
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape[1:] == (3072,) and isinstance(labels, list)
            and len(labels) == len(pixels) and all(isinstance(label, int) for label in labels)):
        raise DataError(f"{file} is no CIFAR file: it needs data (n, 3072) uint8 and {key} (n); it has {', '.join(map(str, values))}")
    return pixels.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def _read_cifar_binary(file: Path, head: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of one binary file: records of `head` label bytes (the last is the fine label) and 3072 pixels."""
    content = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    if len(content) == 0 or len(content) % (head + 3072):
        raise DataError(f"{file} has {len(content)} bytes, no multiple of {head + 3072}; it is cut short or another file, fetch it again")
    records = content.reshape(-1, head + 3072)
    return records[:, head:].reshape(-1, 3, 32, 32), records[:, head - 1].astype(np.int64)


def read_idx(file: Path) -> np.ndarray:
    """The uint8 array in an idx file (LeCun's format: two zeros, type 8, number of dimensions, their big-endian sizes, the values), gzipped or
    not."""
    try:
        content = file.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} can't be unpacked ({error}); fetch it again") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{file} is no idx file of bytes (it starts with {content[:4]!r}); fetch it again")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").tolist())
    if len(shape) != content[3] or len(content) - start != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{file} should hold {shape} values and has {max(0, len(content) - start)}; it is cut short, fetch it again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _compare_checksum(file: Path, expected: str) -> list[Problem]:
    found = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    return [] if found == expected else [Problem(str(file), "the file", f"its md5 is {found}, that of the published one {expected}", "kept")]
