"""Samples of a data set side by side with their annotations drawn, as one picture."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from saccade.data.contract import Dataset
from saccade.errors import DataError
from saccade.report.drawing import LEGIBLE, draw, to_picture
from saccade.structures import Annotations, Panoptic, Sample, SegmentationMap, first_frame

_MARGIN, _CAPTION = 8, 20
_CELL = LEGIBLE  # the smallest at which names are drawn without enlarging
_PAPER, _INK, _FAINT = (255, 255, 255), (40, 40, 40), (238, 238, 238)


def contact_sheet(dataset: Dataset, indices: Sequence[int] | None = None, *, count: int = 12, columns: int = 4, seed: int = 0) -> Image.Image:
    """A picture of `indices` (else of `count` samples drawn by `seed`), `columns` in a row, each fitted into a square over its id.

    What can't be read gets a grey cell with its id.
    """
    if indices is None:
        drawn = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:count]
        indices = sorted(drawn.tolist())
    columns = max(1, min(columns, len(indices)))
    rows = max(1, -(-len(indices) // columns))
    sheet = Image.new("RGB", (_MARGIN + columns * (_CELL + _MARGIN), _MARGIN + rows * (_CELL + _CAPTION + _MARGIN)), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, index in enumerate(indices):
        left, top = _MARGIN + number % columns * (_CELL + _MARGIN), _MARGIN + number // columns * (_CELL + _CAPTION + _MARGIN)
        pen.rectangle((left, top, left + _CELL - 1, top + _CELL - 1), fill=_FAINT)
        caption = dataset.item_id(index)
        try:
            sample = first_frame(dataset[index])
        except DataError:
            pen.text((left + _CELL // 2, top + _CELL // 2), "can't be read", fill=_INK, font=font, anchor="mm")
        else:
            picture = _fitted(sample, dataset.classes)
            sheet.paste(picture, (left + (_CELL - picture.width) // 2, top + (_CELL - picture.height) // 2))
            caption += _class_names(sample, dataset.classes)
        pen.text((left, top + _CELL + 3), _shortened(caption, _CELL, font), fill=_INK, font=font)
    return sheet


def _fitted(sample: Sample, classes: Sequence[str]) -> Image.Image:
    """The sample at the size at which it is shown, its objects drawn on it after scaling, so that lines and names stay legible."""
    height, width = sample.size
    scale = _CELL / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(to_picture(sample.image)).resize(shape, Image.Resampling.BICUBIC if scale < 4 else Image.Resampling.NEAREST)
    annotations = sample.annotations()
    if annotations.panoptic is not None:
        ids = annotations.panoptic.segment_map.as_subclass(Tensor).numpy().astype(np.int32)
        resized_map = torch.from_numpy(np.array(Image.fromarray(ids).resize(shape, Image.Resampling.NEAREST)))
        return Image.fromarray(draw(Panoptic(resized_map, annotations.panoptic.segments), np.asarray(picture), classes))
    if annotations.boxes is None and annotations.segmentation is not None:
        labels = Image.fromarray(annotations.segmentation.to(torch.uint8).numpy()).resize(shape, Image.Resampling.NEAREST)
        return Image.fromarray(draw(SegmentationMap(torch.from_numpy(np.array(labels)).long()), np.asarray(picture), classes))
    if annotations.boxes is None or annotations.labels is None or not len(annotations.boxes):
        return picture
    boxes = annotations.boxes * torch.tensor([shape[0] / width, shape[1] / height] * 2)
    masks = None
    if annotations.masks is not None:
        resized = [np.array(Image.fromarray(mask).resize(shape, Image.Resampling.NEAREST)) for mask in annotations.masks.numpy()]
        masks = torch.from_numpy(np.stack(resized))
    objects = Annotations(boxes=boxes, labels=annotations.labels, masks=masks, track_ids=annotations.track_ids)
    return Image.fromarray(draw(objects, np.asarray(picture), classes))


def _class_names(sample: Sample, classes: Sequence[str]) -> str:
    label = sample.label
    if label is None:
        return ""
    present = [label] if isinstance(label, int) else torch.nonzero(label.as_subclass(Tensor) > 0).flatten().tolist()
    return ": " + ", ".join(classes[i] for i in present)


def _shortened(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The end of `text` that fits into `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength("..." + text) > width:
        text = text[1:]
    return "..." + text
