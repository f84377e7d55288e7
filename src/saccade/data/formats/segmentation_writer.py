"""Semantic segmentation into files: pictures, and label maps whose pixels are the numbers of the classes; the reader gives the same samples again."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from saccade.data.formats.new_folder import Pictures, PictureWriter, new_folder
from saccade.data.formats.writers import Source, Written, class_names, iterate, split_sources
from saccade.errors import InputError
from saccade.structures import IGNORE, Sample


def write_segmentation(
    samples: Source | Mapping[str, Source], folder: str | Path, *, classes: Sequence[str] | None = None,
    colours: Sequence[tuple[int, int, int]] | None = None, split: str = "train", pictures: Pictures = "png",
) -> Written:
    """`images/<split>/x.png`, `labels/<split>/x.png` and `classes.txt`; read it with `SegmentationFolders(root=folder, split=split)`.

    With `colours` (RGB, one a class) viewers show the label maps in them; the numbers are the same. Raises InputError for a sample without a label
    map, and for one that has labels beyond the classes.
    """
    splits, names = split_sources(samples, split), class_names(samples, classes)
    written = Written()
    with new_folder(folder) as place:
        (place / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        for split_name, source in splits.items():
            picture_writer, labels = PictureWriter(place / "images" / split_name, pictures), place / "labels" / split_name
            labels.mkdir(parents=True)
            for sample in iterate(source):
                picture = picture_writer.write(sample)
                _label_picture(sample, len(names), colours).save(labels / f"{Path(picture).stem}.png", compress_level=2)
                written.images += 1
    return written


def _label_picture(sample: Sample, count: int, colours: Sequence[tuple[int, int, int]] | None) -> Image.Image:
    if sample.segmentation is None:
        raise InputError(f"sample {sample.meta.id} has no label map, so it fits no format of semantic segmentation")
    labels = sample.segmentation.as_subclass(Tensor)
    beyond = labels[(labels != IGNORE) & (labels >= count)]
    if len(beyond):
        raise InputError(f"sample {sample.meta.id} has the label {int(beyond[0])}, and there are {count} classes; give all `classes` of the maps")
    picture = Image.fromarray(labels.to(torch.uint8).contiguous().numpy())
    if colours is not None:
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        palette = [channel for colour in colours for channel in colour]
        picture.putpalette(palette + [0] * (3 * 256 - len(palette)))  # whole, for Pillow saves a shorter one with fewer bits a pixel
    return picture


SEGMENTATION_WRITERS = {"segmentation": write_segmentation}
