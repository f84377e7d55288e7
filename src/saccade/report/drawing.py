"""Predictions and truth drawn on pictures.

A picture is a (H, W, 3) uint8 RGB array. Small ones are enlarged first, and lines and letters grow with the picture, so that thumbnails of 128 pixels
and 1080p frames are equally legible. Boxes and masks are drawn with supervision's annotators, names with Pillow (which knows more than ASCII).
"""
from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from saccade.data.segments import segment_boxes
from saccade.report.palette import PALETTE, Colour, class_colours, colour_of, colour_table, text_colour_on
from saccade.structures import IGNORE, Annotations, Classification, Detections, Panoptic, Prediction, Segment, SegmentationMap

Picture = npt.NDArray[np.uint8]
LEGIBLE = 420  # pixels of the longer side below which a picture is enlarged before anything is drawn
_MASK_OPACITY, _MAP_OPACITY = 0.45, 0.55
_CROWDED = 25  # objects above which names are written smaller


@dataclass(frozen=True)
class Style:
    """Line width and letter height in pixels, for a picture of one size."""

    line: int
    letters: int

    @classmethod
    def for_size(cls, height: int, width: int) -> Style:
        """What is legible on a picture of `height` x `width` pixels."""
        short = min(max(height, width) * 0.6, height, width)
        return cls(line=max(2, round(short / 300)), letters=int(min(64, max(14, round(short / 45)))))


def to_picture(image: Tensor) -> Picture:
    """A (3, H, W) uint8 RGB tensor as a picture."""
    return np.ascontiguousarray(image.as_subclass(Tensor).cpu().permute(1, 2, 0).numpy())


def enlargement(height: int, width: int) -> int:
    """The whole factor by which a picture of that size is enlarged before drawing (1 for all but small ones)."""
    return max(1, -(-LEGIBLE // max(height, width, 1)))


def draw(prediction: Prediction | Annotations | None, picture: Picture, classes: Sequence[str] = (), min_score: float = 0.0) -> Picture:
    """A new picture with `prediction` (in pixels of `picture`) drawn on it; the given one stays as it is.

    Detections and segments with a score below `min_score` are left out. `classes` name the labels; a label without a name is written as a number.
    None draws nothing but still enlarges, so that pictures of one image have one size.
    """
    factor = enlargement(*picture.shape[:2])
    if factor > 1:
        size = (picture.shape[1] * factor, picture.shape[0] * factor)
        canvas = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)).copy()
    else:
        canvas = picture.copy()
    return canvas if prediction is None else _draw(prediction, canvas, factor, tuple(classes), min_score)


def draw_tracks(found: Detections, picture: Picture, classes: Sequence[str] = ()) -> Picture:
    """A new picture with the boxes of `found`, named by id and class alone, as frames of a video show them; sizes as in `draw`."""
    canvas, shown = draw(None, picture), found[torch.isfinite(found.boxes).all(1)].to("cpu")
    ids = [""] * len(shown) if shown.track_ids is None else [f"#{track} " for track in shown.track_ids.tolist()]
    texts = [number + _name(label, tuple(classes)) for number, label in zip(ids, shown.labels.tolist(), strict=True)]
    return _draw_objects(canvas, enlargement(*picture.shape[:2]), shown, texts)


@functools.singledispatch
def _draw(prediction: object, canvas: Picture, factor: int, classes: tuple[str, ...], min_score: float) -> Picture:
    raise TypeError(f"nothing is known about drawing a {type(prediction).__name__}")


@_draw.register
def _(prediction: Classification, canvas: Picture, factor: int, classes: tuple[str, ...], min_score: float) -> Picture:
    lines = [(f"{_name(label, classes)} {score:.1%}", colour_of(label)) for label, score in prediction.top(3)]
    return _write_corner(canvas, lines)


