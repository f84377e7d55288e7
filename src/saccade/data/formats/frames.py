"""Frames without any annotation: a folder of pictures, a folder of such folders, video files. The target of an adaptation needs nothing more.

Videos are read where a frame is asked for: the file's time stamps are collected once, without decoding; frames in order are decoded one after the
other, a jump starts at the key frame before.
"""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from saccade.data.contract import Problem, Video
from saccade.data.decoding import read_image
from saccade.data.formats.video_frames import natural_order, picture_files
from saccade.data.media import VIDEO_SUFFIXES, upright
from saccade.errors import DataError
from saccade.structures import Annotations, Sample, make_sample

if TYPE_CHECKING:
    import av


class Frames:
    """Unlabelled videos at `root`: a folder whose pictures are the frames of one video, a folder of such folders, video files, or one video file.

    Pictures come in the order of their names, numbers in them by value; a picture's place is its frame number. `classes` are only carried, for models
    that were made for them. Raises `DataError` where there is nothing, and for a frame that can't be decoded when it is asked for.
    """

    def __init__(self, *, root: str | Path, classes: Sequence[str] = (), name: str | None = None) -> None:
        self.root = Path(root).expanduser()
        self.classes = tuple(classes)
        self.problems: list[Problem] = []
        self._sources = list(self._found())
        if not self._sources:
            raise DataError(f"{self.root} has no frames: it needs pictures, folders of pictures, or video files (or be one); check the path")
        self.name = name or self.root.resolve().stem
        bounds = np.cumsum([0, *(len(source) for source in self._sources)])
        self._starts = bounds[:-1]
        self._length = int(bounds[-1])
        self.videos = tuple(
            Video(source.name, tuple(range(first, first + len(source))), source.frame_rate)
            for source, first in zip(self._sources, self._starts.tolist(), strict=True)
        )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        source, frame = self._locate(index)
        pixels, path = source.read(frame), source.path(frame)
        return make_sample(pixels, dataset=self.name, id=self.item_id(index), path=str(path) if path else None, video=source.name, frame=frame)

    def annotations(self, index: int) -> Annotations:
        """Nothing is known."""
        self._locate(index)
        return Annotations()

    def item_id(self, index: int) -> str:
        """The picture's name below the root, or that of the video file with the frame's number, "a.mp4#12"."""
        source, frame = self._locate(index)
        path = source.path(frame)
        return f"{source.name}#{frame}" if path is None else path.relative_to(self.root).as_posix()

    def image_path(self, index: int) -> Path | None:
        """The picture of frame `index`, None for a frame of a video file."""
        source, frame = self._locate(index)
        return source.path(frame)

    def describe(self) -> dict[str, Any]:
        """Name, root, number of frames and videos."""
        return {"name": self.name, "format": "Frames", "root": str(self.root), "images": len(self), "videos": len(self.videos), "labels": "none"}

    def _locate(self, index: int) -> tuple[_Pictures | _VideoFile, int]:
        index = range(len(self))[index]
        video = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._sources[video], index - int(self._starts[video])

    def _found(self) -> Iterator[_Pictures | _VideoFile]:
        if self.root.is_file():
            yield _VideoFile(self.root, self.root.name)
            return
        if not self.root.is_dir():
            raise DataError(f"{self.root} does not exist; check the path (relative ones start at {Path.cwd()})")
        if pictures := picture_files(self.root):
            yield _Pictures(self.root, self.root.resolve().name, pictures)
        for entry in sorted(self.root.rglob("*"), key=lambda e: natural_order(e.relative_to(self.root).as_posix())):
            if any(part.startswith(".") for part in entry.relative_to(self.root).parts):
                continue
            name = entry.relative_to(self.root).as_posix()
            if entry.is_dir() and (pictures := picture_files(entry)):
                yield _Pictures(entry, name, pictures)
            elif entry.is_file() and entry.suffix.lower() in VIDEO_SUFFIXES:
                try:
                    yield _VideoFile(entry, name)
                except DataError as error:
                    self.problems.append(Problem(str(entry), name, str(error), "left out"))


class _Pictures:
    """The frames of a video as files in one folder."""

    frame_rate = None

    def __init__(self, folder: Path, name: str, files: list[str]) -> None:
        self._folder, self.name, self._files = folder, name, files

    def __len__(self) -> int:
        return len(self._files)

    def path(self, frame: int) -> Path:
        return self._folder / self._files[frame]

    def read(self, frame: int) -> torch.Tensor:
        return read_image(self.path(frame))


class _VideoFile:
    """A video file whose frames can be asked for in any order."""

    def __init__(self, file: Path, name: str) -> None:
        import av

        self._file, self.name = file, name
        try:
            with av.open(str(file)) as container:
                if not container.streams.video:
                    raise DataError(f"{file} has no video stream")
                stream = container.streams.video[0]
                self.frame_rate = float(stream.average_rate or stream.guessed_rate or 25)
                packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
                stamps = [stamp for packet in packets if (stamp := packet.dts if packet.pts is None else packet.pts) is not None]
        except (av.FFmpegError, OSError) as error:
            raise DataError(f"{file} can't be read as a video: {str(error).splitlines()[0]}") from None
        if not stamps:
            raise DataError(f"{file} holds no frame")
        self._stamps = np.unique(np.array(stamps, dtype=np.int64))
        self._decoder: Iterator[av.VideoFrame] | None = None
        self._container: Any = None
        self._next, self._process = -1, os.getpid()
        self._inherited: list[Any] = []

    def __len__(self) -> int:
        return len(self._stamps)

    def __getstate__(self) -> dict[str, Any]:
        # An open file can't go to another process; it opens its own.
        return self.__dict__ | {"_decoder": None, "_container": None, "_next": -1, "_inherited": []}

    def path(self, frame: int) -> None:
        return None

    def read(self, frame: int) -> torch.Tensor:
        """Frame `frame` as uint8 RGB (3, H, W), upright."""
        import av

        wanted = int(self._stamps[frame])
        if self._process != os.getpid():
            # The file is open in the process that this one was forked from, which shares the place in it.
            self._inherited.append((self._container, self._decoder))
            self._container, self._decoder, self._next, self._process = None, None, -1, os.getpid()
        try:
            if self._decoder is None or not 0 <= frame - self._next < 32:
                self._open(wanted)
            assert self._decoder is not None
            for picture in self._decoder:
                stamp = picture.dts if picture.pts is None else picture.pts
                if stamp is not None and stamp >= wanted:
                    self._next = int(np.searchsorted(self._stamps, stamp)) + 1
                    return torch.from_numpy(upright(picture)).permute(2, 0, 1).contiguous()
        except (av.FFmpegError, OSError) as error:
            self._close()
            raise DataError(f"frame {frame} of the video {self._file} can't be decoded: {str(error).splitlines()[0]}") from None
        self._close()
        raise DataError(f"frame {frame} of the video {self._file} can't be decoded: the stream ends before it, so the file is damaged or cut short")

    def _open(self, wanted: int) -> None:
        import av

        self._close()
        self._container = av.open(str(self._file))
        stream = self._container.streams.video[0]
        stream.codec_context.thread_count = 1  # a decoder with threads of its own does not outlive a fork into a loader's worker
        self._container.seek(wanted, stream=stream, backward=True)
        self._decoder = iter(self._container.decode(stream))

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._decoder, self._container, self._next = None, None, -1
