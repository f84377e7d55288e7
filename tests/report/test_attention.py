"""Looking inside attention: the maps are the model's own, in both directions, and the page holds them, whatever names and sizes come in."""
from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from command_line import run
from saccade.engine.checkpoints import ModelCard, save_checkpoint
from saccade.errors import DataError, InputError, NumericError
from saccade.layers.attention import Attention, record_attention
from saccade.models.contract import Model
from saccade.recipes import build
from saccade.report.attention import AttentionRecord, look_inside, pool_sources
from saccade.report.attention_page import pack_rows, render_attention_page
from saccade.report.prediction import predict_images
from saccade.structures import Batch, Detections, Geometry, Meta, make_sample

TRANSFORMER = {"type": "Transformer", "channels": 32, "heads": 4, "encoder_layers": 2, "decoder_layers": 3, "feedforward": 64}
SPEC = {
    "type": "DETR", "num_queries": 12, "transformer": TRANSFORMER, "positions": {"type": "SinePositions", "channels": 32},
    "backbone": {"type": "TimmBackbone", "name": "resnet10t", "norm": "frozen"},
}
TRANSFORMS = [{"type": "Resize", "size": [160, 224]}]  # 5 x 7 places of 32 pixels


def make_model(classes: Sequence[str] = ("cat", "dog")) -> Model:
    """A small DETR with random weights, its queries and keys enlarged so that heads look at something."""
    torch.manual_seed(0)
    model: Model = build(SPEC, classes=tuple(classes))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Attention):
                module.in_proj_weight[: 2 * module.channels] *= 3
    model.evaluation_transforms = TRANSFORMS  # type: ignore[assignment]
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Model:
    return make_model()


@pytest.fixture(scope="module")
def image() -> Tensor:
    small = torch.randint(0, 255, (1, 3, 6, 8), generator=torch.Generator().manual_seed(1)).float()
    return torch.nn.functional.interpolate(small, size=(80, 112), mode="bilinear")[0].to(torch.uint8)


@pytest.fixture(scope="module")
def record(model: Model, image: Tensor) -> AttentionRecord:
    return look_inside(model, image)


@pytest.fixture
def photo(tmp_path: Path, image: Tensor) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return path


def network_batch(record: AttentionRecord) -> Batch:
    size = (record.picture.shape[0], record.picture.shape[1])
    pixels = torch.from_numpy(record.picture.copy()).permute(2, 0, 1)[None]
    return Batch(pixels, [], [Meta(original_size=size, geometry=Geometry.identity(size))])