@_draw.register
def _(prediction: Detections, canvas: Picture, factor: int, classes: tuple[str, ...], min_score: float) -> Picture:
    shown = prediction[(prediction.scores >= min_score) & torch.isfinite(prediction.boxes).all(1)].to("cpu")
    texts = [f"{_name(label, classes)} {score:.2f}" for label, score in zip(shown.labels.tolist(), shown.scores.tolist(), strict=True)]
    if shown.track_ids is not None:
        texts = [f"#{track} {text}" for track, text in zip(shown.track_ids.tolist(), texts, strict=True)]
    return _draw_objects(canvas, factor, shown, texts)


@_draw.register
def _(prediction: SegmentationMap, canvas: Picture, factor: int, classes: tuple[str, ...], min_score: float) -> Picture:
    labels = prediction.labels.cpu().numpy()
    colours = class_colours(classes)
    canvas = _blend_map(canvas, colour_table(1 + int(labels[labels != IGNORE].max(initial=0)), colours)[labels], labels != IGNORE, factor)
    present, counts = np.unique(labels[labels != IGNORE], return_counts=True)
    largest = present[np.argsort(-counts)][:8].tolist()
    return _write_corner(canvas, [(_name(label, classes), colours[label] if label < len(colours) else colour_of(label)) for label in largest])


@_draw.register
def _(prediction: Panoptic, canvas: Picture, factor: int, classes: tuple[str, ...], min_score: float) -> Picture:
    rows = prediction.rows().clamp(min=-1).cpu()
    stuff = [not s.is_thing and s.score >= min_score for s in prediction.segments]
    labels = np.array([*(s.label for s in prediction.segments), 0])[rows]  # void, row -1, is the last
    known = np.array([*stuff, False])[rows]
    canvas = _blend_map(canvas, colour_table(int(labels.max(initial=0)) + 1)[labels], known, factor)
    present, counts = np.unique(labels[known], return_counts=True)
    canvas = _write_corner(canvas, [(_name(label, classes), colour_of(label)) for label in present[np.argsort(-counts)][:8].tolist()])
    things = [row for row, s in enumerate(prediction.segments) if s.is_thing and s.score >= min_score]
    return _draw_objects(canvas, factor, *_things(prediction.segments, rows, things, classes))


@_draw.register
def _(truth: Annotations, canvas: Picture, factor: int, classes: tuple[str, ...], min_score: float) -> Picture:
    if truth.panoptic is not None:
        return _draw(truth.panoptic, canvas, factor, classes, 0.0)
    if truth.segmentation is not None and truth.boxes is None:
        return _draw(SegmentationMap(truth.segmentation.long()), canvas, factor, classes, 0.0)
    if truth.boxes is not None:
        canvas = _draw_true_objects(truth, canvas, factor, classes)
    if truth.label is not None:
        canvas = _write_corner(canvas, [(_name(label, classes), colour_of(label)) for label in true_labels(truth.label)[:4]])
    return canvas


def true_labels(label: int | Tensor) -> list[int]:
    """The classes that a sample's `label` names: one index, or those above one half of a soft or multiple label (else its largest)."""
    if isinstance(label, Tensor) and label.ndim:
        chosen = (label > 0.5).nonzero().flatten().tolist()
        return chosen or [int(label.argmax())]
    return [int(label)]


def _draw_true_objects(truth: Annotations, canvas: Picture, factor: int, classes: tuple[str, ...]) -> Picture:
    assert truth.boxes is not None
    n = len(truth.boxes)
    labels = truth.labels if truth.labels is not None else torch.zeros(n, dtype=torch.int64)
    objects = Detections(truth.boxes.as_subclass(Tensor).float(), torch.ones(n), labels, masks=_plain(truth.masks), track_ids=_plain(truth.track_ids))
    texts = [_name(label, classes) for label in labels.tolist()]
    for name, flags in (("crowd", truth.crowd), ("difficult", truth.difficult)):
        if flags is not None:
            texts = [f"{text} ({name})" if flag else text for text, flag in zip(texts, flags.tolist(), strict=True)]
    finite = torch.isfinite(objects.boxes).all(1)
    return _draw_objects(canvas, factor, objects[finite], [t for t, keep in zip(texts, finite.tolist(), strict=True) if keep])


