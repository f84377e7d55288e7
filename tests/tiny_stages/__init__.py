"""A run in stages of seconds, with a plugin that has a task: a training, the task, and a training that begins with the first one's weights."""
from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from saccade.data.loading import Loader
from saccade.engine.files import write_json
from saccade.models.contract import Model

SACCADE = {"tasks": {"Write": "tiny_stages:Write"}}

RECIPE = """\
# A classifier in stages of seconds.
model: {type: ImageClassifier, backbone: {type: LeNet5}, dropout: 0.2}
data:
  train: {type: TownClassification, size: 32, num_images: 16}
  evaluate: {val: {type: TownClassification, split: val, size: 32, num_images: 4}}
  train_transforms: [{type: RandomHorizontalFlip}]
  evaluation_transforms: [{type: Resize, size: [32, 32]}]
learner: {type: Supervised, optimizer: {type: AdamW, lr: 0.002}}
metrics: [{type: ClassificationAccuracy}]
run: {steps: 2, batch_size: 4, log_every: 1}
stages:
  first: {}
  labels: {task: {type: Write, into: classes}, weights: {source: "stage:first"}, run: {batch_size: 8}}
  second: {weights: {source: "stage:first"}, learner: {schedule: {type: Cosine}}, run: {steps: 6, save_every: 4, seed: 3}}
"""


class Write:
    """Writes a json file for each image with the network's best class, into the folder `into`; `pause` seconds before each."""

    def __init__(self, *, into: str, pause: float = 0.0) -> None:
        self.into, self.pause = into, pause

    def run(self, model: Model, batches: Loader, folder: Path, progress: Callable[[int], object]) -> None:
        """Keep the files that are there, write the others, and say in `written.json` how many those were."""
        (folder / self.into).mkdir(exist_ok=True)
        done = written = 0
        for batch in batches.batches():
            for meta, prediction in zip(batch.metas, model.predictions(model(batch), batch), strict=True):
                file = folder / self.into / f"{Path(str(meta.id)).name}.json"
                if not file.exists():
                    time.sleep(self.pause)
                    write_json(file, prediction.top(1))
                    written += 1
                done += 1
            progress(done)
        write_json(folder / "written.json", written)
