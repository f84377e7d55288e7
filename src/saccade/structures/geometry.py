"""The way back from a transformed picture to the original one.

A `Geometry` is a 3 x 3 homography in pixels that travels through torchvision's v2 transforms as one more tv_tensor: every geometric
functional has a kernel for it here, so any transform, ours or torchvision's, keeps it right without knowing of it.
Elastic deformation is no homography; after it the way back is only approximate, and `exact` turns false.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F


class Geometry(tv_tensors.TVTensor):
    """Homography that maps homogeneous pixel coordinates of the image at hand to those of the original image.

    Data: (3, 3) float64. `canvas_size` is (height, width) of the image at hand, `exact` is false after a deformation that a homography
    can't describe. Coordinates are continuous: the left border of the first pixel is 0, that of the last one's right border the width.
    """

    canvas_size: tuple[int, int]
    exact: bool

    @classmethod
    def from_matrix(cls, matrix: Tensor, canvas_size: tuple[int, int], exact: bool = True) -> Geometry:
        """`matrix` (3, 3) as a `Geometry` for an image of `canvas_size` (height, width)."""
        geometry = torch.as_tensor(matrix, dtype=torch.float64).as_subclass(cls)
        geometry.canvas_size = (int(canvas_size[0]), int(canvas_size[1]))
        geometry.exact = exact
        return geometry

    @classmethod
    def wrap(cls, tensor: Tensor, like: Geometry, **kwargs: Any) -> Geometry:  # type: ignore[override]
        """torchvision's hook behind `tv_tensors.wrap(tensor, like=geometry)`: `tensor` with the canvas size and exactness of `like`."""
        return cls.from_matrix(tensor, kwargs.get("canvas_size", like.canvas_size), kwargs.get("exact", like.exact))

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Tensor], types: tuple[type[Tensor], ...], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Tensor:
        """Copies (`clone`, `to`, `detach`, so `deepcopy`) stay a `Geometry` with its canvas size and exactness; anything else is a tensor."""
        output = super().__torch_function__(func, types, args, kwargs)
        if isinstance(output, Geometry) and isinstance(args[0], Geometry):
            output.canvas_size, output.exact = args[0].canvas_size, args[0].exact
        return output

    @classmethod
    def identity(cls, canvas_size: tuple[int, int]) -> Geometry:
        """The geometry of an untouched image of `canvas_size` (height, width)."""
        return cls.from_matrix(torch.eye(3, dtype=torch.float64), canvas_size)

    def after(self, step: Tensor, canvas_size: tuple[int, int], exact: bool = True) -> Geometry:
        """The geometry once a further transform has been applied whose inverse (new pixels to present pixels) is `step` (3, 3)."""
        return Geometry.from_matrix(self.as_subclass(Tensor) @ step, canvas_size, exact and self.exact)

    def points_to_original(self, points: Tensor) -> Tensor:
        """Points (..., 2) as (x, y) of the image at hand, in pixels of the original image; the dtype and device of `points` are kept."""
        matrix = self.as_subclass(Tensor).to(points.device)
        homogeneous = torch.cat([points.to(torch.float64), points.new_ones((*points.shape[:-1], 1), dtype=torch.float64)], -1)
        moved = homogeneous @ matrix.T
        return (moved[..., :2] / moved[..., 2:]).to(points.dtype)

    def points_from_original(self, points: Tensor) -> Tensor:
        """Inverse of `points_to_original`."""
        inverse = Geometry.from_matrix(torch.linalg.inv(self.as_subclass(Tensor)), self.canvas_size)
        return inverse.points_to_original(points)

    def boxes_to_original(self, boxes: Tensor) -> Tensor:
        """Boxes (N, 4) as (x1, y1, x2, y2) of the image at hand: the boxes around their four moved corners in the original image."""
        if boxes.numel() == 0:
            return boxes.reshape(-1, 4)
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
        moved = self.points_to_original(corners)
        return torch.cat([moved.amin(1), moved.amax(1)], 1)


