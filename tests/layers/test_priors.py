"""Priors: the counts and check values of the specification (A4), and the paper's spacing of sizes."""
from __future__ import annotations

import math

import pytest
import torch

from saccade.layers.priors import boxes_per_cell, make_priors, paper_sizes

SSD300 = {
    "image_size": 300, "grids": [(n, n) for n in (38, 19, 10, 5, 3, 1)], "min_sizes": [30, 60, 111, 162, 213, 264],
    "max_sizes": [60, 111, 162, 213, 264, 315], "aspect_ratios": [[2], [2, 3], [2, 3], [2, 3], [2], [2]], "strides": [8, 16, 32, 64, 100, 300],
}


def test_ssd300_has_the_published_priors() -> None:
    priors = make_priors(**SSD300)
    assert priors.shape == (8732, 4) and priors.dtype == torch.float32
    assert torch.allclose(priors[0], torch.tensor([0.013333, 0.013333, 0.1, 0.1]), atol=1e-6)
    side = math.sqrt(30 * 60) / 300
    assert torch.allclose(priors[1], torch.tensor([0.013333, 0.013333, side, side]), atol=1e-6)
    assert torch.allclose(priors[2, 2:], torch.tensor([0.141421, 0.070711]), atol=1e-6)
    assert torch.allclose(priors[3, 2:], torch.tensor([0.070711, 0.141421]), atol=1e-6)
    assert torch.all(priors[-4:, :2] == 0.5)
    assert priors[4, 0] > priors[0, 0] and priors[4, 1] == priors[0, 1], "columns before rows"


def test_clipping_limits_centres_and_sizes() -> None:
    free = make_priors(**SSD300, clip=False)
    assert free.max() > 1
    assert torch.equal(make_priors(**SSD300), free.clamp(0, 1))


def test_derived_strides_spread_cells_over_the_image() -> None:
    priors = make_priors(90, [(3, 2)], [10], [20], [[]])
    assert torch.allclose(priors[::2, 0], torch.tensor([0.25, 0.75] * 3))
    assert torch.allclose(priors[::4, 1], torch.tensor([1 / 6, 0.5, 5 / 6]))


@pytest.mark.parametrize(("ratios", "boxes"), [([], 2), ([2], 4), ([2, 3], 6)])
def test_boxes_per_cell(ratios: list[float], boxes: int) -> None:
    assert boxes_per_cell(ratios) == boxes == len(make_priors(90, [(1, 1)], [10], [20], [ratios]))


def test_sizes_are_evenly_spaced_as_in_the_paper() -> None:
    low, high = paper_sizes(300, 6, 0.2, 0.95)
    assert low == pytest.approx([60, 105, 150, 195, 240, 285]) and high == pytest.approx([105, 150, 195, 240, 285, 330])
    assert paper_sizes(100, 1, 0.2, 0.9) == ([20.0], [pytest.approx(90.0)])
