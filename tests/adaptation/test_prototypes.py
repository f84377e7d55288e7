"""Class means and prototypes are what slow loops over pixels, classes and images say."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from saccade.adaptation.prototypes import MOST_VECTORS, ClassMeans, PrototypeBank, assignment, class_means, denoised, read_prototypes
from saccade.errors import InputError

CLASSES = 4


def maps(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features (2, 5, 6, 7), classes of the pixels with some that are none, and a second opinion."""
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randint(0, CLASSES, (2, 6, 7), generator=generator)
    predicted[0, 0], predicted[1][predicted[1] == 2] = 255, 3
    return torch.randn(2, 5, 6, 7, generator=generator), predicted, torch.randint(0, CLASSES, (2, 6, 7), generator=generator)


def test_class_means_are_the_means_over_the_pixels_of_each_class() -> None:
    features, predicted, labels = maps()
    sure = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(1)) > 0.3
    for given, of_these in ((None, None), (labels, None), (None, sure), (labels, sure)):
        means = class_means(features, predicted, CLASSES, labels=given, sure=of_these, least_pixels=4)
        for image in range(2):
            for label in range(CLASSES):
                members = predicted[image] == label
                if given is not None:
                    members = members & (given[image] == label)
                enough, counted = int(members.sum()) >= 4, members if of_these is None else members & of_these[image]
                assert bool(means.found[image, label]) == (enough and bool(counted.any()))
                if means.found[image, label]:
                    torch.testing.assert_close(means.vectors[image, label], features[image][:, counted].mean(1))
    assert not class_means(features, predicted, CLASSES).found[1, 2]


def test_gradients_do_not_flow_into_prototypes() -> None:
    features, predicted, _ = maps()
    assert not class_means(features.requires_grad_(), predicted, CLASSES).vectors.requires_grad


def test_means_and_moves_take_one_image_after_the_other() -> None:
    features, predicted, _ = maps()
    means = class_means(features, predicted, CLASSES, least_pixels=1)
    bank = PrototypeBank.empty(CLASSES, 5).averaged(means)
    moved = bank.moved(means, 0.1)
    for label in range(CLASSES):
        vectors = [means.vectors[i, label] for i in range(2) if means.found[i, label]]
        expected = torch.stack(vectors).mean(0)
        torch.testing.assert_close(bank.vectors[label], expected)
        for vector in vectors:
            expected = 0.9 * expected + 0.1 * vector
        torch.testing.assert_close(moved.vectors[label], expected)
        assert bank.counts[label] == len(vectors) and moved.counts[label] == 2 * len(vectors)


def test_a_mean_goes_on_as_a_moving_average_after_the_most_vectors() -> None:
    bank = PrototypeBank(torch.zeros(1, 2), torch.full((1,), float(MOST_VECTORS)))
    after = bank.averaged(ClassMeans(torch.ones(3, 1, 2), torch.ones(3, 1, dtype=torch.bool)))
    torch.testing.assert_close(after.vectors, torch.full((1, 2), 1 - (MOST_VECTORS / (MOST_VECTORS + 1)) ** 3))
    assert after.counts.item() == MOST_VECTORS


def test_a_class_without_a_prototype_is_nobodys_neighbour_and_takes_its_first_vector_as_it_is() -> None:
    bank = PrototypeBank(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([0.0, 1.0]))
    distances = bank.distances(torch.zeros(1, 2, 1, 1))
    assert distances.flatten().tolist() == [float("inf"), 5.0]
    assert assignment(distances).flatten().tolist() == [0.0, 1.0]
    first = bank.moved(ClassMeans(torch.full((1, 2, 2), 7.0), torch.tensor([[True, False]])), 1e-4)
    assert first.vectors.tolist() == [[7.0, 7.0], [3.0, 4.0]] and first.known.tolist() == [True, True]


def test_the_temperature_sharpens_the_assignment() -> None:
    distances = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(assignment(distances, 2.0).flatten(), torch.tensor([-2.0, -4.0, -8.0]).softmax(0))


def test_denoising_can_overrule_the_soft_label() -> None:
    soft, weights = torch.tensor([0.6, 0.4, 0.0]).reshape(1, 3, 1, 1), torch.tensor([0.1, 0.3, 0.6]).reshape(1, 3, 1, 1)
    labels, confidence = denoised(weights, soft)
    assert labels.item() == 1 and confidence.item() == pytest.approx(0.12 / 0.18)
    assert denoised(torch.zeros_like(weights), soft).confidence.item() == 0


def test_prototypes_survive_a_file_and_name_their_classes(tmp_path: Path) -> None:
    bank = PrototypeBank(torch.randn(2, 3), torch.tensor([4.0, 0.0]))
    file = tmp_path / "prototypes.safetensors"
    file.write_bytes(bank.as_bytes(["road", "sky"]))
    for path in (file, tmp_path):
        again = read_prototypes(path, ("road", "sky"))
        assert torch.equal(again.vectors, bank.vectors) and torch.equal(again.counts, bank.counts)
    with pytest.raises(InputError, match="those of road, sky; the network has the classes road, car"):
        read_prototypes(file, ("road", "car"))
    with pytest.raises(InputError, match="the task ComputePrototypes makes them"):
        read_prototypes(tmp_path / "elsewhere", ("road", "sky"))
    file.write_bytes(b"nothing of ours")
    with pytest.raises(InputError, match="compute them again"):
        read_prototypes(file, ("road", "sky"))
