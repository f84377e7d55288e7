"""Classification from image files: one folder a class (`ImageFolder`), or a list of files with labels (`ImageList`, ImageNet's val.txt)."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from saccade.data.classes import read_class_names, resolve_classes
from saccade.data.contract import Problem
from saccade.data.decoding import IMAGE_SUFFIXES
from saccade.data.formats.still_images import StillImages, existing_folder, file_name, pack_names, read_text, unpack_name
from saccade.errors import DataError
from saccade.structures import Annotations


class _LabelledFiles(StillImages):
    """Image files below a folder with one class each: `_names` relative to `_folder`, `_labels` (n,)."""

    _folder: Path
    _names: np.ndarray
    _labels: np.ndarray

    def __len__(self) -> int:
        return len(self._names)

    def annotations(self, index: int) -> Annotations:
        """The class of image `index`."""
        return Annotations(label=int(self._labels[index]))

    def item_id(self, index: int) -> str:
        """The image's file, relative to the folder of the images."""
        return unpack_name(self._names, index)

    def image_path(self, index: int) -> Path:
        """Where image `index` lies."""
        return self._folder / self.item_id(index)


class ImageFolder(_LabelledFiles):
    """`<root>/[<split>/]<class>/**/*.jpg`: the first folder below is the class, whatever lies deeper belongs to it.

    Classes are the folder names in sorted order, or `classes` (names, or a file of names; `classes.txt` in the root by default) where the order, or a
    subset, is given; with `class_folders` the folders have other names than the classes (WordNet ids, say) and are listed in the order of `classes`.
    Files that are no pictures are left out and listed in `problems`, hidden ones are ignored.
    """

    def __init__(
        self, *, root: str | Path, split: str | None = None, classes: Sequence[str] | str | None = None, class_folders: Sequence[str] | None = None,
        name: str = "image_folder",
    ) -> None:
        folder = existing_folder(root, "the image folder")
        self._folder = existing_folder(folder / split, f"the split {split!r}") if split is not None else folder
        found = sorted(e.name for e in os.scandir(self._folder) if e.is_dir() and not e.name.startswith("."))
        names = resolve_classes(classes, folder)
        if names is None and (folder / "classes.txt").is_file():
            names = read_class_names(folder / "classes.txt")
        folders = list(class_folders) if class_folders is not None else found if names is None else [file_name(n) for n in names]
        super().__init__(name, folder, names if names is not None else folders)
        if len(folders) != len(self.classes):
            raise DataError(f"{len(folders)} class folders were given for {len(self.classes)} classes of {self._folder}; give one for each class")
        if not folders:
            raise DataError(f"{self._folder} has no folders, so no classes; expected one folder a class with its pictures inside")
        for missing in sorted(set(folders) - set(found)):
            self.problems.append(Problem(str(self._folder / missing), missing, "there is no folder of this class", "kept"))
        for other in sorted(set(found) - set(folders)):
            self.problems.append(Problem(str(self._folder / other), other, "this folder is not among the classes", "left out"))
        files, labels = [], []
        for label, class_folder in enumerate(folders):
            own = self._pictures(class_folder) if class_folder in found else []
            if class_folder in found and not own:
                self.problems.append(Problem(str(self._folder / class_folder), class_folder, "this class has no pictures", "kept"))
            files += own
            labels += [label] * len(own)
        self._names, self._labels = pack_names(files), np.array(labels, dtype=np.int32)

    def _pictures(self, class_folder: str) -> list[str]:
        """Pictures below one class folder, relative to the folder of the classes, sorted."""
        pictures = []
        for path in _files_below(self._folder / class_folder):
            relative = os.path.relpath(path, self._folder)
            if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
                pictures.append(relative)
            else:
                self.problems.append(Problem(path, relative, "its name does not end like a picture's", "left out"))
        return sorted(pictures)


class ImageList(_LabelledFiles):
    """A text file with one image and its label a line, "relative/name label", as ImageNet's `val.txt`; names may contain blanks.

    `root`: the data set's folder; `list_file` and `images` (the folder that the names start from) are relative to it.
    `classes`: the names, a file of them (lines "n01440764 tench" or "tench"), or the name of a known list such as `imagenet`; by default the labels'
    numbers. Lines without a label, or with one that has no class, are left out and listed in `problems`.
    """

    def __init__(
        self, *, root: str | Path, list_file: str, images: str = "", classes: Sequence[str] | str | None = None, name: str = "image_list"
    ) -> None:
        folder = existing_folder(root, "the root of the image list")
        self._folder = existing_folder(folder / images, "the folder of the images")
        self.file = folder / list_file
        super().__init__(name, folder, ())
        entries = list(self._entries())
        names = resolve_classes(classes, folder)
        self.classes = names if names is not None else tuple(str(label) for label in range(max((label for _, _, label in entries), default=-1) + 1))
        known = []
        for line_number, file, label in entries:
            if label < len(self.classes):
                known.append((file, label))
            else:
                self._problem(line_number, f"its label {label} has no class, there are {len(self.classes)}")
        self._names, self._labels = pack_names([file for file, _ in known]), np.array([label for _, label in known], dtype=np.int32)

    def _entries(self) -> Iterator[tuple[int, str, int]]:
        for line_number, line in enumerate(read_text(self.file, "the image list").splitlines(), start=1):
            if not line.strip():
                continue
            file, _, label = line.strip().rpartition(" ") if " " in line.strip() else line.strip().rpartition("\t")
            if file.strip() and label.isascii() and label.isdigit():
                yield line_number, file.strip(), int(label)
            else:
                self._problem(line_number, f"{line.strip()!r} does not end with a label (a whole number from 0)")

    def _problem(self, line_number: int, what: str) -> None:
        self.problems.append(Problem(str(self.file), f"line {line_number}", what, "left out"))


def _files_below(folder: Path) -> Iterator[str]:
    """All files below `folder`, hidden ones and those in hidden folders left out; links to folders are not followed."""
    for path, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        yield from (os.path.join(path, name) for name in names if not name.startswith("."))
