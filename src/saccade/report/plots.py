"""Charts as inline SVG: curves, bars and matrices, without a plotting library and without scripts.

Colours come from CSS variables of the page (`--series-1` ...), so that a chart follows the reader's light or dark scheme; every chart has a title and
a description for screen readers, and its points carry their values as hover titles. Values that are not finite leave a gap.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

NUM_COLOURS = 8  # the page defines --series-1 .. --series-8
_WIDTH, _HEIGHT = 480, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 14, 40
_MAX_POINTS, _MAX_DOTS = 400, 40


@dataclass(frozen=True)
class Series:
    """One curve: `points` (x, y), a `name` for the legend, the number of its `colour` (0-based). `faint` curves are thin and not in the legend."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    faint: bool = False


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.logarithmic else (self.low, self.high)
        at = math.log10(value) if self.logarithmic else value
        return self.start + (at - low) / (high - low) * (self.stop - self.start)


def line_chart(
    series: Sequence[Series], *, title: str, x_label: str, y_label: str = "", log_y: bool = False,
    x_range: tuple[float, float] | None = None, y_range: tuple[float, float] | None = None,
) -> Markup:
    """Curves over a common axis. One point is drawn as a dot; curves without a finite point are left out, and a chart without any says so.

    `log_y` applies where all values are positive. Ranges default to what the values need.
    """
    kept = [s for s in (_finite_series(s) for s in series) if any(math.isfinite(y) for _, y in s.points)]
    values = [(x, y) for s in kept for x, y in s.points if math.isfinite(y)]
    if not values:
        return _frame(title, "no values", Markup(f'<text x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle">nothing recorded</text>'))
    log_y = log_y and min(y for _, y in values) > 0
    x_scale = _scale(x_range or _range([x for x, _ in values], False), _LEFT, _WIDTH - _RIGHT)
    y_scale = _scale(y_range or _range([y for _, y in values], log_y), _HEIGHT - _BOTTOM, _TOP, log_y)
    body = [_axes(x_scale, y_scale, x_label, y_label)]
    for one in sorted(kept, key=lambda s: not s.faint):
        body += _curve(one, x_scale, y_scale)
    named = [s for s in kept if not s.faint]
    last = {s.name: next(y for _, y in reversed(s.points) if math.isfinite(y)) for s in named}
    description = f"{y_label or title} over {x_label}; last values: " + ", ".join(f"{n} {number(v)}" for n, v in last.items())
    legend = _legend([(s.name, s.colour) for s in named]) if len(named) > 1 else Markup("")
    return _frame(title, description, Markup("").join(body)) + legend


def _finite_series(series: Series) -> Series:
    points = [(float(x), float(y)) for x, y in series.points if math.isfinite(x)]
    return Series(series.name, thin(points), series.colour, series.faint)