def _matrix(rows: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _scale_and_shift(scale_x: float, scale_y: float, x: float, y: float) -> Tensor:
    return _matrix([[scale_x, 0, x], [0, scale_y, y], [0, 0, 1]])


@F.register_kernel(F.resize, Geometry)
def _resize(geometry: Geometry, size: list[int] | None, max_size: int | None = None, **_: object) -> Geometry:
    height, width = geometry.canvas_size
    # torchvision's own rule for one-sided sizes; asking it keeps the rounding equal.
    probe = F.resize(tv_tensors.Mask(torch.zeros(1, height, width, dtype=torch.uint8)), size=size, max_size=max_size) if _needs_rule(size) else None
    new_height, new_width = probe.shape[-2:] if probe is not None else (size[0], size[1])  # type: ignore[index]
    return geometry.after(_scale_and_shift(width / new_width, height / new_height, 0, 0), (new_height, new_width))


def _needs_rule(size: list[int] | None) -> bool:
    return size is None or isinstance(size, int) or len(size) != 2


@F.register_kernel(F.horizontal_flip, Geometry)
def _horizontal_flip(geometry: Geometry) -> Geometry:
    return geometry.after(_scale_and_shift(-1, 1, geometry.canvas_size[1], 0), geometry.canvas_size)


@F.register_kernel(F.vertical_flip, Geometry)
def _vertical_flip(geometry: Geometry) -> Geometry:
    return geometry.after(_scale_and_shift(1, -1, 0, geometry.canvas_size[0]), geometry.canvas_size)


@F.register_kernel(F.crop, Geometry)
def _crop(geometry: Geometry, top: int, left: int, height: int, width: int) -> Geometry:
    return geometry.after(_scale_and_shift(1, 1, left, top), (height, width))


@F.register_kernel(F.center_crop, Geometry)
def _center_crop(geometry: Geometry, output_size: list[int]) -> Geometry:
    height, width = (output_size, output_size) if isinstance(output_size, int) else (output_size[0], output_size[-1])
    old_height, old_width = geometry.canvas_size
    top, left = round((old_height - height) / 2.0), round((old_width - width) / 2.0)
    if height > old_height or width > old_width:  # torchvision pads first, the smaller half before
        before_x, before_y = max(0, (width - old_width) // 2), max(0, (height - old_height) // 2)
        padded_height, padded_width = max(height, old_height), max(width, old_width)
        top, left = round((padded_height - height) / 2.0) - before_y, round((padded_width - width) / 2.0) - before_x
    return geometry.after(_scale_and_shift(1, 1, left, top), (height, width))


@F.register_kernel(F.resized_crop, Geometry)
def _resized_crop(geometry: Geometry, top: int, left: int, height: int, width: int, size: list[int], **_: object) -> Geometry:
    return _resize(_crop(geometry, top, left, height, width), size)


@F.register_kernel(F.pad, Geometry)
def _pad(geometry: Geometry, padding: list[int], **_: object) -> Geometry:
    sides = [padding] if isinstance(padding, int) else list(padding)
    left, top, right, bottom = sides * 4 if len(sides) == 1 else sides * 2 if len(sides) == 2 else sides
    height, width = geometry.canvas_size
    return geometry.after(_scale_and_shift(1, 1, -left, -top), (height + top + bottom, width + left + right))


@F.register_kernel(F.affine, Geometry)
def _affine(
    geometry: Geometry, angle: float, translate: list[float], scale: float, shear: list[float], center: list[float] | None = None, **_: object
) -> Geometry:
    height, width = geometry.canvas_size
    cx, cy = (width * 0.5, height * 0.5) if center is None else center
    rotation, sx, sy = math.radians(angle), math.radians(shear[0]), math.radians(shear[1] if len(shear) > 1 else 0.0)
    # Forward map: translate . to-centre . rotate . shear . scale . from-centre, with torchvision's decomposition of rotation and shear.
    a = math.cos(rotation - sy) / math.cos(sy)
    b = -math.cos(rotation - sy) * math.tan(sx) / math.cos(sy) - math.sin(rotation)
    c = math.sin(rotation - sy) / math.cos(sy)
    d = -math.sin(rotation - sy) * math.tan(sx) / math.cos(sy) + math.cos(rotation)
    linear = _matrix([[a * scale, b * scale, 0], [c * scale, d * scale, 0], [0, 0, 1]])
    forward = _scale_and_shift(1, 1, cx + translate[0], cy + translate[1]) @ linear @ _scale_and_shift(1, 1, -cx, -cy)
    return geometry.after(torch.linalg.inv(forward), geometry.canvas_size)


@F.register_kernel(F.rotate, Geometry)
def _rotate(geometry: Geometry, angle: float, expand: bool = False, center: list[float] | None = None, **_: object) -> Geometry:
    turned = _affine(geometry, -angle, [0.0, 0.0], 1.0, [0.0, 0.0], center)
    if not expand:
        return turned
    height, width = geometry.canvas_size
    probe = F.rotate(tv_tensors.Mask(torch.zeros(1, height, width, dtype=torch.uint8)), angle, expand=True)
    new_height, new_width = probe.shape[-2:]
    return turned.after(_scale_and_shift(1, 1, (width - new_width) / 2, (height - new_height) / 2), (new_height, new_width))


@F.register_kernel(F.perspective, Geometry)
def _perspective(
    geometry: Geometry, startpoints: list[list[int]] | None, endpoints: list[list[int]] | None, coefficients: list[float] | None = None, **_: object
) -> Geometry:
    if coefficients is None:
        assert startpoints is not None and endpoints is not None
        rows = []
        for (x, y), (u, v) in zip(endpoints, startpoints, strict=True):
            rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        target = torch.tensor(startpoints, dtype=torch.float64).reshape(8)
        coefficients = torch.linalg.lstsq(_matrix(rows), target).solution.tolist()
    a, b, c, d, e, f, g, h = coefficients
    return geometry.after(_matrix([[a, b, c], [d, e, f], [g, h, 1]]), geometry.canvas_size)


@F.register_kernel(F.elastic, Geometry)
def _elastic(geometry: Geometry, *_: object, **__: object) -> Geometry:
    return geometry.after(torch.eye(3, dtype=torch.float64), geometry.canvas_size, exact=False)
