"""F7: broken image files raise a `DataError` that names the file, whatever is broken, and never hang or end the process."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from saccade.data.decoding import image_size, read_image
from saccade.data.formats.folders import ImageFolder
from saccade.data.inspection import inspect
from saccade.errors import DataError

SUFFIXES = ("jpg", "png", "bmp", "tiff", "webp", "gif")


def picture() -> Image.Image:
    """Noise: nothing in it compresses away."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class "good" with two pictures, class "bad" with one of every kind of broken file."""
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    for name in ("a.jpg", "b.png"):
        picture().save(tmp_path / "good" / name)
    for suffix in SUFFIXES:
        picture().save(tmp_path / f"whole.{suffix}")
        content = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / "bad" / f"cut_{suffix}.{suffix}").write_bytes(content[:len(content) // 2])
    (tmp_path / "bad" / "empty.jpg").write_bytes(b"")
    (tmp_path / "bad" / "text.jpg").write_text("<html>404 Not Found</html>")
    return tmp_path


def test_every_broken_file_is_a_data_error_with_its_name(folder: Path) -> None:
    for file in sorted((folder / "bad").iterdir()):
        with pytest.raises(DataError) as caught:
            read_image(file)
        assert file.name in str(caught.value) and "data set" in str(caught.value), file.name


@pytest.mark.parametrize("what", ["missing.jpg", "folder.jpg", "pipe.jpg", "dangling.jpg"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    for function in (read_image, image_size):
        with pytest.raises(DataError, match=what):
            function(tmp_path / what)


def test_corrupt_png_data_do_not_end_the_process(tmp_path: Path) -> None:
    """torchvision's PNG decoder dies of a segmentation fault on these bytes; so this runs in a process of its own."""
    picture().save(tmp_path / "a.png", compress_level=0)
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[60:400:20] = b"\xff" * len(content[60:400:20])
    (tmp_path / "a.png").write_bytes(content)
    script = "from saccade.data.decoding import read_image\nfrom saccade.errors import DataError\nimport sys\n" \
             "try:\n    read_image(sys.argv[1])\nexcept DataError as error:\n    print('refused:', error)\n"
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.png")], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stdout.startswith("refused:") and "a.png" in done.stdout, done.stderr


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_altered_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    refused = 0
    for suffix in SUFFIXES:
        picture().save(tmp_path / f"a.{suffix}")
        whole = (tmp_path / f"a.{suffix}").read_bytes()
        for _ in range(40):
            content = bytearray(whole)
            for place in generator.integers(0, len(content), 10):
                content[place] = generator.integers(256)
            (tmp_path / f"b.{suffix}").write_bytes(content)
            try:
                assert read_image(tmp_path / f"b.{suffix}").dtype == torch.uint8
            except DataError:
                refused += 1
    assert refused > 40


@pytest.mark.timeout(60)
def test_a_loader_worker_hands_the_error_on_and_does_not_hang(folder: Path) -> None:
    data = ImageFolder(root=folder)
    loader = DataLoader(data, batch_size=None, num_workers=1, collate_fn=lambda sample: sample.image)
    with pytest.raises(DataError, match="cut_bmp"):
        list(loader)


def test_inspection_lists_every_broken_file_and_goes_on(folder: Path) -> None:
    found = inspect(ImageFolder(root=folder), verify_images=True)
    unusable = {Path(p.file).name for p in found.problems if p.consequence == "can't be used"}
    assert unusable == {f.name for f in (folder / "bad").iterdir()} and found.num_images == len(unusable) + 2
