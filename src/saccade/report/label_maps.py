"""The label maps of an evaluation as files, written while they come: see `data.formats.label_files` for what each of them holds."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saccade.data.formats.label_files import COLOURS, CONFIDENCE, LABELS, SUFFIX, colour_file, confidence_file, label_file
from saccade.data.formats.stored import file_of
from saccade.engine.files import atomic_write, storage_errors
from saccade.report.palette import Colour
from saccade.structures import Batch, Meta, Prediction, SegmentationMap


class LabelMapFiles:
    """An observer of evaluations: writes `labels`, `colours` and (where the model says it) `confidence` of each image, by its id, into `folder`.

    `colours`: one a class. Predictions of other kinds are passed over. Of data sets put together that use an id twice, the second one's images lie in
    a folder of its name. `count`: how many maps were written.
    """

    def __init__(self, folder: str | Path, colours: Sequence[Colour]) -> None:
        self.folder, self.colours = Path(folder), tuple(colours)
        self.count = 0
        self._owners: dict[str, str] = {}  # id -> data set

    def __call__(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        """Write one batch. Raises DataError for an id that can't name a file, StorageError where nothing can be written."""
        for meta, prediction in zip(batch.metas, predictions, strict=True):
            if isinstance(prediction, SegmentationMap):
                self._write(self._name_of(meta), prediction)

    def _name_of(self, meta: Meta) -> str:
        owner = self._owners.setdefault(str(meta.id), meta.dataset)
        return str(meta.id) if owner == meta.dataset else f"{meta.dataset}/{meta.id}"

    def _write(self, item: str, found: SegmentationMap) -> None:
        files = {LABELS: label_file(found.labels), COLOURS: colour_file(found.labels, self.colours)}
        if found.scores is not None and found.scores.ndim == 2:
            files[CONFIDENCE] = confidence_file(found.scores)
        for kind, content in files.items():
            path = file_of(self.folder / kind, item, SUFFIX)
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content)
        self.count += 1
