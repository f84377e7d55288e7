"""A plugin with a task of seconds, for tests of staged recipes."""
from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from saccade.data.loading import Loader
from saccade.engine.files import write_json
from saccade.errors import DataError
from saccade.models.contract import Model

SACCADE = {"tasks": {"Write": "tiny_stages:Write"}}


class Write:
    """Writes a json file for each image with the network's best class, into the folder `into`.

    `pause`: seconds before each file. `fails_at`: the number of the file that raises instead.
    """

    def __init__(self, *, into: str, pause: float = 0.0, fails_at: int | None = None) -> None:
        self.into, self.pause, self.fails_at = into, pause, fails_at

    def run(self, model: Model, batches: Loader, folder: Path, progress: Callable[[int], object]) -> None:
        """Keep the files that are there, write the others, and say in `written.json` how many those were."""
        (folder / self.into).mkdir(exist_ok=True)
        done = written = 0
        for batch in batches.batches():
            for meta, prediction in zip(batch.metas, model.predictions(model(batch), batch), strict=True):
                file = folder / self.into / f"{Path(str(meta.id)).name}.json"
                if done == self.fails_at:
                    raise DataError(f"{meta.id} is not to be written")
                if not file.exists():
                    time.sleep(self.pause)
                    write_json(file, prediction.top(1))
                    written += 1
                done += 1
            progress(done)
        write_json(folder / "written.json", written)


def files_in(folder: Path) -> dict[str, object]:
    """What a `Write` left, by file name."""
    return {file.name: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
