"""The tasks of self-training write what the network says, once for each image, and what they wrote is what terms read."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import RandomHorizontalFlip, Resize

from saccade.adaptation.context import RAW, Context
from saccade.adaptation.labels import LabelMaps, OnlineLabels, StoredLabels, StoredSoftLabels
from saccade.adaptation.prototypes import PrototypeBank, class_means, read_prototypes
from saccade.data.combination import Concat
from saccade.data.contract import Dataset
from saccade.data.formats.label_files import ConfidenceCounts, confidence_of, confidence_steps, read_labels
from saccade.data.loading import Loader
from saccade.data.town.segmentation import TownSegmentation
from saccade.engine.label_task import WriteLabels
from saccade.engine.prototype_task import ComputePrototypes
from saccade.errors import DataError, InputError
from saccade.models.deeplab import DeepLabV2
from saccade.structures import SegmentationMap
from small_networks import classifier, segmenter

CLASSES = TownSegmentation(num_images=1).classes


def network() -> DeepLabV2:
    """A segmentation network of the town's classes whose predictions vary."""
    model = segmenter(auxiliary=False, classes=CLASSES)
    torch.manual_seed(1)
    torch.nn.init.normal_(model.head.branches[0].weight, std=0.05)  # type: ignore[union-attr, index]
    return model.eval()


def town(count: int = 5) -> TownSegmentation:
    return TownSegmentation(domain="night", split="val", size=(64, 96), num_images=count, labelled=False)


def loader(dataset: Dataset | None = None, batch_size: int = 2, size: tuple[int, int] = (64, 96)) -> Loader:
    return Loader(dataset=dataset or town(), transforms=[Resize(size=list(size))], batch_size=batch_size, training=False)


class StoppedError(Exception):
    """The task was interrupted."""


def run(task: Any, folder: Path, model: Any = None, batches: Loader | None = None, progress: Callable[[int], object] = lambda images: None) -> None:
    folder.mkdir(exist_ok=True)
    with torch.inference_mode():
        task.run(model or network(), batches or loader(), folder, progress)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def predictions(model: DeepLabV2, size: tuple[int, int] = (64, 96)) -> dict[str, SegmentationMap]:
    found = {}
    with torch.inference_mode():
        for batch in loader(size=size).batches():
            found |= dict(zip((str(meta.id) for meta in batch.metas), model.predictions(model(batch), batch), strict=True))
    return found


def test_hard_labels_are_the_predictions_in_original_size(tmp_path: Path) -> None:
    run(WriteLabels(kind="hard"), tmp_path)
    for item, prediction in predictions(network()).items():
        stored = read_labels(tmp_path, item)
        assert stored.confidence is not None and prediction.scores is not None
        assert stored.labels.shape == (64, 96) and (stored.labels.long() == prediction.labels).float().mean() > 0.999
        assert ((prediction.scores - stored.confidence) > -2e-4).all() and (prediction.scores - stored.confidence).max() < 0.02
        picture = np.asarray(Image.open(tmp_path / "colours" / f"{item}.png"))
        assert np.array_equal(picture, np.array(town().colours)[stored.labels.numpy()])


def test_labels_of_resized_images_have_the_original_size_too(tmp_path: Path) -> None:
    run(WriteLabels(kind="hard"), tmp_path, batches=loader(size=(48, 80)))
    for item, prediction in predictions(network(), (48, 80)).items():
        stored = read_labels(tmp_path, item)
        assert stored.labels.shape == (64, 96) and (stored.labels.long() == prediction.labels).float().mean() > 0.98


def test_a_threshold_leaves_unsure_pixels_without_a_label(tmp_path: Path) -> None:
    run(WriteLabels(kind="hard"), tmp_path / "all")
    middle = float(torch.stack([read_labels(tmp_path / "all", item).confidence for item in predictions(network())]).median())  # type: ignore[misc]
    run(WriteLabels(kind="hard", threshold=middle), tmp_path / "sure")
    kept = []
    for item, prediction in predictions(network()).items():
        stored, everything = read_labels(tmp_path / "sure", item), read_labels(tmp_path / "all", item)
        assert prediction.scores is not None
        assert ((stored.labels == 255) == (prediction.scores <= middle)).float().mean() > 0.999
        assert torch.equal(stored.confidence, everything.confidence)  # type: ignore[arg-type]
        kept.append(float((stored.labels != 255).float().mean()))
    assert 0.3 < sum(kept) / len(kept) < 0.7


