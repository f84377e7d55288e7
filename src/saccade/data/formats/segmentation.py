"""Semantic segmentation from files: a folder of images, and a folder of label maps whose pixels are class ids.

Which id is which class, a class set and a table of ids say (`data.class_sets`); which label map belongs to which image, names or list files say
(`image_pairs`). A label map is decoded when its image is asked for; an id that the table does not know, a broken file or another size than the image
has is then a `DataError` that names the file.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate

from saccade.data.class_sets import ClassSet, IdTable, Translation, class_set, id_table, own_table
from saccade.data.decoding import image_size, read_label_map
from saccade.data.formats.image_pairs import Missing, Pairs, find_pairs
from saccade.data.formats.still_images import StillImages, existing_folder, pack_names, unpack_name
from saccade.errors import DataError, InputError
from saccade.structures import IGNORE, Annotations


class SegmentationImages(StillImages):
    """What all readers of images with label maps share: `Sample.segmentation` (H, W) uint8, 255 = ignore, and of the class set `classes`, `colours`
    (None where the classes have none of their own) and `subsets`. Of data without labels (`table` None) the classes are known and nothing else.

    `channel`: which channel of coloured label files holds the ids. `resize_labels`: a label map of another size than its image is brought to it
    (nearest) instead of being an error.
    """

    def __init__(
        self, *, name: str, root: Path, pairs: Pairs, known: ClassSet, table: IdTable | None, channel: int | None = None, resize_labels: bool = False,
    ) -> None:
        super().__init__(name, root, known.classes)
        self.colours, self.subsets = known.colours, dict(known.subsets)
        self.problems += pairs.problems
        self._images, self._labels = pairs.images, pairs.labels
        self._names = pack_names([image for image, _ in pairs.found])
        self._label_names = pack_names([label or "" for _, label in pairs.found])
        self._translation = None if table is None else Translation(table, known.classes)
        self._channel, self._resize = channel, resize_labels

    def __len__(self) -> int:
        return len(self._names)

    def item_id(self, index: int) -> str:
        """The image's file, relative to the folder of the images."""
        return unpack_name(self._names, index)

    def image_path(self, index: int) -> Path:
        """Where image `index` lies."""
        return self._images / self.item_id(index)

    def label_path(self, index: int) -> Path | None:
        """Where the label map of image `index` lies, None in data without labels."""
        return None if self._labels is None else self._labels / unpack_name(self._label_names, index)

    def annotations(self, index: int) -> Annotations:
        """The label map of image `index`, in the size of the image; nothing in data without labels."""
        path = self.label_path(index)
        if path is None or self._translation is None:
            return Annotations()
        labels = self._translation(read_label_map(path, self._channel), path)
        return Annotations(segmentation=self._at_size(labels, path, self.image_path(index)))

    def _at_size(self, labels: Tensor, path: Path, image: Path) -> Tensor:
        size = image_size(image)
        if tuple(labels.shape) == size:
            return labels
        if not self._resize:
            (height, width), (h, w) = labels.shape, size
            raise DataError(
                f"the label map {path} is {width} x {height} (width x height) and its image {image} {w} x {h}; fetch or write them again, remove an "
                "EXIF rotation, or take them out of the data set"
            )
        return interpolate(labels[None, None], size=size, mode="nearest-exact")[0, 0]

    def describe(self) -> dict[str, Any]:
        """As for every reader, with the folder of the label maps and the table that their ids are of."""
        table = "" if self._translation is None else f" ({self._translation.table.name} ids)"
        return {**super().describe(), "labels": "none" if self._labels is None else f"{self._labels}{table}"}


class SegmentationFolders(SegmentationImages):
    """`<root>/<images>/**/x.jpg` with `<root>/<labels>/**/x.png`.

    `labels: null` is data without labels. `split`: a folder of this name below both. Pairs have the same path but for the ending; `image_suffix` and
    `label_suffix` are what stands before the ending of the one and of the other ("_leftImg8bit", "_gtFine_labelIds"). `list_file` (relative to the
    root) picks images in its order: a line is an image, relative to the folder of the images and also without ending, or an image and its label map;
    `label_list` is a second list with the label maps line by line. `missing`: whether files of a list that do not exist are an error or left out.

    `classes`: the name of a class set (cityscapes19, synthia16, synthia13, camvid11, town), names, or a file of them; by default `classes.txt` in the
    root, else the numbers that occur (all label maps are read once for that). `ids`: what the pixels are: "labels" 0..K-1, the ids of a table
    (cityscapes, synthia, camvid), or the id of each class; `ignore_ids` are further ones without a class, and 255 always is one. `channel`: see
    `SegmentationImages`. Raises DataError for folders without images or pairs, and for lists with files that do not exist.
    """

    def __init__(
        self, *, root: str | Path, images: str = "images", labels: str | None = "labels", split: str | None = None,
        classes: Sequence[str] | str | None = None, ids: Sequence[int] | str = "labels", ignore_ids: Sequence[int] = (), image_suffix: str = "",
        label_suffix: str = "", list_file: str | None = None, label_list: str | None = None, missing: Missing = "refuse",
        channel: int | None = None, name: str = "segmentation",
    ) -> None:
        if label_list is not None and list_file is None:
            raise InputError("label_list goes with list_file, line by line; give both")
        folder = existing_folder(root, "the segmentation root")
        pairs = find_pairs(
            folder, _below(images, split), None if labels is None else _below(labels, split), image_suffix=image_suffix, label_suffix=label_suffix,
            list_file=list_file, label_list=label_list, missing=missing,
        )
        if classes is None:
            classes = "classes.txt" if (folder / "classes.txt").is_file() else _numbers(pairs, ids, ignore_ids, channel)
        known = class_set(classes, folder)
        table = None if labels is None else _table(ids, ignore_ids, known)
        super().__init__(name=name, root=folder, pairs=pairs, known=known, table=table, channel=channel)


def _below(folder: str, split: str | None) -> str:
    return folder if split is None else f"{folder}/{split}"


def _numbers(pairs: Pairs, ids: Sequence[int] | str, ignored: Sequence[int], channel: int | None) -> tuple[str, ...]:
    """The numbers 0..largest in all label maps that can be read, as names; none in data without labels."""
    if pairs.labels is None:
        return ()
    if ids != "labels":
        raise InputError(f"the label maps in {pairs.labels} have the ids {ids!r}, and nothing says which classes are wanted; give `classes`")
    largest = -1
    for _, label in pairs.found:
        try:
            numbers = read_label_map(pairs.labels / str(label), channel).unique()
        except DataError:
            continue  # raised again where the image is asked for
        largest = max([largest, *(number for number in numbers.tolist() if number < IGNORE and number not in ignored)])
    return tuple(str(number) for number in range(largest + 1))


def _table(ids: Sequence[int] | str, ignored: Sequence[int], known: ClassSet) -> IdTable:
    """The table of `ids` with the ids to ignore."""
    if not isinstance(ids, str):
        return own_table(ids, known.classes, ignored)
    table = id_table(ids, known.classes)
    double = [number for number in ignored if table.meanings.get(number) is not None]
    if double:
        raise InputError(f"ignore_ids has {double[0]}, which is the {table.name} id of {table.meanings[double[0]]}")
    return IdTable(table.name, {**table.meanings, **dict.fromkeys(ignored)})
