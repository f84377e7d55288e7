"""Image folders and lists, and CIFAR and MNIST from files written here in their published layouts."""
from __future__ import annotations

import gzip
import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.data.classes import CIFAR100
from saccade.data.formats.folders import ImageFolder, ImageList
from saccade.data.formats.packed_images import Cifar, Mnist
from saccade.errors import DataError

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def picture(file: Path, value: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (value, value, value)).save(file)


def test_the_first_folder_is_the_class_however_deep_the_picture_lies(tmp_path: Path) -> None:
    for file in ("train/dog/a.png", "train/cat/deep/er/b.JPG", "train/cat/c.bmp", "val/cat/d.png"):
        picture(tmp_path / file)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("x")
    (tmp_path / "train" / "cat" / ".hidden.png").write_text("x")
    (tmp_path / "train" / "ape").mkdir()
    data = ImageFolder(root=tmp_path, split="train")
    assert data.classes == ("ape", "cat", "dog")
    assert [(data.item_id(i), data[i].label) for i in range(len(data))] == [("cat/c.bmp", 1), ("cat/deep/er/b.JPG", 1), ("dog/a.png", 2)]
    assert sorted((p.where, p.consequence) for p in data.problems) == [("ape", "kept"), ("cat/notes.txt", "left out")]


def test_given_classes_keep_labels_equal_where_a_split_lacks_one(tmp_path: Path) -> None:
    picture(tmp_path / "val" / "n02" / "a.png")
    data = ImageFolder(root=tmp_path, split="val", classes=["tench", "shark"], class_folders=["n01", "n02"])
    assert data.classes == ("tench", "shark") and data[0].label == 1


def test_an_image_list_takes_names_with_blanks_and_lists_wrong_lines(tmp_path: Path) -> None:
    picture(tmp_path / "val" / "my photo 1.jpg")
    picture(tmp_path / "val" / "n01" / "b.jpg")
    (tmp_path / "val.txt").write_text("my photo 1.jpg 1\n\nn01/b.jpg 0\nc.jpg\nd.jpg 2\ne.jpg -1\n")
    (tmp_path / "classes.txt").write_text("n01440764 tench\nn01443537 great white\n")
    data = ImageList(root=tmp_path, list_file="val.txt", images="val", classes="classes.txt")
    assert data.classes == ("tench", "great white")
    assert [(data[i].label, data.item_id(i)) for i in range(len(data))] == [(1, "my photo 1.jpg"), (0, "n01/b.jpg")]
    assert sorted(p.where for p in data.problems) == ["line 4", "line 5", "line 6"]
    assert ImageList(root=tmp_path, list_file="val.txt", images="val").classes == ("0", "1", "2")


class PythonTwoPickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, which is what the published files hold."""

    dispatch = {**pickle._Pickler.dispatch, bytes: lambda self, text: self.write(b"T" + struct.pack("<i", len(text)) + text)}  # noqa: RUF012


def python_two(content: object) -> bytes:
    stream = io.BytesIO()
    PythonTwoPickler(stream, protocol=2).dump(content)
    return stream.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def cifar_files(folder: Path, *, coarse: bool = False) -> np.ndarray:
    """Three pictures a file, as Python 2 pickled them (CIFAR-10), or Python 3 for Python 2 (CIFAR-100)."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    if coarse:
        content = {b"data": pixels, b"fine_labels": [99, 0, 1], b"coarse_labels": [1, 2, 3], b"filenames": [b"a", b"b", b"c"]}
        (folder / "train").write_bytes(pickle.dumps(content, protocol=2))
    else:
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            (folder / name).write_bytes(python_two({b"data": pixels, b"labels": [9, 0, 1]}))
    return pixels.reshape(3, 3, 32, 32)


def test_cifar_pickles_and_binaries_give_the_same_pictures(tmp_path: Path) -> None:
    pixels = cifar_files(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-bin").mkdir()
    records = np.concatenate([np.array([[9], [0], [1]], dtype=np.uint8), pixels.reshape(3, -1)], 1)
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(records.tobytes())
    for root in (tmp_path, tmp_path / "cifar-10-batches-py", tmp_path / "cifar-10-batches-bin"):
        data = Cifar(root=root, split="test")
        assert [data[i].label for i in range(3)] == [9, 0, 1] and np.array_equal(data[1].image.numpy(), pixels[1])
    train = Cifar(root=tmp_path, split="train")
    assert len(train) == 15 and len(train.problems) == 5 and "md5" in train.problems[0].what


def test_cifar_100_has_fine_labels(tmp_path: Path) -> None:
    cifar_files(tmp_path / "cifar-100-python", coarse=True)
    data = Cifar(root=tmp_path, split="train", variant=100)
    assert [data.annotations(i).label for i in range(3)] == [99, 0, 1] and data.classes == CIFAR100


class Malicious:
    """Unpickles into a call that leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.file,)


def test_a_forged_pickle_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    cifar_files(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps({b"data": Malicious(tmp_path / "owned")}, protocol=2))
    with pytest.raises(DataError, match="test_batch is no CIFAR file"):
        Cifar(root=tmp_path, split="test")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"\x80", pickle.dumps([1]), pickle.dumps({"data": [1], "labels": [1]}), b"\x80\x02}q\x00(X\x01"])
def test_other_pickles_are_data_errors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match="test_batch is no CIFAR file"):
        Cifar(root=tmp_path, split="test")


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.mark.parametrize("zipped", [True, False])
def test_mnist_is_read_from_idx_files_as_three_equal_channels(tmp_path: Path, zipped: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    (tmp_path / "raw").mkdir()
    for stem, values in (("t10k-images-idx3-ubyte", pixels), ("t10k-labels-idx1-ubyte", np.array([3, 1, 4, 1], dtype=np.uint8))):
        content = gzip.compress(idx(values)) if zipped else idx(values)
        (tmp_path / "raw" / (stem + (".gz" if zipped else ""))).write_bytes(content)
    data = Mnist(root=tmp_path, split="test", variant="fashion")
    assert data[0].image.shape == (3, 28, 28) and all(np.array_equal(c, pixels[2]) for c in data[2].image.numpy())
    assert [data[i].label for i in range(4)] == [3, 1, 4, 1] and data.classes[9] == "Ankle boot" and data[3].meta.id == "test_00003"


def test_a_cut_idx_file_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((4, 28, 28), dtype=np.uint8))[:-1])
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"12345678")[:-4])
    with pytest.raises(DataError, match="images-idx3-ubyte should hold"):
        Mnist(root=tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((4, 28, 28), dtype=np.uint8)))
    with pytest.raises(DataError, match="can't be unpacked"):
        Mnist(root=tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the small real data sets are not here")
def test_real_folders_and_lists_are_all_there() -> None:
    cifar = ImageFolder(root=SHARED / "cifar10_excerpt", split="test")
    assert len(cifar) == 1000 and cifar[999].label == 9 and cifar[0].image.shape == (3, 32, 32)
    photos = ImageList(root=SHARED / "imagenet_samples", list_file="labels.txt", images="images", classes="imagenet")
    assert len(photos) == 250 and photos.classes[photos.annotations(0).label] == "goldfish" and not photos.problems
