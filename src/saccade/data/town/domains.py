"""Day, night, fog, rain, sketch, camera: six ways to see the same scene.

A domain changes colours alone. First it maps the table of material colours (light, haze, saturation), then it works on the finished pixels (light of
lamps, streaks of rain, pencil lines, blur and noise). Formulas and constants are described in `docs/town.md`.
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from saccade.data.town.vocabulary import DomainName

Pixels = NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True)
class Light:
    """A lamp in the picture: centre (x, y) and radius in pixels, and where its pool of light lies on the ground (y in pixels)."""

    x: float
    y: float
    radius: float
    ground: float


@dataclass(frozen=True)
class View:
    """What finishing a picture may look at: the painted picture (supersampled), the final size (height, width), the lamps and a source of chance."""

    painted: Image.Image
    size: tuple[int, int]
    lights: Sequence[Light]
    rng: np.random.Generator


@dataclass(frozen=True)
class Domain:
    """One way to see.

    `ambient` multiplies the colours; `saturation` 0..1 fades them to grey; `haze` is the extinction a unit of distance and `haze_colour` what they
    fade into; `glow` 0..1 how much lit windows and lamps shine by themselves; `shadow` and `reflection` 0..1 the strength of either on the ground.
    """

    ambient: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    haze: float = 0.0
    haze_colour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    glow: float = 0.0
    shadow: float = 0.0
    reflection: float = 0.0
    finish: Callable[[View], Pixels] | None = None

    def table(self, colours: NDArray[np.float64], distances: NDArray[np.float64], glow: NDArray[np.float64]) -> Pixels:
        """The colours (n, 3) of materials at `distances` (n,) (0 near, 1 the houses) as this domain shows them, uint8."""
        grey = colours @ _LUMINANCE
        shown = grey[:, None] + self.saturation * (colours - grey[:, None])
        own = (self.glow * glow)[:, None]
        shown = shown * np.array(self.ambient) * (1 - own) + np.where(colours[:, 2:] > colours[:, :1], _LAMPLIGHT, colours) * own
        if self.haze:
            through = np.exp(-self.haze * (0.3 + distances))[:, None]
            through = through + (1 - through) * 0.6 * own  # lamps pierce the haze
            shown = shown * through + np.array(self.haze_colour) * (1 - through)
        return np.clip(shown + 0.5, 0, 255).astype(np.uint8)

    def picture(self, view: View) -> Pixels:
        """The final pixels (H, W, 3) of a painted view."""
        return shrink(view.painted, view.size) if self.finish is None else self.finish(view)


_LAMPLIGHT = np.array([255.0, 214.0, 130.0])  # behind glass, which is bluish by day
_LUMINANCE = np.array([0.299, 0.587, 0.114])


def shrink(painted: Image.Image, size: tuple[int, int]) -> Pixels:
    """The painted picture averaged to `size` (height, width)."""
    factor = painted.width // size[1]
    return np.asarray(painted.reduce(factor))


def _add_glow(image: NDArray[np.float32], x: float, y: float, radius: tuple[float, float], colour: NDArray[np.float32], pool: bool) -> None:
    """Brighten a window of `image` in place: a pool of light multiplies what is there, a halo adds to it."""
    rx, ry = radius
    left, right = max(0, int(x - 2 * rx)), min(image.shape[1], int(x + 2 * rx) + 1)
    top, bottom = max(0, int(y - 2 * ry)), min(image.shape[0], int(y + 2 * ry) + 1)
    if right <= left or bottom <= top:
        return
    across = np.exp(-(((np.arange(left, right, dtype=np.float32) + 0.5 - x) / rx) ** 2))
    down = np.exp(-(((np.arange(top, bottom, dtype=np.float32) + 0.5 - y) / ry) ** 2))
    light = (down[:, None] * across[None])[..., None] * colour
    window = image[top:bottom, left:right]
    if pool:
        window *= 1 + light
    else:
        window += light * (1 - window / 255)


_POOL, _HALO = np.array([1.7, 1.4, 0.7], dtype=np.float32), np.array([150, 120, 66], dtype=np.float32)


def _night(view: View) -> Pixels:
    image = shrink(view.painted, view.size).astype(np.float32)
    for light in view.lights:
        _add_glow(image, light.x, light.ground, (light.radius, 0.45 * light.radius), _POOL, pool=True)
        _add_glow(image, light.x, 0.5 * (light.y + light.ground), (0.6 * light.radius, 0.6 * (light.ground - light.y) + 1), 0.5 * _POOL, pool=True)
        _add_glow(image, light.x, light.y, (0.2 * light.radius + 0.5, 0.2 * light.radius + 0.5), _HALO, pool=False)
    image += view.rng.standard_normal(image.shape, dtype=np.float32) * 3.0
    return np.clip(image, 0, 255).astype(np.uint8)


def _fog(view: View) -> Pixels:
    soft = view.painted.filter(ImageFilter.BoxBlur(view.size[0] / 300 * (view.painted.width // view.size[1])))
    return shrink(soft, view.size)


def _rain(view: View) -> Pixels:
    height, width = view.painted.height, view.painted.width
    streaks = Image.new("L", view.painted.size)
    draw = ImageDraw.Draw(streaks)
    count = int(150 * width / height)
    x, y = view.rng.uniform(-0.1, width / height, count) * height, view.rng.uniform(-0.1, 1.0, count) * height
    length = view.rng.uniform(0.03, 0.09, count) * height
    bright = view.rng.integers(60, 150, count)
    thick = max(1, round(height / 230))
    for x0, y0, run, value in zip(x.tolist(), y.tolist(), length.tolist(), bright.tolist(), strict=True):
        draw.line((x0, y0, x0 + 0.22 * run, y0 + run), fill=value, width=thick)
    picture = view.painted.copy()
    picture.paste((212, 222, 232), (0, 0), streaks)
    return shrink(picture, view.size)


def _contrast(image: Image.Image, shift: int) -> Image.Image:
    """The largest difference of any channel to the pixel `shift` to the right or below (mode "L")."""
    found: list[Image.Image] = []
    for dx, dy in ((shift, 0), (0, shift)):
        moved = image.copy()
        moved.paste(image.crop((dx, dy, image.width, image.height)), (0, 0))
        found += ImageChops.difference(image, moved).split()
    return functools.reduce(ImageChops.lighter, found)


def _sketch(view: View) -> Pixels:
    factor = view.painted.width // view.size[1]
    tone = np.asarray(view.painted.convert("L")).astype(np.float32)
    pencil = max(1, round(factor * view.size[0] / 300))  # lines look equally wide at any size
    edge = np.asarray(_contrast(view.painted, pencil)).astype(np.float32)
    ink = np.clip((edge - 7) / 30, 0, 1)
    rows, columns = np.ogrid[: tone.shape[0], : tone.shape[1]]
    period = max(4, round(view.size[0] / 26)) * factor // 2
    hatch = ((rows + columns) % period < period / 2.6) * np.clip((112 - tone) / 90, 0, 1) * 0.55
    paper = 246 - 0.16 * (255 - tone)
    drawn = paper * (1 - 0.85 * np.maximum(ink, hatch))
    grain = view.rng.standard_normal(view.size, dtype=np.float32) * 3.5
    small = np.asarray(Image.fromarray(np.clip(drawn, 0, 255).astype(np.uint8)).reduce(factor)).astype(np.float32) + grain
    return np.clip(small[..., None] * np.array([1.0, 0.985, 0.95], dtype=np.float32), 0, 255).astype(np.uint8)


_CAST = np.array([1.10, 0.98, 0.76], dtype=np.float32)


def _camera(view: View) -> Pixels:
    height, width = view.size
    soft = Image.fromarray(shrink(view.painted, view.size)).filter(ImageFilter.GaussianBlur(height / 140))
    image = np.asarray(soft).astype(np.float32) * _CAST
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    image *= (1.04 - 0.30 * (x * x + y * y) / 2).astype(np.float32)[..., None]
    noise = view.rng.standard_normal(image.shape, dtype=np.float32)
    image += noise * np.sqrt(90.0 + 0.9 * image)
    return np.clip(image, 0, 255).astype(np.uint8)


DOMAINS: dict[DomainName, Domain] = {
    "day": Domain(shadow=0.36),
    "night": Domain(ambient=(0.36, 0.40, 0.57), saturation=0.8, glow=0.95, finish=_night),
    "fog": Domain(saturation=0.8, haze=0.6, haze_colour=(206.0, 212.0, 216.0), glow=0.3, shadow=0.08, finish=_fog),
    "rain": Domain(
        ambient=(0.64, 0.69, 0.76), saturation=0.62, haze=0.28, haze_colour=(122.0, 132.0, 144.0), glow=0.5, reflection=0.34, finish=_rain,
    ),
    "sketch": Domain(finish=_sketch),
    "camera": Domain(shadow=0.36, finish=_camera),
}
