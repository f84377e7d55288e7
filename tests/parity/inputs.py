"""Turns the ``inputs`` entries of a ``case.json`` into NumPy arrays.

An entry is one of

    {"fill": "image", "name": str, "shape": [int], "ops": [...]}
    {"fill": "boxes", "name": str, "count": int, "width": float, "height": float, "ops": [...]}
    {"values": nested list, "dtype": str, "shape": [int]}

``ops`` (optional) is applied in order, each a list whose first item is the operation:

    ["mul", x] ["add", x]   scalar arithmetic, result float32
    ["sigmoid"]             1 / (1 + exp(-x)) computed in float64, result float32
    ["softmax", axis]       computed in float64 after subtracting the maximum, result float32
    ["gt", x]               value > x as bool
    ["clip", low, high]     limits
    ["floor"]               integer part as int64
    ["argmax", axis]        index of the maximum as int64
    ["cxcywh"]              (x1, y1, x2, y2) -> (cx, cy, w, h)
    ["cols", a, b]          value[..., a:b]
    ["reshape", [int]]      new shape
    ["set", mask_spec, x]   elements where the (recursively built) bool array holds become x
    ["bilinear", h, w]      resize the last two axes, half-pixel centres (align_corners=False), edge-clamped, float64 inside
"""
from __future__ import annotations

import fill
import numpy as np


def _bilinear(value: np.ndarray, height: int, width: int) -> np.ndarray:
    def axis(n_in: int, n_out: int):
        pos = np.maximum((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0)
        low = np.minimum(np.floor(pos).astype(int), n_in - 1)
        return low, np.minimum(low + 1, n_in - 1), pos - low

    y0, y1, fy = axis(value.shape[-2], height)
    x0, x1, fx = axis(value.shape[-1], width)
    v = value.astype(np.float64)
    rows = v[..., y0, :] * (1 - fy)[:, None] + v[..., y1, :] * fy[:, None]
    return (rows[..., x0] * (1 - fx) + rows[..., x1] * fx).astype(np.float32)


def make(spec: dict) -> np.ndarray:
    """The array that one entry describes."""
    if "values" in spec:
        value = np.asarray(spec["values"], dtype=spec["dtype"]).reshape(spec["shape"])
    elif spec["fill"] == "image":
        value = fill.image(spec["name"], tuple(spec["shape"]))
    else:
        value = fill.boxes(spec["name"], spec["count"], spec.get("width", 1.0), spec.get("height", 1.0))
    for op, *arg in spec.get("ops", []):
        if op == "mul":
            value = (value * arg[0]).astype(np.float32)
        elif op == "add":
            value = (value + arg[0]).astype(np.float32)
        elif op == "sigmoid":
            value = (1 / (1 + np.exp(-value.astype(np.float64)))).astype(np.float32)
        elif op == "softmax":
            e = value.astype(np.float64)
            e = np.exp(e - e.max(arg[0], keepdims=True))
            value = (e / e.sum(arg[0], keepdims=True)).astype(np.float32)
        elif op == "gt":
            value = value > arg[0]
        elif op == "clip":
            value = np.clip(value, arg[0], arg[1])
        elif op == "floor":
            value = np.floor(value).astype(np.int64)
        elif op == "argmax":
            value = value.argmax(arg[0]).astype(np.int64)
        elif op == "cxcywh":
            value = np.concatenate([(value[..., :2] + value[..., 2:]) / 2, value[..., 2:] - value[..., :2]], -1)
            value = value.astype(np.float32)
        elif op == "cols":
            value = value[..., arg[0]:arg[1]]
        elif op == "reshape":
            value = value.reshape(arg[0])
        elif op == "set":
            value = np.where(make(arg[0]), np.asarray(arg[1], dtype=value.dtype), value)
        elif op == "bilinear":
            value = _bilinear(value, arg[0], arg[1])
        else:
            raise ValueError(op)
    return value
