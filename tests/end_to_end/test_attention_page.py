"""The attention explorer in a real browser: what a click, a key and a finger do, and that the numbers on the page are those of the Python call."""
from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from saccade.layers.attention import Attention
from saccade.models.contract import Model
from saccade.recipes import build
from saccade.report.attention import AttentionRecord, look_inside
from saccade.report.attention_page import render_attention_page, write_attention_page

if TYPE_CHECKING:
    from conftest import Browser

HOSTILE = "<img src=x onerror=hacked=1></script><script>hacked=1</script>"
SPEC = {
    "type": "DETR", "num_queries": 8, "positions": {"type": "SinePositions", "channels": 32},
    "transformer": {"type": "Transformer", "channels": 32, "heads": 4, "encoder_layers": 2, "decoder_layers": 3, "feedforward": 64},
    "backbone": {"type": "TimmBackbone", "name": "resnet10t", "norm": "frozen"},
}
ROWS, COLUMNS = 6, 8  # places of 32 pixels


@pytest.fixture(scope="module")
def exact() -> AttentionRecord:
    """A small DETR with random weights, its queries and keys enlarged so that heads differ, on coloured patches."""
    torch.manual_seed(0)
    model: Model = build(SPEC, classes=(HOSTILE, "dog"))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Attention):
                module.in_proj_weight[: 2 * module.channels] *= 3
        model.get_parameter("bbox_embed.layers.2.weight").mul_(12)  # boxes in different places
    patches = torch.randint(0, 255, (1, 3, 6, 8)).float()
    picture = torch.nn.functional.interpolate(patches, size=(32 * ROWS, 32 * COLUMNS), mode="bilinear")[0].to(torch.uint8)
    return look_inside(model.eval(), picture, least=5)


