"""What people want predictions for: image files, folders of them, patterns, and videos, found and read one after the other.

Videos are decoded with PyAV frame by frame, turned upright where the file says so (phones), and never held in memory. Sound is left out.
"""
from __future__ import annotations

import glob
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from saccade.data.decoding import IMAGE_SUFFIXES
from saccade.errors import DataError, InputError

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp", ".ogv"})
_PATTERN = frozenset("*?[")


@dataclass(frozen=True)
class Medium:
    """One input: an image or a video, with the `name` that it goes by in results (its path relative to the folder that was asked for)."""

    path: Path
    name: str
    kind: Literal["image", "video"]


def find_media(inputs: Sequence[str | Path], leave_out: Path | None = None) -> list[Medium]:
    """All images and videos that `inputs` name: files, folders (searched through all levels, in the order of names), patterns such as `a/**/*.jpg`.

    Each file comes once. A file that is named itself is taken whatever its suffix; in folders and patterns only known suffixes are. Where the folder
    `leave_out` (of results) lies inside a given one, its files are no inputs. Raises InputError for an input that does not exist or holds none.
    """
    found: dict[Path, Medium] = {}
    hidden = None if leave_out is None else leave_out.resolve()
    for given in inputs:
        media = _media_of(str(given))
        if hidden is not None and Path(given).resolve() in hidden.parents:
            media = [m for m in media if hidden not in m.path.resolve().parents]
        if not media:
            known = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
            raise InputError(f"{given} holds no image and no video (files that end in {known}); name a file, a folder or a pattern that does")
        for medium in media:
            found.setdefault(medium.path.resolve(), medium)
    return list(found.values())


def _media_of(given: str) -> list[Medium]:
    path = Path(given)
    if path.is_file():
        kind: Literal["image", "video"] = "video" if path.suffix.lower() in VIDEO_SUFFIXES else "image"
        return [Medium(path, path.name, kind)]
    if path.is_dir():
        return _known(sorted(p for p in path.rglob("*") if p.is_file()), path)
    if _PATTERN & set(given):
        return _known([Path(p) for p in sorted(glob.glob(given, recursive=True)) if Path(p).is_file()], None)
    raise InputError(f"there is no file, folder or pattern {given}; check the name (a pattern needs quotes, or the shell expands it)")


def _known(paths: Sequence[Path], folder: Path | None) -> list[Medium]:
    media = []
    for path in paths:
        name = path.name if folder is None else path.relative_to(folder).as_posix()
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            media.append(Medium(path, name, "image"))
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            media.append(Medium(path, name, "video"))
    return media


class VideoReader:
    """The frames of a video, in order: `for frame in VideoReader(path)` gives (H, W, 3) uint8 RGB arrays, upright.

    `frame_rate` (frames a second, exact), `size` (height, width) of the upright frames and `length` (what the file claims, which may be wrong; None
    where it says nothing). Raises DataError, naming the file, where it can't be opened or holds no picture. A stream that breaks off in the
    middle gives the frames before; `broken` then says what was wrong.
    """

    def __init__(self, path: str | Path) -> None:
        import av

        self.path = Path(path)
        self.broken: str | None = None
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise DataError(f"{self.path} has no video stream")
                stream = container.streams.video[0]
                rate = stream.average_rate or stream.guessed_rate
                self.frame_rate = Fraction(rate) if rate else Fraction(25)
                length = stream.frames or self._length_by_duration(stream)
                self.length = length if length > 0 else None
                first = next(container.decode(stream), None)
        except (av.FFmpegError, OSError) as error:
            raise DataError(f"{self.path} can't be read as a video: {_reason(error)}") from None
        if first is None:
            raise DataError(f"{self.path} holds no frame that can be decoded")
        turned = _quarter_turns(first) % 2 == 1
        self.size = (first.width, first.height) if turned else (first.height, first.width)

    def _length_by_duration(self, stream: av.VideoStream) -> int:
        if stream.duration is None or stream.time_base is None:
            return 0
        return math.floor(stream.duration * stream.time_base * self.frame_rate)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        import av

        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            frames = container.decode(stream)
            while True:
                try:
                    frame = next(frames)
                except StopIteration:
                    return
                except (av.FFmpegError, OSError) as error:
                    self.broken = _reason(error)
                    return
                yield upright(frame)


def upright(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """The pixels of a decoded frame, (H, W, 3) uint8 RGB, turned as the file says."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), _quarter_turns(frame)))


def _quarter_turns(frame: av.VideoFrame) -> int:
    # FFmpeg's display rotation is counter-clockwise in degrees, as numpy's rot90 counts.
    return round(frame.rotation / 90) % 4


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


class VideoWriter:
    """An mp4 of (H, W, 3) uint8 RGB frames of one size: H.264 where the installed FFmpeg has an encoder for it, MPEG-4 otherwise.

    Odd sizes get one more row or column (the last, repeated), because both codecs store colour at half the size. Nothing is at `path` before `close`:
    the file is written beside it and renamed. Use as a context manager; leaving it by an exception removes what was written.
    """

    def __init__(self, path: str | Path, frame_rate: Fraction) -> None:
        self.path, self.frame_rate = Path(path), frame_rate
        self._partial = self.path.with_name(f".{self.path.name}.partial.mp4")
        self._container: Any = None
        self._stream: Any = None
        self.frames = 0

    def write(self, frame: npt.NDArray[np.uint8]) -> None:
        """Append one frame; the first one sets the size."""
        import av

        frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        if self._container is None:
            self._open(frame.shape[0], frame.shape[1])
        if frame.shape[:2] != (self._stream.height, self._stream.width):
            raise ValueError(f"frame {self.frames} is {frame.shape[:2]}, the video {(self._stream.height, self._stream.width)}")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        for packet in self._stream.encode(picture):
            self._container.mux(packet)
        self.frames += 1

    def _open(self, height: int, width: int) -> None:
        import av

        codec = next((name for name in ("libx264", "libopenh264", "mpeg4") if _can_encode(name)), None)
        if codec is None:
            raise DataError(f"{self.path} can't be written: the installed PyAV has neither an H.264 nor an MPEG-4 encoder")
        self._container = av.open(str(self._partial), "w", format="mp4")
        self._stream = self._container.add_stream(codec, rate=self.frame_rate)
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        if codec == "libx264":
            self._stream.options = {"crf": "20", "preset": "veryfast"}
        else:
            self._stream.bit_rate = int(height * width * float(self.frame_rate) * 0.15)

    def close(self) -> None:
        """Finish the file and give it its name; without a single frame there is no file."""
        if self._container is None:
            return
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        self._container = None
        self._partial.replace(self.path)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif self._container is not None:
            self._container.close()
            self._container = None
            self._partial.unlink(missing_ok=True)


def _can_encode(name: str) -> bool:
    import av

    try:
        av.codec.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True
