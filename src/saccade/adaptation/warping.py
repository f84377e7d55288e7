"""Maps of one view seen in another: what a network, or a file, says about a picture, at the places of any transformed view of it.

Each view knows the way back to the original picture (`Geometry`), so the way from one view to another is one homography, whatever transforms made
them, and a map is sampled once. A map covers the pixels of its `Place` with corners aligned, as all maps of the DeepLab family do (`ops.class_maps`):
its first and last cells lie on the centres of the first and last pixels. Left out: elastic deformation, of which a homography knows nothing.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.ops.class_maps import resize_maps
from saccade.structures import IGNORE, Batch, Geometry, Outputs


@dataclass(frozen=True)
class Place:
    """What a map covers: `frame` (height, width) pixels of a picture, padding included, of which `geometry` is the way back to the original."""

    frame: tuple[int, int]
    geometry: Geometry


def places_of(batch: Batch) -> list[Place]:
    """The places of the images of `batch`, and so of the maps that a network gives for it."""
    frame = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
    return [Place(frame, Geometry.identity(frame) if meta.geometry is None else meta.geometry) for meta in batch.metas]


def maps_of(outputs: Outputs, name: str, batch: Batch) -> tuple[Tensor | list[Tensor], list[Place]]:
    """The maps `name` that a network gave for `batch`, and their places; of a padded batch one by one, without what is padding in them.

    Reads `padding` (N, h, w) bool of the outputs, which says where that is.
    """
    maps, places = outputs[name], places_of(batch)
    if batch.padding is None or outputs.get("padding") is None:
        return maps, places
    sizes = [(int((~hidden[:, 0]).sum()), int((~hidden[0]).sum())) for hidden in outputs["padding"]]
    return [own[:, :h, :w] for own, (h, w) in zip(maps, sizes, strict=True)], [Place(p.geometry.canvas_size, p.geometry) for p in places]


def enlarged(outputs: Outputs, name: str, batch: Batch, size: tuple[int, int]) -> Tensor:
    """(N, C, *size) the maps `name` that a network gave for `batch`, at another size of the same frame."""
    maps, places = maps_of(outputs, name, batch)
    return resize_maps(maps, size) if isinstance(maps, Tensor) else bring(maps, places, places_of(batch), size)[0]


def reduced_size(batch: Batch, stride: int) -> tuple[int, int]:
    """(height, width) of a map with a cell for every `stride` pixels of the images of `batch`."""
    height, width = batch.images.shape[-2:]
    return max(1, int(height) // stride), max(1, int(width) // stride)


def bring(
    maps: Tensor | Sequence[Tensor], places: Sequence[Place], views: Sequence[Place], size: tuple[int, int], *, nearest: bool = False
) -> tuple[Tensor, Tensor]:
    """`maps` of `places`, (N, C, h, w) or N maps (C, h_i, w_i), as maps (N, C, *size) of `views`, and (N, *size) bool: where they are known.

    Bilinear, or the `nearest` cell, for hard labels. A cell is known where the place that it stands for lies in the picture that `maps` covers
    (padding is outside); elsewhere values are those of the border.
    """
    grids, inside = _grids(places, views, size, maps[0].device)
    mode = "nearest" if nearest else "bilinear"
    if not isinstance(maps, Tensor) and len({one.shape for one in maps}) == 1:
        maps = torch.stack(list(maps))
    pairs = [(maps, grids)] if isinstance(maps, Tensor) else [(one[None], grid[None]) for one, grid in zip(maps, grids, strict=True)]
    moved = [F.grid_sample(own.float(), grid, mode=mode, padding_mode="border", align_corners=True) for own, grid in pairs]
    return torch.cat(moved).to(maps[0].dtype), inside


def _grids(places: Sequence[Place], views: Sequence[Place], size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """(N, h, w, 2) where each cell of `size` of the views lies in the maps, in -1..1, and (N, h, w) bool: whether that is inside."""
    ways = [torch.linalg.inv(_matrix(place)) @ _matrix(view) for place, view in zip(places, views, strict=True)]
    matrices = torch.stack(ways).to(device, torch.float32)  # view -> place, in pixels
    points = torch.stack([_cells(view.frame, size, device) for view in views])  # (N, h w, 3)
    moved = points @ matrices.transpose(1, 2)
    pixels = moved[..., :2] / moved[..., 2:]
    limits = torch.tensor([place.geometry.canvas_size[::-1] for place in places], dtype=torch.float32, device=device)[:, None]
    inside = ((pixels >= 0) & (pixels <= limits)).all(2)
    frames = torch.tensor([place.frame[::-1] for place in places], dtype=torch.float32, device=device)[:, None]
    grids = (pixels - 0.5) / (frames - 1).clamp(min=1) * 2 - 1
    return grids.unflatten(1, size), inside.unflatten(1, size)


def _matrix(place: Place) -> Tensor:
    return place.geometry.as_subclass(Tensor).cpu()


def _cells(frame: tuple[int, int], size: tuple[int, int], device: torch.device) -> Tensor:
    """(h w, 3) homogeneous pixel coordinates of the cells of a map of `size` that covers `frame` pixels."""
    rows, columns = (_centres(pixels, cells, device) for pixels, cells in zip(frame, size, strict=True))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], 2).flatten(0, 1)


def _centres(pixels: int, cells: int, device: torch.device) -> Tensor:
    """Where `cells` in a row lie on as many `pixels`, from the centre of the first to that of the last; a single cell in the middle."""
    if cells == 1:
        return torch.tensor([pixels / 2], device=device)
    return torch.arange(cells, dtype=torch.float32, device=device) * ((pixels - 1) / (cells - 1)) + 0.5


def shown(batch: Batch, size: tuple[int, int]) -> Tensor:
    """(N, *size) bool: which cells of a map of `size` of the images of `batch` show something of the picture.

    Not so the padding, nor what the segmentation of the targets marks as a hole (255): see `View.holes`.
    """
    frame = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
    device = batch.images.device
    rows, columns = (_centres(pixels, cells, device).long() for pixels, cells in zip(frame, size, strict=True))
    whole = torch.ones(len(batch), *frame, dtype=torch.bool, device=device) if batch.padding is None else ~batch.padding
    for own, target in zip(whole, batch.targets, strict=True):
        if target.segmentation is not None:
            height, width = target.segmentation.shape[-2:]
            own[:height, :width] &= target.segmentation.to(device) != IGNORE
    return whole[:, rows][:, :, columns]
