"""The panels of a report in a browser: beside each other where there is room, two in a row on a phone, never wider than the page."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from saccade.report.page import write_page
from segmentation_runs import write_segmentation_run

if TYPE_CHECKING:
    from conftest import Browser

PLACES = """
const card = document.querySelector('.panels.paired');
return [...card.children].map((figure) => { const r = figure.getBoundingClientRect(); return [Math.round(r.left), Math.round(r.top), r.width]; });
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two runs."""
    folder = tmp_path_factory.mktemp("report")
    before, after = (write_segmentation_run(folder / name, lambda i, rows=rows: rows, rows / 10) for name, rows in (("before", 9), ("after", 2)))
    return write_page([before, after], folder / "page.html")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width, columns", [(360, 2), (1280, 3)])
def test_panels_fit_the_page_and_stand_in_the_order_of_reading(chromium: Browser, page: Path, width: int, columns: int, dark: bool) -> None:
    chromium.view(width, 800, dark=dark, touch=width < 500)
    chromium.open(page)
    assert chromium.run("return document.documentElement.scrollWidth") <= width
    places = chromium.run(PLACES)
    assert len(places) == 6 and len({left for left, _, _ in places}) == columns and min(w for _, _, w in places) > 120
    image, truth, before, unsure_before, after, unsure_after = places
    if columns == 2:  # image and truth, prediction and entropy beside each other
        assert all(a[1] == b[1] and a[0] < b[0] for a, b in ((image, truth), (before, unsure_before), (after, unsure_after)))
    else:  # and here above each other, one run a column
        assert all(a[0] == b[0] and a[1] < b[1] for a, b in ((image, truth), (before, unsure_before), (after, unsure_after)))
        assert image[0] < before[0] < after[0]
    assert chromium.requests() == [page.as_uri()]
