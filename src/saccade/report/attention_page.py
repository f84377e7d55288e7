"""A record of attention as one self-contained HTML page: click a place or a detection, choose layer and head. No network, no library.

Maps are stored row by row (a row is what one place looks at): the row's largest weight as float32, and a byte for each weight, its share of the
largest in `levels` steps. That is linear, as the colours are: a root or a logarithm would keep faint weights apart that nobody can see, at twice the
size. A layer is compressed by zlib, and unpacked by the browser when it is first asked for (`DecompressionStream("deflate")`: Chromium and Edge 80,
Firefox 113, Safari 16.4). The page is limited to about 15 MB: `ENCODER_BYTES` by fewer levels, then one row for a block of places; `DECODER_BYTES` by
fewer levels, then fewer detections; in the first way that fits, and the page says which.
"""
from __future__ import annotations

import base64
import hashlib
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from PIL import Image

from saccade.engine.files import atomic_write, storage_errors
from saccade.report.attention import AttentionRecord, pool_sources
from saccade.report.palette import colour_of, hexadecimal, text_colour_on

ENCODER_BYTES, DECODER_BYTES = 9_400_000, 1_400_000  # of all layers together, compressed; base64 makes a third more of it
_TEMPLATES = Path(__file__).parent / "templates"
_WAYS = ((1, 255), (1, 127), (1, 63), (1, 31), (2, 63), (2, 31), (3, 31), (4, 31), (6, 31), (8, 31), (12, 31))  # (pooling, levels), best first
_DETECTIONS = (50, 25, 10)  # kept on the page where all are too many
_PROBED = 16  # one row of so many is compressed to see whether a way fits
_USUAL_THRESHOLD, _SHOWN_AT_LEAST = 0.5, 5


@dataclass(frozen=True)
class _Encoder:
    layers: list[bytes]
    levels: int
    pooling: int
    sources: tuple[int, int]  # rows and columns of the places that have a row


@dataclass(frozen=True)
class _Decoder:
    layers: list[bytes]
    levels: int
    detections: int  # the best ones, whose maps are kept


def write_attention_page(record: AttentionRecord, out: str | Path, *, title: str, model: str = "") -> Path:
    """Write the page to the file `out` (its folder is made) and return its path. `title` is usually the photo's name, `model` what was looked into.

    Raises StorageError where the file can't be written.
    """
    path = Path(out)
    page = render_attention_page(record, title=title, model=model).encode()
    with storage_errors(path, len(page)):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, page)
    return path


