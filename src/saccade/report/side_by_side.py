"""One video of three panels: the truth, what one model tracks, and what another one does, frame by frame, with ids and tails.

Both models follow the same frames, so that an object lost on one side and kept on the other is seen at once. A picture is read, predicted, drawn and
written before the next; what stays in memory are the models' own states and the tails. Beside the video lies one of its frames as a JPEG.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import torch
from PIL import Image

from saccade.data.contract import Dataset, Video
from saccade.data.media import VideoWriter
from saccade.engine.files import storage_errors
from saccade.engine.streaming import follower
from saccade.errors import InputError
from saccade.models.contract import Model
from saccade.report.drawing import Picture, draw_tracks, side_by_side, to_picture, with_title
from saccade.report.prediction import evaluation_transform
from saccade.report.trails import Trails
from saccade.structures import Detections, Sample, collate

TITLES = ("truth", "before", "after")
_FRAME_RATE = 10.0  # where the data set does not say
_MIN_SCORE = 0.5  # of detections that nobody tracks
_STILL = 0.6  # the kept frame lies here in its video: tails have grown


class _Panel:
    """One of the three: its title, what it shows of a frame, and the tails that this leaves."""

    def __init__(self, title: str, classes: Sequence[str], see: Callable[[Sample], Detections], tail: int) -> None:
        self.title, self.classes, self.see, self.tail = title, classes, see, tail
        self.trails = Trails(tail)

    def begin(self) -> None:
        """The next frame is the first of a video."""
        self.trails = Trails(self.tail)

    def draw(self, sample: Sample, picture: Picture) -> Picture:
        """The frame with what this panel sees in it."""
        found = self.see(sample)
        drawn = draw_tracks(found, picture, self.classes)
        if found.track_ids is not None:
            self.trails.add(found)
            drawn = self.trails.draw(drawn, *picture.shape[:2])
        return with_title(drawn, self.title)


def write_side_by_side(
    dataset: Dataset, before: Model, after: Model, out: str | Path, *, titles: tuple[str, str, str] = TITLES, videos: int | None = None,
    tail: int = 20,
) -> Path:
    """Write the video `out` (an mp4), and one frame of it as a .jpg of the same name beside it; returns the path of the video.

    `dataset` has videos with boxes, best with `track_ids`; its first `videos` are shown one after the other (None: all), in their own frame rate.
    Models that follow videos do; of others the surer detections of each frame are shown, without ids. `tail`: how many frames back the tails reach.
    Raises InputError for data without videos and models that find no objects.
    """
    chosen = list(dataset.videos)[:videos]
    if not chosen:
        raise InputError(f"{dataset.name} has no videos, so there is nothing to show side by side; give a data set of videos")
    sees = (_truth(), _seen_by(before), _seen_by(after))
    classes = (dataset.classes, before.classes, after.classes)
    panels = [_Panel(title, names, see, tail) for title, names, see in zip(titles, classes, sees, strict=True)]
    path = Path(out)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    kept = _frame_to_keep(chosen)
    with VideoWriter(path, Fraction(chosen[0].frame_rate or _FRAME_RATE).limit_denominator(1000)) as writer:
        for video in chosen:
            for panel in panels:
                panel.begin()
            for index in video.frames:
                sample = dataset[index]
                picture = to_picture(sample.image)
                frame = side_by_side([panel.draw(sample, picture) for panel in panels])
                if writer.frames == kept:
                    with storage_errors(path):
                        Image.fromarray(frame).save(path.with_suffix(".jpg"), quality=92)
                writer.write(frame)
    return path


def _frame_to_keep(videos: Sequence[Video]) -> int:
    """The number, among all that are shown, of the frame that is kept as a picture: late in the middle video."""
    middle = (len(videos) - 1) // 2
    return sum(len(video.frames) for video in videos[:middle]) + int(_STILL * len(videos[middle].frames))


def _truth() -> Callable[[Sample], Detections]:
    """What is annotated; ids count from 1 in each video, in the order in which they come up, as trackers count."""
    numbers: dict[int, int] = {}
    shown: str | None = None

    def see(sample: Sample) -> Detections:
        nonlocal shown
        if sample.meta.video != shown:
            numbers.clear()
            shown = sample.meta.video
        known = sample.annotations()
        if known.boxes is None:
            return Detections.empty()
        n, ids = len(known.boxes), known.track_ids
        labels = torch.zeros(n, dtype=torch.int64) if known.labels is None else known.labels
        if ids is not None:
            ids = torch.tensor([numbers.setdefault(track, len(numbers) + 1) for track in ids.tolist()], dtype=torch.int64)
        return Detections(known.boxes.float(), torch.ones(n), labels, track_ids=ids)

    return see


def _seen_by(model: Model) -> Callable[[Sample], Detections]:
    """What `model` finds in one frame after another, with its own transforms and nothing but the image."""
    transform, following = evaluation_transform(model), follower(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def see(sample: Sample) -> Detections:
        batch = collate([transform(Sample(image=sample.image, meta=sample.meta))]).to(device)
        with torch.inference_mode():
            (found,) = following(batch) if following is not None else model.predictions(model(batch), batch)
        if not isinstance(found, Detections):
            raise InputError(f"{type(model).__name__} finds no objects, it gives a {type(found).__name__}; side by side are models that do")
        found = found.to("cpu")
        return found if found.track_ids is not None else found.above(_MIN_SCORE)

    return see