def test_flipping_makes_the_labels_of_a_mirror_image_mirrored(tmp_path: Path) -> None:
    flipped = [Resize(size=[64, 96]), RandomHorizontalFlip(p=1.0)]
    plain, mirrored = loader(), Loader(dataset=town(), transforms=flipped, batch_size=2, training=False)
    run(WriteLabels(kind="soft", flip=True), tmp_path / "plain", batches=plain)
    run(WriteLabels(kind="soft", flip=True), tmp_path / "mirrored", batches=mirrored)
    context = whole(network())
    one, other = (StoredSoftLabels(folder=str(tmp_path / name)).find(context, RAW, (24, 40)).probabilities for name in ("plain", "mirrored"))
    assert one is not None and other is not None
    torch.testing.assert_close(one, other, atol=2e-3, rtol=0)
    run(WriteLabels(kind="soft"), tmp_path / "single", batches=plain)
    assert (StoredSoftLabels(folder=str(tmp_path / "single")).find(context, RAW, (24, 40)).probabilities - one).abs().max() > 0.01  # type: ignore[operator]


def whole(model: DeepLabV2) -> Context:
    """A step on the first two images of the town."""
    return Context(model, model, {RAW: next(iter(loader().batches()))}, 0)


def test_stored_soft_labels_are_what_the_network_says_online(tmp_path: Path) -> None:
    run(WriteLabels(kind="soft"), tmp_path)
    context = whole(network())
    online, stored = OnlineLabels(network="teacher"), StoredSoftLabels(folder=str(tmp_path))
    for size in ((6, 10), (24, 40)):
        first, second = (source.read(context, RAW, size) for source in (online, stored))
        assert first.known.all() and second.known.all()
        torch.testing.assert_close(first.probabilities, second.probabilities, atol=1e-3, rtol=0)


def test_an_interrupted_task_ends_with_the_files_of_one_that_was_not(tmp_path: Path) -> None:
    def interrupt(images: int) -> None:
        if images >= 2:
            raise StoppedError

    tasks = {"hard": WriteLabels(kind="hard", flip=True), "soft": WriteLabels(kind="soft"), "prototypes": ComputePrototypes(passes=2)}
    for name, task in tasks.items():
        run(task, tmp_path / f"{name}_whole")
        with pytest.raises(StoppedError):
            run(task, tmp_path / name, progress=interrupt)
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / name).rglob("*.*")}
        assert before
        run(task, tmp_path / name)
        kept = {path for path, time in before.items() if path.is_file() and path.stat().st_mtime_ns == time}
        assert len(kept) == (0 if name == "prototypes" else len(before)), "what was written is not written again"
        assert contents(tmp_path / name) == contents(tmp_path / f"{name}_whole")


def test_a_finished_task_asks_the_network_nothing(tmp_path: Path) -> None:
    for name, task in (("hard", WriteLabels(kind="hard")), ("soft", WriteLabels(kind="soft")), ("prototypes", ComputePrototypes())):
        run(task, tmp_path / name)
        broken = network()
        broken.forward = None  # type: ignore[method-assign, assignment]
        run(task, tmp_path / name, model=broken)


def test_two_images_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two images have the id val_0000_0000"):
        run(WriteLabels(kind="soft"), tmp_path, batches=loader(Concat(datasets=[town(1), town(1)])))


def test_networks_without_maps_are_refused_by_name(tmp_path: Path) -> None:
    for task in (WriteLabels(kind="hard"), ComputePrototypes()):
        with pytest.raises(InputError, match="ImageClassifier"):
            run(task, tmp_path, model=classifier().eval())
    with pytest.raises(InputError, match="a threshold is for hard labels"):
        WriteLabels(kind="soft", threshold=0.5)
    with pytest.raises(InputError, match=r"one for each class; some are missing or no classes: .*person"):
        run(WriteLabels(kind="hard", threshold={"road": 0.5}), tmp_path)


def test_prototypes_are_the_mean_over_images_of_the_means_over_pixels(tmp_path: Path) -> None:
    run(ComputePrototypes(), tmp_path / "one")
    run(ComputePrototypes(passes=3), tmp_path / "three")
    bank, model = None, network()
    with torch.inference_mode():
        for batch in loader(batch_size=1).batches():
            outputs = model(batch)
            bank = bank or PrototypeBank.empty(len(CLASSES), outputs["embeddings"].shape[1])
            bank = bank.averaged(class_means(outputs["embeddings"], outputs["logits"].argmax(1), len(CLASSES)))
    one, three = (read_prototypes(tmp_path / name, CLASSES) for name in ("one", "three"))
    assert bank is not None and one.known.sum() >= 2
    torch.testing.assert_close(one.vectors, bank.vectors, atol=1e-4, rtol=1e-4)
    assert torch.equal(one.counts, bank.counts) and torch.equal(three.counts, 3 * bank.counts)
    torch.testing.assert_close(three.vectors, one.vectors, atol=1e-4, rtol=1e-4)
    assert not (tmp_path / "one" / "vectors").exists()
    with pytest.raises(InputError, match="lower task"):
        run(ComputePrototypes(least_pixels=10_000), tmp_path / "none")