def test_maps_are_the_weights_that_the_model_computes(model: Model, record: AttentionRecord) -> None:
    with torch.inference_mode(), record_attention(model) as maps:
        model(network_batch(record))
    point, place = (100, 70), 2 * 7 + 3  # row 2, column 3
    for layer in range(2):
        weights = maps[f"transformer.encoder.layers.{layer}.self_attn"][0]
        torch.testing.assert_close(record.encoder_from(point, layer=layer).flatten(), weights[:, place].mean(0), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(record.encoder_from(point, layer=layer, head=2).flatten(), weights[2, place], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(record.encoder_to(point, layer=layer, head=1).flatten(), weights[1, :, place], atol=1e-3, rtol=1e-3)
    for layer in range(3):
        weights = maps[f"transformer.decoder.layers.{layer}.cross_attn"][0]
        query = int(record.queries[4])
        torch.testing.assert_close(record.decoder_of(4, layer=layer).flatten(), weights[:, query].mean(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(record.decoder_of(4, layer=layer, head=3).flatten(), weights[3, query], atol=1e-5, rtol=1e-4)


def test_where_a_place_looks_sums_to_one(record: AttentionRecord) -> None:
    assert record.encoder_from((0, 0)).sum() == pytest.approx(1, abs=2e-3)
    assert record.decoder_of(0, layer=0, head=0).sum() == pytest.approx(1, abs=1e-5)


def test_the_two_directions_are_one_matrix_read_along_rows_and_columns(record: AttentionRecord) -> None:
    here, there = (223, 10), (40, 159)
    seen, seeing = record.encoder_from(here, head=1), record.encoder_to(there, head=1)
    assert seen[record.cell_at(there)] == seeing[record.cell_at(here)]
    assert not torch.allclose(record.encoder_from(here), record.encoder_to(here))


def test_detections_are_those_of_predict(model: Model, image: Tensor, record: AttentionRecord) -> None:
    (predicted,) = predict_images(model, [image])
    assert isinstance(predicted, Detections)
    kept = predicted[: len(record.detections)]
    torch.testing.assert_close(record.detections.scores, kept.scores)
    torch.testing.assert_close(record.detections.labels, kept.labels)
    torch.testing.assert_close(record.detections.boxes, kept.boxes * 2)  # the network got 160 x 224 for 80 x 112 pixels
    outputs = model(network_batch(record))
    chosen = outputs["boxes"][-1, 0, record.queries, :2] * torch.tensor([224, 160])
    inside = (record.detections.boxes[:, :2] - 1 <= chosen) & (chosen <= record.detections.boxes[:, 2:] + 1)
    assert inside.all()


def test_kept_are_those_above_the_score_and_the_best_few_in_any_case(model: Model, image: Tensor) -> None:
    assert len(look_inside(model, image, min_score=1.0, least=3).queries) == 3
    assert len(look_inside(model, image, min_score=0.0, least=3).queries) == 12
    assert len(look_inside(model, image, min_score=1.0, least=99).queries) == 12
    assert look_inside(model, image, min_score=1.0, least=0).decoder.shape == (3, 4, 0, 5, 7)


def test_files_tensors_and_samples_are_alike(model: Model, image: Tensor, photo: Path, record: AttentionRecord) -> None:
    for given in (photo, str(photo), make_sample(image)):
        torch.testing.assert_close(look_inside(model, given).encoder, record.encoder)
    with pytest.raises(DataError, match="does not exist"):
        look_inside(model, "nowhere.jpg")


def test_looking_leaves_the_model_as_it_was(model: Model, record: AttentionRecord) -> None:
    first = model(network_batch(record))["boxes"]
    with record_attention(model) as maps:
        model(network_batch(record))
    assert len(maps) == 2 + 2 * 3  # no hook is left that takes maps away
    look_inside(model, torch.zeros(3, 30, 40, dtype=torch.uint8))
    assert torch.equal(model(network_batch(record))["boxes"], first)


def test_many_places_are_pooled_to_the_mean_of_what_they_look_at(model: Model, image: Tensor, record: AttentionRecord) -> None:
    pooled = look_inside(model, image, most_values=record.encoder.numel() // 2)
    assert (pooled.pooling, pooled.source_grid, pooled.grid) == (2, (3, 4), (5, 7))
    rows = record.encoder.float().unflatten(2, (5, 7))
    torch.testing.assert_close(pooled.encoder_from((64, 64), layer=0, head=0).flatten(), rows[0, 0, 2:4, 2:4].mean((0, 1)), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(pooled.encoder_from((223, 159), layer=0, head=0).flatten(), rows[0, 0, 4, 6], atol=1e-3, rtol=1e-3)
    assert pooled.encoder_to((64, 64)).shape == (3, 4)
    torch.testing.assert_close(pooled.decoder, record.decoder)


def test_pooling_keeps_rows_that_sum_to_one() -> None:
    maps = torch.rand(2, 3, 35, 35).softmax(-1)
    torch.testing.assert_close(pool_sources(maps, (5, 7), 3).sum(-1), torch.ones(2, 3, 6))


def test_what_does_not_exist_is_refused(record: AttentionRecord) -> None:
    for call, words in (
        (lambda: record.encoder_from((224, 0)), "outside the picture"), (lambda: record.encoder_to((0, -1)), "outside the picture"),
        (lambda: record.encoder_from((0, 0), layer=2), "no layer 2"), (lambda: record.decoder_of(0, layer=-4), "no layer -4"),
        (lambda: record.encoder_to((0, 0), head=4), "no head 4"), (lambda: record.decoder_of(len(record.queries)), "no detection"),
    ):
        with pytest.raises(InputError, match=words):
            call()


@pytest.mark.parametrize(
    "size, grid, cell",
    [((800, 1066), (25, 34), 32), ((800, 1333), (50, 84), 16), ((128, 128), (16, 16), 8), ((33, 64), (2, 2), 32), ((20, 20), (1, 1), 32)],
)
def test_cells_are_the_stride_of_the_backbone(size: tuple[int, int], grid: tuple[int, int], cell: float) -> None:
    from saccade.report.attention import cell_size

    assert cell_size(size, grid) == (cell, cell)


def test_a_model_without_attention_is_refused(image: Tensor) -> None:
    ssd = build({"type": "SSD", "image_size": 128, "backbone": {"type": "TimmSSD", "name": "resnet10t", "extra_channels": [64]}}, classes=("cat",))
    with pytest.raises(InputError, match="SSD has no attention to look at"):
        look_inside(ssd, image)


def test_weights_that_are_not_finite_are_named(image: Tensor) -> None:
    broken = make_model()
    with torch.no_grad():
        broken.get_parameter("transformer.encoder.layers.1.self_attn.in_proj_weight")[0] = float("nan")
    with pytest.raises(NumericError, match="not finite"):
        look_inside(broken, image)


# The page -------------------------------------------------------------------------------------------------------------------------------------------


def data_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="record">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, object] = json.loads(found[1])
    return data


@pytest.mark.parametrize("levels", [255, 31])
def test_stored_weights_are_within_half_a_step_of_the_rows_largest(record: AttentionRecord, levels: int) -> None:
    maps = record.encoder[1].float().numpy()
    content = zlib.decompress(pack_rows(maps, levels))
    count = maps.shape[0] * maps.shape[1]
    largest = np.frombuffer(content, "<f4", count).reshape(maps.shape[0], maps.shape[1], 1)
    steps = np.frombuffer(content, np.uint8, offset=4 * count).reshape(maps.shape)
    assert (np.abs(steps * largest / levels - maps) <= 0.501 * largest / levels).all()


def test_rows_of_zeros_are_stored_as_zeros() -> None:
    assert not any(zlib.decompress(pack_rows(np.zeros((1, 2, 3)), 255)))


def test_the_page_asks_nobody_for_anything_and_runs_no_script_but_its_own(record: AttentionRecord) -> None:
    page = render_attention_page(record, title="photo.jpg")
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "@import" not in page and "url(" not in page
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1 and "eval(" not in scripts[0]
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_names_of_strangers_stay_text(image: Tensor) -> None:
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    page = render_attention_page(look_inside(make_model((hostile, "dog")), image), title=hostile, model=hostile)
    assert "alert(1)</script>" not in page and "<img src=x" not in page
    assert hostile in json.dumps(data_of(page)).replace("\\/", "/")


def test_a_page_with_too_many_weights_takes_coarser_steps_then_fewer_points_and_says_so(record: AttentionRecord) -> None:
    whole, coarse, pooled = (data_of(render_attention_page(record, title="", encoder_bytes=n)) for n in (10**6, 7500, 4500))
    assert whole["sources"] == coarse["sources"] == [5, 7] and pooled["sources"] == [3, 4]
    assert whole["encoder"]["levels"] == 255 > coarse["encoder"]["levels"]  # type: ignore[index]
    assert "2 x 2 places together" in render_attention_page(record, title="", encoder_bytes=4500)
    assert "places together" not in render_attention_page(record, title="")


def test_the_slider_starts_where_something_is_shown(record: AttentionRecord) -> None:
    found = record.detections
    assert data_of(render_attention_page(record, title=""))["threshold"] == pytest.approx(int(float(found.scores[4]) * 100) / 100)
    surer = replace(record, detections=replace(found, scores=found.scores + 0.3))
    assert data_of(render_attention_page(surer, title=""))["threshold"] == 0.5
    assert "No detection scores" in render_attention_page(record, title="") and "No detection scores" not in render_attention_page(surer, title="")
    none = replace(record, detections=Detections.empty(), queries=record.queries[:0], decoder=record.decoder[:, :, :0])
    assert data_of(render_attention_page(none, title=""))["detections"] == []


def test_many_detections_are_cut_to_the_best_and_the_page_says_so(record: AttentionRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.report.attention_page.DECODER_BYTES", 2500)
    page = render_attention_page(record, title="")
    scores = [found["score"] for found in data_of(page)["detections"]]  # type: ignore[attr-defined]
    assert scores == pytest.approx(record.detections.scores[:10].tolist(), abs=1e-4)
    assert "only the best 10 of 12 detections" in page


# The command ----------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Path:
    card = ModelCard(SPEC, model.classes, TRANSFORMS, {})
    return save_checkpoint(tmp_path_factory.mktemp("checkpoints"), 1, model.state_dict(), card, {})


def test_the_command_writes_the_page_and_prints_where(
    checkpoint: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "page.html"
    assert run("explain", checkpoint, "--attention", photo, "--out", out, "--device", "cpu") == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert "Attention in photo.png" in out.read_text()
    monkeypatch.chdir(tmp_path)
    assert run("explain", checkpoint, "--attention", photo) == 0
    assert (tmp_path / "photo_attention.html").is_file()


def test_the_command_names_what_is_wrong(checkpoint: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    for code, words, said in (
        (3, ("explain", checkpoint, "--attention", tmp_path / "none.jpg"), "does not exist"),
        (3, ("explain", checkpoint, "--attention", tmp_path / "text.jpg"), "text.jpg"),
        (2, ("explain", tmp_path / "nowhere", "--attention", photo), "no checkpoint"),
        (2, ("explain", "detr_r50", "--attention", photo), "--weights"),
        (2, ("explain", checkpoint, "--attention", photo, "--out", tmp_path), "is a folder"),
        (5, ("explain", checkpoint, "--attention", photo, "--out", photo / "page.html"), "could not be written"),
        (2, ("explain", checkpoint, "--attention", photo, "--html", tmp_path / "a.html"), "--html"),
        (2, ("explain", checkpoint, "--out", tmp_path / "a.html"), "--out is for --attention"),
    ):
        assert run(*words) == code, words
        assert said in capsys.readouterr().err