def _draw_objects(canvas: Picture, factor: int, objects: Detections, texts: list[str]) -> Picture:
    if not len(objects):
        return canvas
    import supervision

    height, width = canvas.shape[:2]
    style = Style.for_size(height, width)
    limits = torch.tensor([width - 1, height - 1, width - 1, height - 1])
    boxes = torch.minimum((objects.boxes.float() * factor).clamp(min=0), limits)
    masks = objects.masks
    if masks is not None:
        masks = masks.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    scaled = Detections(boxes, objects.scores, objects.labels, masks, objects.track_ids)
    # Tracks are told apart by colour, classes where there are no tracks.
    numbers = (scaled.labels if scaled.track_ids is None else scaled.track_ids).numpy() % len(PALETTE)
    palette = supervision.ColorPalette([supervision.Color(*c) for c in PALETTE])
    blue_first, found = np.ascontiguousarray(canvas[..., ::-1]), scaled.to_supervision()
    if masks is not None:
        blue_first = supervision.MaskAnnotator(palette, opacity=_MASK_OPACITY).annotate(blue_first, found, custom_color_lookup=numbers)
        blue_first = supervision.PolygonAnnotator(palette, thickness=style.line).annotate(blue_first, found, custom_color_lookup=numbers)
    thickness = style.line if masks is None else max(1, style.line // 2)
    blue_first = supervision.BoxAnnotator(palette, thickness=thickness).annotate(blue_first, found, custom_color_lookup=numbers)
    letters = style.letters if len(texts) <= _CROWDED else max(11, round(style.letters * 0.7))
    chips = [(text, colour_of(int(n)), (float(b[0]), float(b[1]))) for text, n, b in zip(texts, numbers, boxes, strict=True)]
    # Worst first, so that the name of the best lies on top where names overlap.
    return _write_chips(np.ascontiguousarray(blue_first[..., ::-1]), chips[::-1], letters, above=True)


def _write_chips(canvas: Picture, chips: list[tuple[str, Colour, tuple[float, float]]], letters: int, above: bool) -> Picture:
    """Each text on a filled rectangle whose lower (`above`) or upper left corner is at (x, y), moved as far as needed to stay inside."""
    image = Image.fromarray(canvas)
    brush, font, pad = ImageDraw.Draw(image), _font(letters), max(2, letters // 5)
    ascent, descent = font.getmetrics()
    height = ascent + descent + pad
    for text, colour, (x, y) in chips:
        text = _fitting(text, font, image.width - 2 * pad)
        width = int(font.getlength(text)) + 2 * pad
        left = int(min(max(0, x), max(0, image.width - width)))
        top = int(y) - height if above else int(y)
        if above and top < 0:  # no room above the box: inside it, under its upper edge
            top = int(y)
        top = min(max(0, top), max(0, image.height - height))
        brush.rectangle((left, top, left + width - 1, top + height - 1), fill=colour)
        brush.text((left + pad, top + pad // 2), text, font=font, fill=text_colour_on(colour))
    return np.asarray(image).copy()


def _write_corner(canvas: Picture, lines: list[tuple[str, Colour]]) -> Picture:
    """Texts under each other in the upper left corner."""
    letters = Style.for_size(*canvas.shape[:2]).letters
    step = int(letters * 1.6)
    return _write_chips(canvas, [(text, colour, (6, 6 + i * step)) for i, (text, colour) in enumerate(lines)], letters, above=False)


def _fitting(text: str, font: Any, width: int) -> str:
    text = text.replace("\n", " ")
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength(text + "...") > width:
        text = text[: int(len(text) * 0.9)] if len(text) > 10 else text[:-1]
    return text + "..."


def _blend_map(canvas: Picture, colours: Picture, known: npt.NDArray[np.bool_], factor: int) -> Picture:
    opacity = np.where(known, _MAP_OPACITY, 0.0)[..., None].repeat(factor, 0).repeat(factor, 1)
    colours = colours.repeat(factor, 0).repeat(factor, 1)
    return (canvas * (1 - opacity) + colours * opacity).round().astype(np.uint8)


def _things(segments: Sequence[Segment], rows: Tensor, things: list[int], classes: tuple[str, ...]) -> tuple[Detections, list[str]]:
    """The segments with the numbers `things` as objects, and their names: with scores, but for those of the truth, which are all 1."""
    boxes = segment_boxes(rows, len(segments))
    there = [row for row in things if boxes[row, 2] > 0]
    shown = [segments[row] for row in there]
    texts = [_name(s.label, classes) + (" (crowd)" if s.is_crowd else "") + (f" {s.score:.2f}" if s.score < 1 else "") for s in shown]
    scores, labels = torch.tensor([s.score for s in shown]), torch.tensor([s.label for s in shown], dtype=torch.int64)
    return Detections(boxes[there], scores, labels, rows[None] == torch.tensor(there, dtype=torch.int64)[:, None, None]), texts


def _comparable(truth: Annotations, prediction: Prediction) -> Annotations:
    match prediction:
        case Detections(masks=masks, track_ids=track_ids):
            return Annotations(
                boxes=truth.boxes, labels=truth.labels, crowd=truth.crowd, difficult=truth.difficult,
                masks=None if masks is None else truth.masks, track_ids=None if track_ids is None else truth.track_ids,
            )
        case Classification():
            return Annotations(label=truth.label)
        case SegmentationMap():
            return Annotations(segmentation=truth.segmentation)
        case _:
            return truth


def _plain(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.as_subclass(Tensor)


def _name(label: int, classes: tuple[str, ...]) -> str:
    return classes[label] if 0 <= label < len(classes) else str(label)


@functools.lru_cache(maxsize=16)
def _font(size: int) -> Any:
    """DejaVu Sans (it comes with matplotlib, which supervision needs) at `size` pixels; Pillow's own letters know little more than ASCII."""
    package = importlib.util.find_spec("matplotlib")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        path = Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def with_title(picture: Picture, title: str) -> Picture:
    """The picture under a dark bar with `title` on it."""
    letters = Style.for_size(*picture.shape[:2]).letters
    bar = Image.new("RGB", (picture.shape[1], int(letters * 1.8)), (32, 36, 44))
    text = _fitting(title, _font(letters), bar.width - letters)
    ImageDraw.Draw(bar).text((letters // 2, bar.height // 2), text, font=_font(letters), fill=(240, 240, 240), anchor="lm")
    return np.concatenate([np.asarray(bar), picture])


def side_by_side(pictures: Sequence[Picture], gap: int = 6) -> Picture:
    """Pictures of equal height next to each other, with a white gap of `gap` pixels."""
    space = np.full((pictures[0].shape[0], gap, 3), 255, dtype=np.uint8)
    parts = [part for picture in pictures for part in (picture, space)]
    return np.concatenate(parts[:-1], axis=1)


def truth_beside_prediction(
    picture: Picture, truth: Annotations | None, prediction: Prediction, classes: Sequence[str], min_score: float = 0.3
) -> Picture:
    """Two pictures in one: what is annotated on the left, what was predicted on the right; `min_score` as in `draw`.

    Of the truth only what the prediction speaks of is drawn: no masks beside boxes, no tracks beside single images.
    """
    known = None if truth is None else _comparable(truth, prediction)
    left = with_title(draw(known, picture, classes), "truth" if truth is not None else "no annotations")
    right = with_title(draw(prediction, picture, classes, min_score), "prediction")
    return side_by_side([left, right])