def test_confidence_keeps_its_step_and_never_grows() -> None:
    steps = torch.arange(256)
    assert torch.equal(confidence_steps(confidence_of(steps)).long(), steps)
    values = torch.rand(10_000).clamp(max=1)
    apart = values - confidence_of(confidence_steps(values))
    assert apart.min() > -2e-4 and apart[(values > 0.95)].max() < 0.002


def test_the_surest_portion_of_each_class_is_known_from_the_counts(tmp_path: Path) -> None:
    labels = torch.zeros(400, 400, dtype=torch.uint8)
    labels[:, 200:] = 1
    labels[:40] = 255
    confidence = torch.rand(400, 400) * 0.5
    confidence[:, 200:] += 0.5
    counts = ConfidenceCounts(("low", "high", "never"))
    counts.add(labels, confidence)
    (tmp_path / "confidence.json").write_text(json.dumps(counts.as_json()))
    limits = ConfidenceCounts.read(tmp_path).limits(0.2)
    assert limits == pytest.approx({"low": 0.4, "high": 0.9, "never": 0.0}, abs=0.02)
    source = StoredLabels(folder=str(tmp_path), portion=0.2, threshold=0.6)
    torch.testing.assert_close(source.limits(("low", "high", "never")), torch.tensor([limits["low"], 0.6, 0.0]))
    with pytest.raises(DataError, match="has labels of low, high, never"):
        StoredLabels(folder=str(tmp_path), portion=0.2).limits(("low", "high"))
    with pytest.raises(DataError, match="no counts of confidence"):
        StoredLabels(folder=str(tmp_path / "nowhere"), portion=0.2).limits(("low",))


def test_stored_labels_reach_a_view_with_their_thresholds(tmp_path: Path) -> None:
    run(WriteLabels(kind="hard"), tmp_path)
    context = whole(network())
    everything = StoredLabels(folder=str(tmp_path)).read(context, RAW, (64, 96))
    online = OnlineLabels(network="teacher").read(context, RAW, (64, 96))
    assert (everything.labels == online.labels).float().mean() > 0.97
    middle = float(everything.confidence.median())
    half = StoredLabels(folder=str(tmp_path), threshold=middle).read(context, RAW, (64, 96))
    assert torch.equal(half.known, everything.confidence > middle)
    single = dict.fromkeys(CLASSES, 1.0) | {CLASSES[int(everything.labels[0, 0, 0])]: 0.0}
    one = StoredLabels(folder=str(tmp_path), threshold=single).read(context, RAW, (64, 96))
    assert torch.equal(one.known, everything.labels == everything.labels[0, 0, 0])


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    context = whole(network())
    for source in (StoredLabels(folder=str(tmp_path)), StoredSoftLabels(folder=str(tmp_path))):
        with pytest.raises(DataError, match=r"of val_0000_0000 in .*WriteLabels"):
            source.read(context, RAW, (6, 10))
    run(WriteLabels(kind="soft"), tmp_path / "soft", model=segmenter(auxiliary=False).eval())
    with pytest.raises(DataError, match=r"about 3 classes \(a, b, c"):
        StoredSoftLabels(folder=str(tmp_path / "soft")).read(context, RAW, (6, 10))
    run(WriteLabels(kind="hard"), tmp_path / "hard")
    other = Context(segmenter().eval(), None, context.views, 0)
    with pytest.raises(DataError, match="the network has 3 classes"):
        StoredLabels(folder=str(tmp_path / "hard")).read(other, RAW, (6, 10))
    for file in (tmp_path / "hard" / "confidence").iterdir():
        file.unlink()
    assert StoredLabels(folder=str(tmp_path / "hard")).read(context, RAW, (6, 10)).confidence.min() == 1
    with pytest.raises(DataError, match="no confidence of the labels"):
        StoredLabels(folder=str(tmp_path / "hard"), threshold=0.5).read(context, RAW, (6, 10))


def test_a_label_map_knows_where_it_is_known() -> None:
    probabilities: Tensor = torch.tensor([[0.2, 0.9], [0.8, 0.1]])[None, :, None]
    maps = LabelMaps.of(probabilities, torch.tensor([[[True, True]]]))
    assert maps.labels.tolist() == [[[1, 0]]]
    assert maps.above(torch.tensor([0.95, 0.5])).labels.tolist() == [[[1, 255]]]
