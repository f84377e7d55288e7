"""Maps of class scores against their definitions (spec segmentation_adaptation.md, section 12)."""
from __future__ import annotations

import pytest
import torch

from saccade.ops.class_maps import entropy_map, resize_maps, self_information


def test_uniform_probabilities_have_entropy_one_and_equal_shares() -> None:
    uniform = torch.full((2, 19, 3, 4), 1 / 19)
    assert torch.allclose(entropy_map(uniform), torch.ones(2, 3, 4), atol=1e-6)
    assert torch.allclose(self_information(uniform), torch.full((2, 19, 3, 4), 1 / 19), atol=1e-6)


def test_a_certain_class_has_no_entropy() -> None:
    certain = torch.eye(5).reshape(1, 5, 1, 5)
    assert torch.equal(self_information(certain).abs(), torch.zeros(1, 5, 1, 5))


def test_resized_maps_keep_their_corners() -> None:
    maps = torch.randn(1, 2, 3, 5)
    larger = resize_maps(maps, (9, 17))
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert torch.allclose(larger[..., y, x], maps[..., y, x], atol=1e-6)
    assert resize_maps(maps, (3, 5)) is maps


@pytest.mark.parametrize("classes", [2, 16])
def test_the_entropy_is_that_of_the_definition(classes: int) -> None:
    probabilities = torch.randn(2, classes, 4, 5).softmax(1).double()
    expected = torch.distributions.Categorical(probs=probabilities.movedim(1, -1)).entropy() / torch.log(torch.tensor(float(classes)))
    assert torch.allclose(entropy_map(probabilities), expected, atol=1e-6)