@pytest.fixture(scope="module")
def page(exact: AttentionRecord, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_attention_page(exact, tmp_path_factory.mktemp("page") / "attention.html", title=f"{HOSTILE}.jpg")


@pytest.fixture(scope="module")
def record(exact: AttentionRecord) -> AttentionRecord:
    """The same, its weights rounded to the steps in which a page stores them (tests/report says that the page does so)."""
    return replace(exact, encoder=_in_steps(exact.encoder), decoder=_in_steps(exact.decoder.flatten(3)).reshape(exact.decoder.shape))


def _in_steps(maps: Tensor) -> Tensor:
    largest = maps.float().amax(-1, keepdim=True)
    return (maps.float() / largest * 255).round() * largest / 255


@pytest.fixture
def browser(chromium: Browser, page: Path) -> Iterator[Browser]:
    """The page, freshly opened; afterwards nothing may have been logged, asked for, or run."""
    chromium.view(1280, 900)
    chromium.logged("browser")
    chromium.requests()
    chromium.open(page)
    yield chromium
    assert [entry["message"] for entry in chromium.logged("browser")] == []
    assert all(address.startswith("file:///") and ".html" in address for address in chromium.requests())
    assert chromium.run("return window.hacked") is None
    assert chromium.run("return document.getElementById('trouble').hidden")


@pytest.fixture
def bare(browser: Browser) -> Browser:
    """The page with the slider at 1, so that no box is under the pointer."""
    hide_below(browser, 1.0)
    return browser


def current(browser: Browser) -> dict[str, Any]:
    shown: dict[str, Any] = browser.run("return window.explorer.current()")
    return shown


def shows(browser: Browser, expected: Tensor) -> bool:
    """Whether the map on the page is `expected`."""
    shown = current(browser)
    weights = torch.tensor(shown["weights"]).reshape(shown["grid"])
    return weights.shape == expected.shape and torch.allclose(weights, expected, atol=1e-6)


def pixels(browser: Browser) -> str:
    """The heat map's canvas."""
    current(browser)
    content: str = browser.run("const c = document.getElementById('heat'); return c.hidden ? '' : c.toDataURL()")
    return content


def wait_until(true: Callable[[], bool]) -> None:
    """What fingers do comes after a moment, in which the browser waits for more of the gesture."""
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def text(browser: Browser, selector: str) -> str:
    current(browser)  # waits until all is drawn
    content: str = browser.run("return document.querySelector(arguments[0]).innerText", selector)
    return content


def hide_below(browser: Browser, score: float) -> None:
    browser.run("threshold.step = 'any'; threshold.value = arguments[0]; threshold.dispatchEvent(new Event('input'))", score)


def test_a_click_shows_where_the_encoder_looks_from_there(bare: Browser, record: AttentionRecord) -> None:
    assert pixels(bare) == ""
    bare.point("#picture", 0.3, 0.7)
    here = current(bare)
    assert here["kind"] == "point" and here["layer"] == 1 and here["head"] == -1
    assert here["point"] == pytest.approx([0.3 * 256, 0.7 * 192], abs=2)
    assert shows(bare, record.encoder_from(tuple(here["point"])))
    first = pixels(bare)
    bare.point("#picture", 0.8, 0.15)
    assert pixels(bare) not in ("", first)
    assert "looks" in text(bare, "#what") and "record.encoder_from(" in text(bare, "#call")
    largest = float(record.encoder_from(tuple(current(bare)["point"])).max())
    assert float(text(bare, "#largest").rstrip(" %")) == pytest.approx(100 * largest, rel=0.06)


def test_the_call_on_the_page_gives_the_map_on_the_page(bare: Browser, record: AttentionRecord) -> None:
    bare.point("#picture", 0.55, 0.4)
    bare.press("2", "[")
    found = re.fullmatch(r"record\.encoder_from\(\((\d+), (\d+)\), layer=(\d+), head=(\d+)\)", text(bare, "#call"))
    assert found is not None, text(bare, "#call")
    x, y, layer, head = map(int, found.groups())
    assert (layer, head) == (0, 2)
    assert shows(bare, record.encoder_from((x, y), layer=layer, head=head))


def test_dragging_the_mouse_moves_the_point(bare: Browser) -> None:
    bare.point("#picture", 0.2, 0.2, to=(0.7, 0.8))
    assert current(bare)["point"] == pytest.approx([0.7 * 256, 0.8 * 192], abs=2)


def test_the_other_direction_shows_who_looks(bare: Browser, record: AttentionRecord) -> None:
    bare.point("#picture", 0.3, 0.7)
    bare.click("input[name=direction][value=to] + span")
    point = tuple(current(bare)["point"])
    assert shows(bare, record.encoder_to(point)) and not shows(bare, record.encoder_from(point))
    bare.press("d")
    assert shows(bare, record.encoder_from(point))


def test_a_detection_shows_where_its_query_looks(browser: Browser, record: AttentionRecord) -> None:
    browser.click("#list li:nth-child(2) button")
    assert current(browser)["kind"] == "detection" and current(browser)["layer"] == 2
    assert shows(browser, record.decoder_of(1))
    hide_below(browser, float(record.detections.scores[:2].mean()))
    browser.click("#boxes .tag")  # the name on the picture; that of the chosen one stays
    assert shows(browser, record.decoder_of(0))
    assert "query" in text(browser, "#what")


def test_a_click_on_the_border_of_a_box_chooses_it(browser: Browser, record: AttentionRecord) -> None:
    left, top, _, bottom = record.detections.boxes[0].tolist()
    beside = [(left + 0.3, top + share * (bottom - top)) for share in (0.2, 0.4, 0.6, 0.8)]
    x, y = next((x, y) for x, y in beside if browser.run(  # not where a name lies
        "const r = picture.getBoundingClientRect(), p = document.elementFromPoint(r.left + arguments[0] * r.width, r.top + arguments[1] * r.height);"
        "return !p.closest('.tag')", x / 256, y / 192))
    browser.point("#picture", x / 256, y / 192)
    assert current(browser)["kind"] == "detection"


def test_layer_and_head_are_chosen_by_mouse(bare: Browser, record: AttentionRecord) -> None:
    bare.point("#picture", 0.5, 0.5)
    point = tuple(current(bare)["point"])
    before = pixels(bare)
    bare.click("input[name=layer][value='0'] + span")
    assert shows(bare, record.encoder_from(point, layer=0)) and pixels(bare) != before
    bare.click(".thumb:nth-child(4)")
    assert shows(bare, record.encoder_from(point, layer=0, head=2))
    bare.press("Right")  # the focus has gone back to the picture
    assert current(bare)["point"][0] == pytest.approx(point[0] + 32, abs=17)
    bare.click("#all summary")
    wait_until(lambda: bool(bare.run("return document.getElementById('map-1-3') !== null")))
    bare.click("#map-1-3")
    assert shows(bare, record.encoder_from(tuple(current(bare)["point"]), layer=1, head=3))


def test_keys_move_the_point_and_change_layer_and_head(browser: Browser, record: AttentionRecord) -> None:
    browser.press("Down")  # the middle, where nothing was chosen
    assert current(browser)["point"] == [144, 112]
    browser.press("Left", "Left", "Up")
    assert current(browser)["point"] == [80, 80]
    browser.press(*["Left"] * 9)
    assert current(browser)["point"] == [16, 80]
    browser.press("[", ".", ".")
    assert shows(browser, record.encoder_from((16, 80), layer=0, head=1))
    browser.press("3", "]", "]")
    assert shows(browser, record.encoder_from((16, 80), layer=1, head=3))
    browser.press("9", ",")  # there is no head 9
    assert shows(browser, record.encoder_from((16, 80), layer=1, head=2))
    browser.press("m", "h")
    assert shows(browser, record.encoder_from((16, 80), layer=1)) and pixels(browser) == ""
    browser.press("h", "Escape")
    assert current(browser)["kind"] is None and pixels(browser) == ""


def test_tab_and_enter_choose_detections(browser: Browser, record: AttentionRecord) -> None:
    browser.run("document.getElementById('threshold').focus()")
    browser.press("Tab", "Tab", "Enter")
    assert shows(browser, record.decoder_of(1))
    assert browser.run("return document.activeElement.matches(':focus-visible')")
    browser.press("Tab", "Enter", "[")
    assert shows(browser, record.decoder_of(2, layer=1))


def test_the_slider_hides_what_scores_less(browser: Browser, record: AttentionRecord) -> None:
    scores = record.detections.scores
    bound = float(scores[1] + scores[2]) / 2
    hide_below(browser, bound)
    assert browser.run("return document.querySelectorAll('#list li:not([hidden])').length") == 2
    assert browser.run("return document.querySelectorAll('.box:not([hidden])').length") == 2
    assert text(browser, "#count") == f"2 of {len(scores)}"


def test_the_address_keeps_what_is_shown(bare: Browser, page: Path, record: AttentionRecord) -> None:
    bare.point("#picture", 0.5, 0.5)
    bare.press("1", "d")
    current(bare)
    kept = bare.run("return new Promise((done) => setTimeout(() => done(location.hash), 300))")
    point = tuple(current(bare)["point"])
    bare.open(page, kept)
    assert shows(bare, record.encoder_to(point, head=1))
    bare.open(page, "#detection=3&layer=0&head=2")
    assert shows(bare, record.decoder_of(3, layer=0, head=2))
    for nonsense in ("#point=9999,9999&layer=77&head=88", "#detection=99", "#point=a,b&layer=-1", "#%%%"):
        bare.open(page, nonsense)
        assert current(bare)["layer"] < 3
    assert bare.run("return location.protocol") == "file:"


def test_fingers_tap_and_drag_on_a_narrow_screen(bare: Browser, record: AttentionRecord) -> None:
    bare.view(360, 740, touch=True)
    assert bare.run("return document.documentElement.scrollWidth") <= 360
    bare.point("#picture", 0.45, 0.35, kind="touch")
    wait_until(lambda: current(bare)["kind"] == "point")
    tapped = tuple(current(bare)["point"])
    assert tapped == pytest.approx((0.45 * 256, 0.35 * 192), abs=3)
    assert shows(bare, record.encoder_from(tapped))
    x, y = (tapped[0] // 32 * 32 + 16) / 256, (tapped[1] // 32 * 32 + 16) / 192
    bare.point("#picture", x, y, kind="touch", to=(0.8, 0.7))  # begins on the marker
    assert current(bare)["point"] == pytest.approx([0.8 * 256, 0.7 * 192], abs=4)
    hide_below(bare, 0.0)
    bare.point("#list button", 0.5, 0.5, kind="touch")
    wait_until(lambda: current(bare)["kind"] == "detection")
    assert shows(bare, record.decoder_of(0))


def test_pooled_points_show_the_mean_of_their_places(browser: Browser, exact: AttentionRecord, tmp_path: Path) -> None:
    path = tmp_path / "pooled.html"
    path.write_text(render_attention_page(exact, title="pooled", encoder_bytes=5000))
    address = "#point=200,100&layer=0&head=1"  # row 3, column 6; with row 2 and column 7 one point
    browser.open(path, address)
    assert current(browser)["grid"] == [ROWS, COLUMNS]
    rows = exact.encoder[0, 1].float().unflatten(0, (ROWS, COLUMNS))[2:4, 6:8].mean((0, 1)).reshape(ROWS, COLUMNS)
    shown = torch.tensor(current(browser)["weights"]).reshape(ROWS, COLUMNS)
    torch.testing.assert_close(shown, rows, atol=float(rows.max()) / 31, rtol=0)
    browser.open(path, address + "&direction=to")
    assert current(browser)["grid"] == [ROWS // 2, COLUMNS // 2]


def test_names_are_shown_as_they_are(browser: Browser) -> None:
    labels = set(browser.run("return [...document.querySelectorAll('#list span')].map((s) => s.textContent)"))
    assert labels <= {HOSTILE, "dog"} and labels
    assert HOSTILE in text(browser, "h1")
    assert browser.run("return document.querySelectorAll('#boxes img, #list img, h1 img').length") == 0


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_any_width_and_follows_the_colour_scheme(browser: Browser, page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    browser.view(width, 800, dark=dark)
    before = browser.screenshot(tmp_path / "before.png").read_bytes()
    browser.press("Down")
    current(browser)
    assert browser.screenshot(tmp_path / "after.png").read_bytes() != before  # the heat map is not only in its canvas but on the screen
    assert browser.run("return document.documentElement.scrollWidth") <= width
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 150) == dark