def render_attention_page(record: AttentionRecord, *, title: str, model: str = "", encoder_bytes: int = ENCODER_BYTES) -> str:
    """The page as text. The encoder's maps take at most about `encoder_bytes` before base64."""
    encoder = _encoder(record, encoder_bytes)
    decoder = _best_detections(record, DECODER_BYTES)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (_TEMPLATES / "attention.js").read_text(encoding="utf-8")
    return environment.get_template("attention.html").render(
        title=title, facts=_facts(record, model), notes=_notes(record, encoder, decoder), picture=_jpeg(record),
        data=_data(record, encoder, decoder), encoder=[_text(layer) for layer in encoder.layers], decoder=[_text(layer) for layer in decoder.layers],
        script=script, script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def pack_rows(maps: npt.NDArray[Any], levels: int) -> bytes:
    """Non-negative maps (heads, rows, S), compressed: heads x rows float32 (little-endian), each row's largest weight; then a byte a weight."""
    rows = maps.astype(np.float32)
    largest = rows.max(-1, keepdims=True)
    steps = rows / np.where(largest > 0, largest, 1) * levels
    return zlib.compress(largest.astype("<f4").tobytes() + np.rint(steps).astype(np.uint8).tobytes(), 6)


def _encoder(record: AttentionRecord, most_bytes: int) -> _Encoder:
    """The encoder's maps in the first of the ways that fits, judged by a sample of the rows."""
    for pooling, levels in _WAYS:
        layers = [pool_sources(layer, record.source_grid, pooling).numpy() for layer in record.encoder]
        probe = sum(len(pack_rows(layer[:, ::_PROBED], levels)) * layer.shape[1] / -(-layer.shape[1] // _PROBED) for layer in layers)
        if probe <= most_bytes or (pooling, levels) == _WAYS[-1]:
            break
    rows, columns = record.source_grid
    sources = (-(-rows // pooling), -(-columns // pooling))
    return _Encoder([pack_rows(layer, levels) for layer in layers], levels, pooling * record.pooling, sources)


def _best_detections(record: AttentionRecord, most_bytes: int) -> _Decoder:
    """The decoder's maps with as many levels, and then of as many of the best detections, as fit."""
    everyone = len(record.queries)
    ways = [(everyone, 255), (everyone, 63), (everyone, 31), *((count, 31) for count in _DETECTIONS if count < everyone)]
    for count, levels in ways:
        layers = [pack_rows(layer[:, :count].flatten(2).numpy(), levels) for layer in record.decoder]
        if sum(map(len, layers)) <= most_bytes:
            break
    return _Decoder(layers, levels, count)


def _data(record: AttentionRecord, encoder: _Encoder, decoder: _Decoder) -> dict[str, Any]:
    """What the script reads besides the maps: plain numbers and text."""
    height, width = record.picture.shape[:2]
    rows, columns = encoder.sources
    return {
        "size": [height, width], "grid": list(record.grid), "cell": list(record.cell), "sources": [rows, columns], "pooling": encoder.pooling,
        "encoder": {"layers": len(encoder.layers), "heads": record.encoder.shape[1], "rows": rows * columns, "levels": encoder.levels},
        "decoder": {"layers": len(record.decoder), "heads": record.decoder.shape[1], "rows": decoder.detections, "levels": decoder.levels},
        "detections": _detections(record)[: decoder.detections],
        "threshold": _threshold(record.detections.scores.tolist()),
    }


def _detections(record: AttentionRecord) -> list[dict[str, Any]]:
    found = record.detections
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), record.queries.tolist(), strict=True)
    return [
        {
            "box": [round(side, 2) for side in box], "score": round(score, 4), "query": query, "colour": hexadecimal(colour_of(label)),
            "name": record.classes[label] if label < len(record.classes) else str(label), "ink": hexadecimal(text_colour_on(colour_of(label))),
        }
        for box, score, label, query in rows
    ]


def _threshold(scores: Sequence[float]) -> float:
    """Where the slider stands at first: at one half, or lower where that would show nothing."""
    if not scores or max(scores) >= _USUAL_THRESHOLD:
        return _USUAL_THRESHOLD
    lowest = sorted(scores, reverse=True)[: _SHOWN_AT_LEAST][-1]
    return int(lowest * 100) / 100


def _facts(record: AttentionRecord, model: str) -> list[tuple[str, str]]:
    height, width = record.picture.shape[:2]
    rows, columns = record.grid
    facts = [("model", model)] if model else []
    return [
        *facts, ("picture, as the network gets it", f"{width} x {height} pixels"), ("places", f"{columns} x {rows}"),
        ("encoder", f"{len(record.encoder)} layers, {record.encoder.shape[1]} heads"),
        ("decoder", f"{len(record.decoder)} layers, {record.decoder.shape[1]} heads"),
    ]


def _notes(record: AttentionRecord, encoder: _Encoder, decoder: _Decoder) -> list[str]:
    notes = []
    scores = record.detections.scores
    if not (scores >= _USUAL_THRESHOLD).any():
        notes.append(f"No detection scores {_USUAL_THRESHOLD} or more; the best can be shown with the slider.")
    if decoder.detections < len(scores):
        notes.append(f"To keep this page small, only the best {decoder.detections} of {len(scores)} detections are on it.")
    if encoder.pooling > 1:
        rows, columns = encoder.sources
        notes.append(
            f"To keep this page small, {encoder.pooling} x {encoder.pooling} places together are one point to look from in the encoder "
            f"({columns} x {rows} points); what is looked at is at full resolution."
        )
    return notes


def _jpeg(record: AttentionRecord) -> str:
    buffer = io.BytesIO()
    Image.fromarray(record.picture).save(buffer, "JPEG", quality=90)
    return _text(buffer.getvalue())


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
