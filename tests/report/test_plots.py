"""Charts are well-formed SVG that says what it was given."""
from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from saccade.report.plots import Series, bar_chart, heat_map, line_chart, number, row_chart, smooth, thin, ticks


def parse(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(f'<div>{markup}</div>')


def chart(*points: tuple[float, float], **more: object) -> ElementTree.Element:
    return parse(line_chart([Series("a", points)], title="t", x_label="step", **more))  # type: ignore[arg-type]


def test_a_curve_rises_on_the_picture_when_its_values_do() -> None:
    corners = [tuple(map(float, p.split(","))) for p in chart((0, 1), (10, 2), (20, 3)).find(".//polyline").get("points").split()]  # type: ignore[union-attr]
    assert [x for x, _ in corners] == sorted(x for x, _ in corners) and [y for _, y in corners] == sorted((y for _, y in corners), reverse=True)


def test_values_that_are_not_finite_leave_a_gap() -> None:
    found = chart((0, 1), (1, 2), (2, math.nan), (3, math.inf), (4, 1), (5, 2))
    assert len(found.findall(".//polyline")) == 2
    assert all("nan" not in line.get("points", "") and "inf" not in line.get("points", "") for line in found.findall(".//polyline"))


def test_one_point_is_a_dot_on_the_picture() -> None:
    dot = chart((5, 0.25)).find(".//circle")
    assert dot is not None and 0 < float(dot.get("cx", "nan")) < 480 and 0 < float(dot.get("cy", "nan")) < 280
    assert dot.find("title").text == "a: 0.25 at 5"  # type: ignore[union-attr]


@pytest.mark.parametrize("points", [[], [(0.0, math.nan)], [(math.nan, 1.0)]])
def test_a_chart_of_nothing_says_so(points: list[tuple[float, float]]) -> None:
    assert "nothing recorded" in line_chart([Series("a", points)], title="t", x_label="step")


@pytest.mark.parametrize("values", [[0.0, 0.0], [-5.0, -5.0], [1e-12, 1e-12], [1e9, 2e9], [-3.0, 4.0]])
def test_any_range_of_values_stays_inside_the_frame(values: list[float]) -> None:
    found = chart(*enumerate(values), log_y=True)
    for x, y in (map(float, p.split(",")) for p in found.find(".//polyline").get("points").split()):  # type: ignore[union-attr]
        assert 0 <= x <= 480 and 0 <= y <= 280


def test_a_logarithmic_axis_gives_decades_equal_steps() -> None:
    points = chart((0, 1), (1, 10), (2, 100), log_y=True).find(".//polyline").get("points").split()  # type: ignore[union-attr]
    heights = [float(p.split(",")[1]) for p in points]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)


def test_hostile_names_are_escaped_everywhere() -> None:
    name = '<script>alert("x")</script>'
    made = [
        line_chart([Series(name, [(0, 1), (1, 2)]), Series("b", [(0, 1)], 1)], title=name, x_label=name, y_label=name),
        bar_chart([(name, [1.0, 2.0])], [name, "b"], title=name, y_label=name),
        row_chart([(name, [1.0, 2.0])], [name, "b"], title=name),
        heat_map([[1.0]], [name], [name], title=name, row_label=name, column_label=name),
    ]
    for markup in made:
        assert "<script" not in markup and parse(markup) is not None and "&lt;script" in markup


def test_charts_have_a_title_and_a_description() -> None:
    found = parse(line_chart([Series("a", [(0, 1), (1, 2)])], title="loss", x_label="step"))
    svg = found[0]
    assert svg.tag == "svg" and svg.get("role") == "img"
    assert svg.find("title").text == "loss" and "a 2" in svg.find("desc").text  # type: ignore[union-attr, operator]


def test_bars_are_as_high_as_their_values() -> None:
    found = parse(bar_chart([("day", [0.8]), ("night", [0.4]), ("fog", [None])], ["run"], title="t"))
    heights = [float(r.get("height", "nan")) for r in found.findall(".//rect")]
    assert len(heights) == 2 and heights[0] == pytest.approx(2 * heights[1], abs=0.2)


def test_rows_are_as_long_as_their_values_and_name_what_they_are() -> None:
    found = parse(row_chart([("road", [0.8, 0.4]), ("sky", [None, 0.2])], ["before", "after"], title="t"))
    lengths = {t.text: float(r.get("width", "nan")) for r in found.findall(".//rect") for t in r}
    assert list(lengths) == ["road, before: 0.8", "road, after: 0.4", "sky, after: 0.2"]
    assert lengths["road, before: 0.8"] == pytest.approx(2 * lengths["road, after: 0.4"], abs=0.2)
    tops = [float(r.get("y", "nan")) for r in found.findall(".//rect")]
    assert tops == sorted(tops) and "nothing recorded" in row_chart([("road", [None])], ["a"], title="t")


def test_bars_may_be_negative() -> None:
    tops = [float(r.get("y", "nan")) for r in parse(bar_chart([("a", [-1.0]), ("b", [1.0])], ["run"], title="t")).findall(".//rect")]
    assert tops[0] > tops[1]


def test_a_matrix_shows_its_numbers_and_the_share_of_the_row() -> None:
    found = parse(heat_map([[3, 1], [0, 0]], ["a", "b"], ["a", "b"], title="t", row_label="truth", column_label="prediction"))
    titles = [t.text for t in found.findall(".//rect/title")]
    assert titles == ["a as a: 3 (75.0%)", "a as b: 1 (25.0%)", "b as a: 0 (0.0%)", "b as b: 0 (0.0%)"]
    opacities = [float(r.get("style", "").removeprefix("fill-opacity:")) for r in found.findall(".//rect")]
    assert opacities == [0.75, 0.25, 0, 0]


def test_long_curves_are_thinned_to_means() -> None:
    points = [(float(i), float(i % 2)) for i in range(10_000)]
    short = thin(points, 100)
    assert len(short) == 100 and all(y == pytest.approx(0.5) for _, y in short)


def test_smoothing_keeps_a_straight_line_straight_inside_and_gaps_gaps() -> None:
    line = [(float(i), 2.0 * i) for i in range(100)]
    assert smooth(line)[50][1] == pytest.approx(100)
    line[30] = (30.0, math.nan)
    assert math.isnan(smooth(line)[30][1]) and math.isfinite(smooth(line)[31][1])


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 600) == [0, 200, 400, 600]
    assert all(3.1 <= t <= 3.9 for t in ticks(3.1, 3.9))


def test_numbers_are_short() -> None:
    assert [number(v) for v in (3.0, 0.123456, 1234567.0, math.nan, math.inf)] == ["3", "0.1235", "1234567", "not finite", "infinite"]
