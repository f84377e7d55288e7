"""Label maps of any origin judged against a data set: a folder of PNGs, one an image, whoever wrote them.

A file belongs to the image of its name: the same path below the folder, or the same file name anywhere in it, without endings; of Cityscapes' images
also a name that goes on after the frame's (`..._leftImg8bit` or anything else), as its own tools have it. Pixels are the numbers of the classes, or
the ids of a table (`data.class_sets`); what stands for no class of the data set is a miss where the truth has one.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from saccade.data.class_sets import Translation, id_table
from saccade.data.contract import Dataset
from saccade.data.decoding import read_label_map
from saccade.data.formats.label_files import LABELS, SUFFIX
from saccade.data.formats.still_images import existing_folder
from saccade.errors import DataError
from saccade.metrics.segmentation import SegmentationIoU
from saccade.structures import Annotations, Meta, SegmentationMap

_IMAGE = "_leftImg8bit"  # what Cityscapes' images have after the name of the frame
_SHOWN = 5


def has_label_maps(dataset: Dataset) -> bool:
    """Whether `dataset` is one of label maps: its first image has one and no boxes, or nothing is known of it but colours or subsets of classes."""
    first = dataset.annotations(0) if len(dataset) else Annotations()
    if all(value is None for value in vars(first).values()):
        return bool(getattr(dataset, "colours", None) or getattr(dataset, "subsets", None))
    return first.segmentation is not None and first.boxes is None


def score_label_maps(dataset: Dataset, folder: str | Path, *, ids: str = "labels", on_image: Callable[[], object] = lambda: None) -> SegmentationIoU:
    """The metric after all label maps in `folder` were counted against `dataset`; `on_image` is called after each.

    `ids`: what the pixels are, "labels" 0..K-1 or a table of ids ("cityscapes", ...), 255 being none. Raises DataError for images without a file,
    broken files, ids outside the table and maps of another size than the truth.
    """
    files = label_maps_of(dataset, folder)
    translation = Translation(id_table(ids, dataset.classes), dataset.classes)
    metric = SegmentationIoU(classes=dataset.classes, subsets=getattr(dataset, "subsets", None))
    for index, file in enumerate(files):
        found = translation(read_label_map(file), file)
        metric.update([SegmentationMap(found)], [dataset.annotations(index)], [Meta(dataset.name, dataset.item_id(index), str(file))])
        on_image()
    return metric


def label_maps_of(dataset: Dataset, folder: str | Path) -> list[Path]:
    """The file of every image of `dataset`, in order. A folder `labels` in `folder`, as evaluations leave it, is taken for the whole."""
    place = existing_folder(folder, "the folder of results")
    place = place / LABELS if (place / LABELS).is_dir() else place
    there = _Files(place)
    found = [there.of(dataset.item_id(index)) for index in range(len(dataset))]
    missing = [dataset.item_id(index) for index, file in enumerate(found) if file is None]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
        examples = ", ".join(there.names[:3]) or "no PNGs"
        raise DataError(
            f"{place} has no label map for {len(missing)} of the {len(dataset)} images of {dataset.name}: {shown}; each needs a PNG of its name, and "
            f"here are {examples}"
        )
    return [file for file in found if file is not None]


class _Files:
    """The PNGs below a folder: `names` are their paths relative to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob(f"*{SUFFIX}"))
        self._there = set(self.names)
        self._by_stem: dict[str, list[str]] = {}
        for name in self.names:
            self._by_stem.setdefault(PurePosixPath(name).stem, []).append(name)

    def of(self, item: str) -> Path | None:
        """The label map of the image `item`, None where there is none. Raises DataError where several could be meant."""
        path = PurePosixPath(item)
        exact = next((name for name in (f"{item}{SUFFIX}", str(path.with_suffix(SUFFIX))) if name in self._there), None)
        if exact is not None:
            return self.folder / exact
        names = self._by_stem.get(path.stem) or self._by_stem.get(path.name) or self._of_frame(path.stem)
        if len(names) > 1:
            raise DataError(f"{self.folder} has several PNGs that could be the label map of {item}: {', '.join(names[:_SHOWN])}; leave one a folder")
        return self.folder / names[0] if names else None

    def _of_frame(self, stem: str) -> list[str]:
        if not stem.endswith(_IMAGE):
            return []
        frame = stem.removesuffix(_IMAGE)
        return [name for own, names in self._by_stem.items() if own == frame or own.startswith(f"{frame}_") for name in names]
