"""The data sets of driving scenes that methods of domain adaptation are published on, in their own layouts: Cityscapes, GTA5, SYNTHIA and CamVid.

`labelled: false` reads the images alone, so that nothing of a target domain's labels is needed, nor looked at. Class sets and ids: `data.class_sets`.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saccade.data.class_sets import ID_TABLES, class_set
from saccade.data.formats.image_pairs import Missing, find_pairs
from saccade.data.formats.segmentation import SegmentationImages
from saccade.data.formats.still_images import existing_folder


class Cityscapes(SegmentationImages):
    """Cityscapes (Cordts et al. 2016): `leftImg8bit/<split>/<city>/*_leftImg8bit.png`, `gtFine/<split>/<city>/*_gtFine_labelIds.png`.

    `split`: train, val or test, whose public labels are empty. `classes`: the name of a class set (cityscapes19, synthia16, synthia13) or names.
    `list_file` (relative to the root) picks images, relative to `leftImg8bit/<split>`; without it all are taken in the order of their names.
    """

    def __init__(
        self, *, root: str | Path, split: str = "train", classes: Sequence[str] | str = "cityscapes19", labelled: bool = True,
        list_file: str | None = None, missing: Missing = "refuse", name: str = "cityscapes",
    ) -> None:
        folder = existing_folder(root, "the Cityscapes root")
        pairs = find_pairs(
            folder, f"leftImg8bit/{split}", f"gtFine/{split}" if labelled else None, image_suffix="_leftImg8bit", label_suffix="_gtFine_labelIds",
            list_file=list_file, missing=missing,
        )
        super().__init__(
            name=f"{name}_{split}", root=folder, pairs=pairs, known=class_set(classes, folder), table=ID_TABLES["cityscapes"] if labelled else None
        )


class Gta5(SegmentationImages):
    """GTA5 (Richter et al. 2016): `images/00001.png`, `labels/00001.png` with Cityscapes' ids, 24,966 frames, most of 1914 x 1052.

    A few label maps differ from their images in size and are brought to it (nearest), as the published results have it. `list_file`: one name a line,
    as in AdaptSegNet's lists; the other arguments are those of `Cityscapes`.
    """

    def __init__(
        self, *, root: str | Path, classes: Sequence[str] | str = "cityscapes19", labelled: bool = True, list_file: str | None = None,
        missing: Missing = "refuse", name: str = "gta5",
    ) -> None:
        folder = existing_folder(root, "the GTA5 root")
        pairs = find_pairs(folder, "images", "labels" if labelled else None, list_file=list_file, missing=missing)
        super().__init__(
            name=name, root=folder, pairs=pairs, known=class_set(classes, folder), table=ID_TABLES["cityscapes"] if labelled else None,
            resize_labels=True,
        )


class Synthia(SegmentationImages):
    """SYNTHIA-RAND-CITYSCAPES (Ros et al. 2016): `RGB/0000000.png`, `GT/LABELS/0000000.png`, 9,400 frames of 1280 x 760.

    A label file has 16 bits and three channels: class, instance, nothing. Files with the class alone in one channel are read, too: give their folder
    as `labels` ("parsed_LABELS"). `classes` by default are the 16 that methods train on. The other arguments are those of `Cityscapes`.
    """

    def __init__(
        self, *, root: str | Path, labels: str = "GT/LABELS", classes: Sequence[str] | str = "synthia16", labelled: bool = True,
        list_file: str | None = None, missing: Missing = "refuse", name: str = "synthia",
    ) -> None:
        folder = existing_folder(root, "the SYNTHIA root")
        pairs = find_pairs(folder, "RGB", labels if labelled else None, list_file=list_file, missing=missing)
        super().__init__(
            name=name, root=folder, pairs=pairs, known=class_set(classes, folder), table=ID_TABLES["synthia"] if labelled else None, channel=0
        )


class CamVid(SegmentationImages):
    """CamVid (Brostow et al. 2009) with SegNet's 11 classes: `images/x.jpg`, `labels/x.png`, and `splits/<split>.txt` with one name a line.

    Without `split` all images are taken. The other arguments are those of `Cityscapes`.
    """

    def __init__(
        self, *, root: str | Path, split: str | None = None, classes: Sequence[str] | str = "camvid11", labelled: bool = True,
        missing: Missing = "refuse", name: str = "camvid",
    ) -> None:
        folder = existing_folder(root, "the CamVid root")
        pairs = find_pairs(
            folder, "images", "labels" if labelled else None, list_file=None if split is None else f"splits/{split}.txt", missing=missing
        )
        super().__init__(
            name=name if split is None else f"{name}_{split}", root=folder, pairs=pairs, known=class_set(classes, folder),
            table=ID_TABLES["camvid"] if labelled else None,
        )
