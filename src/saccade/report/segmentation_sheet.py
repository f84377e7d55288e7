"""What a report shows of a label map: the image, the truth, the prediction, and where the network was unsure, each a small picture of its own.

Pictures of their own, not one wide one, so that a page can lay them out for a phone and put the maps of several runs beside each other.
"""
from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from saccade.engine.files import atomic_write
from saccade.ops.class_maps import entropy_map
from saccade.report.palette import Colour, heat_colours
from saccade.structures import IGNORE, Annotations, SegmentationMap

IMAGE, TRUTH, PREDICTION, ENTROPY = "image", "truth", "prediction", "entropy"
_LONGEST = 640  # pixels of the longer side; a panel is rarely shown larger
_QUALITY = 85

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SheetMaps:
    """One image's maps, small enough to be kept while an evaluation goes on: `found` and `truth` (h, w) labels, 255 = none; `entropy` (h', w') 0..1
    at the network's resolution. None: not known."""

    found: Bytes
    truth: Bytes | None
    entropy: npt.NDArray[np.float16] | None


def sheet_maps(found: SegmentationMap, truth: Annotations) -> SheetMaps:
    """What is shown of a prediction and its truth."""
    entropy = None if found.coarse is None else entropy_map(found.coarse.detach().float()[None])[0].clamp(0, 1).cpu().numpy().astype(np.float16)
    return SheetMaps(_small(found.labels), None if truth.segmentation is None else _small(truth.segmentation), entropy)


def write_panels(folder: Path, stem: str, image: Bytes, maps: SheetMaps, colours: Sequence[Colour]) -> list[dict[str, str]]:
    """Write `stem_image.jpg`, `stem_truth.png`, ... into `folder`; returns `title` and `file` of each, in the order in which they are read."""
    photo = Image.fromarray(image)
    photo.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
    panels = {IMAGE: photo}
    if maps.truth is not None:
        panels[TRUTH] = _coloured(maps.truth, colours)
    panels[PREDICTION] = _coloured(maps.found, colours)
    if maps.entropy is not None:
        heat = Image.fromarray(heat_colours(maps.entropy.astype(np.float32)))
        panels[ENTROPY] = heat.resize(photo.size, Image.Resampling.BILINEAR)
    written = []
    for title, picture in panels.items():
        flat = title in (TRUTH, PREDICTION)  # letters and areas of one colour keep their borders as a PNG, and are smaller
        file, content = f"{stem}_{title}.{'png' if flat else 'jpg'}", io.BytesIO()
        picture.save(content, "PNG") if flat else picture.save(content, "JPEG", quality=_QUALITY)
        atomic_write(folder / file, content.getvalue())
        written.append({"title": title, "file": file})
    return written


def _small(labels: Tensor) -> Bytes:
    """At most `_LONGEST` pixels long, by the nearest label."""
    values = labels.as_subclass(Tensor).detach().cpu().numpy().astype(np.uint8)
    height, width = values.shape
    scale = min(1.0, _LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.NEAREST))


def _coloured(labels: Bytes, colours: Sequence[Colour]) -> Image.Image:
    """Each label in its colour, black where there is none."""
    table = np.zeros((IGNORE + 1, 3), np.uint8)
    table[: len(colours)] = colours
    picture = Image.fromarray(labels)
    picture.putpalette(table.flatten().tolist())
    return picture