def thin(points: Sequence[tuple[float, float]], most: int = _MAX_POINTS) -> list[tuple[float, float]]:
    """At most about `most` points: the means of runs of neighbours (values that are not finite stay gaps only where a whole run is)."""
    if len(points) <= most:
        return list(points)
    step = -(-len(points) // most)
    result = []
    for start in range(0, len(points), step):
        run = points[start : start + step]
        good = [y for _, y in run if math.isfinite(y)]
        result.append((sum(x for x, _ in run) / len(run), sum(good) / len(good) if good else math.nan))
    return result


def smooth(points: Sequence[tuple[float, float]], share: float = 0.04) -> list[tuple[float, float]]:
    """Each value averaged with its neighbours within `share` of the curve's length to both sides; gaps stay gaps."""
    reach = int(len(points) * share)
    if reach < 1:
        return list(points)
    total, count = [0.0], [0]
    for _, y in points:
        finite = math.isfinite(y)
        total.append(total[-1] + (y if finite else 0.0))
        count.append(count[-1] + finite)
    result = []
    for i, (x, y) in enumerate(points):
        first, last = max(0, i - reach), min(len(points), i + reach + 1)
        n = count[last] - count[first]
        result.append((x, (total[last] - total[first]) / n if n and math.isfinite(y) else math.nan))
    return result


def _curve(series: Series, x_scale: _Scale, y_scale: _Scale) -> list[Markup]:
    style = f"stroke:var(--series-{series.colour % NUM_COLOURS + 1})"
    pieces = []
    for piece in _pieces(series.points):
        path = " ".join(f"{x_scale(x):.1f},{_clamped(y_scale, y):.1f}" for x, y in piece)
        if len(piece) > 1:
            pieces.append(Markup('<polyline class="{}" style="{}" points="{}"/>').format("faint" if series.faint else "curve", style, path))
    if series.faint:
        return pieces
    finite = [p for p in series.points if math.isfinite(p[1])]
    step = -(-len(finite) // _MAX_DOTS)
    shown = finite[::step] if finite[-1] in finite[::step] else [*finite[::step], finite[-1]]
    visible = "dot" if len(finite) <= 12 else "ghost"
    fill = style.replace("stroke", "fill")
    for x, y in shown:
        text = f"{series.name}: {number(y)} at {number(x)}"
        pieces.append(
            Markup('<circle class="{}" style="{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
                visible, fill, x_scale(x), _clamped(y_scale, y), 3 if visible == "dot" else 6, text
            )
        )
    return pieces


def _clamped(scale: _Scale, value: float) -> float:
    return scale(min(max(value, scale.low), scale.high))


def _pieces(points: Sequence[tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    piece: list[tuple[float, float]] = []
    for x, y in points:
        if math.isfinite(y):
            piece.append((x, y))
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def bar_chart(groups: Sequence[tuple[str, Sequence[float | None]]], names: Sequence[str], *, title: str, y_label: str = "") -> Markup:
    """Bars in groups: `groups` are (label, one value per name), None or not finite for a missing bar; `names` tell the bars of a group apart."""
    values = [v for _, row in groups for v in row if v is not None and math.isfinite(v)]
    if not values:
        return line_chart([], title=title, x_label="")
    low, high = min(0.0, *values), max(0.0, *values)
    high = 1.0 if low == 0 and 0.55 < high <= 1 else (high * 1.12 or 1.0)
    bottom = _HEIGHT - _BOTTOM / 2 - 6
    y_scale = _Scale(low, high, bottom, _TOP)
    body = [_y_axis(y_scale, y_label)]
    slot = (_WIDTH - _LEFT - _RIGHT) / len(groups)
    width = min(64.0, slot * 0.8 / max(1, len(names)))
    for i, (label, row) in enumerate(groups):
        centre = _LEFT + slot * (i + 0.5)
        body.append(_text(centre, bottom + 18, _cut(label, int(slot / 7) + 1), "middle"))
        for j, value in enumerate(row):
            if value is None or not math.isfinite(value):
                continue
            x = centre + (j - len(row) / 2) * width
            top, foot = sorted((y_scale(value), y_scale(0.0)))
            hover = f"{label}, {names[j]}: {number(value)}" if len(names) > 1 else f"{label}: {number(value)}"
            rect = Markup('<rect style="fill:var(--series-{})" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
            body.append(rect.format(j % NUM_COLOURS + 1, x + 1, top, max(1.0, width - 2), max(0.5, foot - top), hover))
            if width >= 26:
                body.append(_text(x + width / 2, top - 4, f"{value:.3g}", "middle"))
    description = "; ".join(f"{label}: " + ", ".join("none" if v is None else number(v) for v in row) for label, row in groups)
    legend = _legend(list(zip(names, range(len(names)), strict=True))) if len(names) > 1 else Markup("")
    return _frame(title, description, Markup("").join(body)) + legend


def row_chart(groups: Sequence[tuple[str, Sequence[float | None]]], names: Sequence[str], *, title: str) -> Markup:
    """Bars from left to right, one group below the other, for more groups than stand beside each other; arguments as of `bar_chart`."""
    values = [v for _, row in groups for v in row if v is not None and math.isfinite(v)]
    if not values:
        return line_chart([], title=title, x_label="")
    low, high = min(0.0, *values), max(0.0, *values) * 1.02 or 1.0
    bar = 13.0 if len(names) < 3 else 9.0
    group, left = bar * len(names) + 7, 12 + 6.6 * max(len(_cut(label, 18)) for label, _ in groups)
    scale = _Scale(low, max(high, 1.0) if high > 0.3 else high, left, _WIDTH - 44)
    bottom = _TOP + group * len(groups)
    body = []
    for tick in ticks(scale.low, scale.high):
        body.append(Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2:.1f}"/>').format(scale(tick), _TOP, bottom))
        body.append(_text(scale(tick), bottom + 15, _short(tick), "middle"))
    for i, (label, row) in enumerate(groups):
        top = _TOP + group * i
        body.append(_text(left - 6, top + group / 2 + 1, _cut(label, 18), "end"))
        for j, value in enumerate(row):
            if value is not None and math.isfinite(value):
                body += _row(scale, value, top + bar * j, bar, j, f"{label}, {names[j]}: {number(value)}")
    description = "; ".join(f"{label}: " + ", ".join("none" if v is None else number(v) for v in row) for label, row in groups)
    return _frame(title, description, Markup("").join(body), height=bottom + 22) + _legend(list(zip(names, range(len(names)), strict=True)))


def _row(scale: _Scale, value: float, top: float, height: float, colour: int, hover: str) -> list[Markup]:
    start, end = sorted((scale(value), scale(0.0)))
    rect = Markup('<rect style="fill:var(--series-{})" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
    bar = rect.format(colour % NUM_COLOURS + 1, start, top + 1, max(0.5, end - start), height - 2, hover)
    return [bar, _text(end + 4, top + height / 2 + 4, f"{value:.2f}", "start")]


def heat_map(
    matrix: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], *, title: str, row_label: str, column_label: str
) -> Markup:
    """A matrix; a cell's colour is its share of its row. Numbers are written up to 20 columns, beyond they are hover titles only."""
    cell = max(8.0, min(46.0, 560 / max(len(columns), 1)))
    margin = min(150, 14 + 7 * max((len(_cut(name, 18)) for name in rows), default=1))
    over = max((4 + 3.6 * len(_cut(name, 18)) - cell * (len(columns) - j - 0.5) for j, name in enumerate(columns)), default=0.0)  # slanted names
    width, height = margin + 26 + cell * len(columns) + max(0.0, over), margin + 30 + cell * len(rows)
    body = [_text(margin + 26 + cell * len(columns) / 2, 14, column_label, "middle", "axis")]
    middle = margin + 24 + cell * len(rows) / 2
    body.append(Markup('<text class="axis" text-anchor="middle" transform="translate(14 {:.1f}) rotate(-90)">{}</text>').format(middle, row_label))
    for j, name in enumerate(columns):
        if cell >= 11:
            at = f"translate({margin + 26 + cell * (j + 0.5) + 4:.1f} {margin + 16:.1f}) rotate(-60)"
            body.append(Markup('<text transform="{}">{}</text>').format(at, _cut(name, 18)))
    for i, row in enumerate(matrix):
        total = sum(v for v in row if math.isfinite(v))
        y = margin + 24 + cell * i
        if cell >= 11:
            body.append(_text(margin + 20, y + cell / 2 + 4, _cut(rows[i], 18), "end"))
        for j, value in enumerate(row):
            body.append(_cell(margin + 26 + cell * j, y, cell, value, total, f"{rows[i]} as {columns[j]}", len(columns) <= 20))
    description = f"{len(rows)} x {len(columns)} matrix, {row_label} by {column_label}"
    return _frame(title, description, Markup("").join(body), width, height)


def _cell(x: float, y: float, side: float, value: float, total: float, what: str, with_number: bool) -> Markup:
    share = value / total if total and math.isfinite(value) else 0.0
    strength = max(0.0, min(1.0, share))
    hover = f"{what}: {number(value)} ({share:.1%})"
    rect = Markup('<rect class="cell" style="fill-opacity:{:.3f}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
    rect = rect.format(strength, x, y, side - 1, side - 1, hover)
    if not with_number or not value:
        return rect
    text = number(value) if value < 10_000 else f"{value / 1000:.0f}k"
    label = Markup('<text class="{}" text-anchor="middle" x="{:.1f}" y="{:.1f}" style="font-size:{:.0f}px">{}</text>')
    return rect + label.format("on-cell" if strength > 0.5 else "", x + side / 2, y + side / 2 + 4, min(12, side / 3), text)


def number(value: float) -> str:
    """A value for people: four significant digits, whole numbers whole."""
    if not math.isfinite(value):
        return "not finite" if math.isnan(value) else ("infinite" if value > 0 else "-infinite")
    if value == int(value) and abs(value) < 1e7:
        return str(int(value))
    return f"{value:.4g}"


def _range(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if logarithmic:
        return (low / 1.3, high * 1.3) if high / low < 1.7 else (low / 1.05, high * 1.05)
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        return low - pad, high + pad
    if low >= 0 and low < 0.35 * high:
        low = 0.0
    return low, high


def _scale(limits: tuple[float, float], start: float, stop: float, logarithmic: bool = False) -> _Scale:
    return _Scale(limits[0], limits[1], start, stop, logarithmic)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) within [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    fine = (1, 2, 5) if last - first <= 3 else (1,)
    stride = max(1, (last - first) // 6)
    found = [m * 10.0**k for k in range(first, last + 1, stride) for m in fine if low <= m * 10.0**k <= high]
    return found if len(found) >= 2 else ticks(low, high)


def _axes(x_scale: _Scale, y_scale: _Scale, x_label: str, y_label: str) -> Markup:
    parts = [_y_axis(y_scale, y_label)]
    for value in ticks(x_scale.low, x_scale.high):
        parts.append(_text(x_scale(value), _HEIGHT - _BOTTOM + 17, _short(value), "middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x_label, "middle", "axis"))
    return Markup("").join(parts)


def _y_axis(scale: _Scale, label: str) -> Markup:
    parts = []
    for value in _log_ticks(scale.low, scale.high) if scale.logarithmic else ticks(scale.low, scale.high):
        y = scale(value)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, _WIDTH - _RIGHT, y, y))
        parts.append(_text(_LEFT - 6, y + 4, _short(value), "end"))
    if label:
        middle = (_HEIGHT - _BOTTOM + _TOP) / 2
        parts.append(Markup('<text class="axis" text-anchor="middle" transform="translate(12 {:.1f}) rotate(-90)">{}</text>').format(middle, label))
    return Markup("").join(parts)


def _short(value: float) -> str:
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    if size >= 10_000:
        return f"{value / 1e3:g}k"
    return f"{value:.0e}".replace("e-0", "e-") if 0 < size < 1e-3 else f"{value:g}"


def _text(x: float, y: float, text: str, anchor: str, name: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(name, x, y, anchor, text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"


def _legend(entries: Sequence[tuple[str, int]]) -> Markup:
    if not entries:
        return Markup("")
    items = [
        Markup('<span><i style="background:var(--series-{})"></i>{}</span>').format(colour % NUM_COLOURS + 1, name) for name, colour in entries
    ]
    return Markup('<div class="legend">') + Markup("").join(items) + Markup("</div>")


def _frame(title: str, description: str, body: Markup, width: float = _WIDTH, height: float = _HEIGHT) -> Markup:
    # Charts fill their card, but a matrix of three classes must not grow to letters of an inch.
    head = Markup('<svg class="chart" style="max-width:{:.0f}px" viewBox="0 0 {:.0f} {:.0f}" role="img"><title>{}</title><desc>{}</desc>')
    return head.format(max(1.4 * width, 300), width, height, title, description) + body + Markup("</svg>")
