"""Recipe text to objects: the only place where that happens. A constructor gets plain typed arguments and never sees a recipe."""
from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from saccade.errors import InputError, SaccadeError
from saccade.recipes.checking import validate
from saccade.recipes.recipe import Recipe
from saccade.recipes.registry import SECTIONS, find_target
from saccade.recipes.signatures import Signature, read_signature


def build(spec: Mapping[str, Any], *, where: str = "", origins: Mapping[str, str] | None = None, **provided: Any) -> Any:
    """The object that `spec` describes: the class named by `type`, called with the other keys, nested specs built first.

    `provided` (classes, model, num_classes, ...) goes to those parameters that the class has and `spec` does not set. `where` is the dotted path
    of `spec` in its recipe and `origins` the recipe's origins; both only make errors precise. Raises InputError for what the class refuses.
    """
    name = spec.get("type")
    target = find_target(name) if isinstance(name, str) else None
    if target is None:
        raise InputError(f"{_origin(where, origins)}there is no class {name!r} to build")
    arguments = {key: value for key, value in spec.items() if key != "type"}
    return _call(target, arguments, where, origins or {}, provided)


def build_section(recipe: Recipe, section: str, **provided: Any) -> Any:
    """The object (or list of objects) that a section of `recipe` describes; for an absent section with a fixed class, the class with its defaults."""
    value, target = recipe.section(section), SECTIONS[section]
    origins = recipe.origins
    if isinstance(value, list):
        return [_build_one(item, target, f"{section}.{i}", origins, provided) for i, item in enumerate(value)]
    if value is None and target is None:
        raise InputError(f"recipe {recipe.name} has no section {section!r}")
    return _build_one(value or {}, target, section, origins, provided)


def _build_one(value: dict[str, Any], target: str | None, where: str, origins: Mapping[str, str], provided: dict[str, Any]) -> Any:
    if target is None:
        return build(value, where=where, origins=origins, **provided)
    return _call(target, value, where, origins, provided)


def resolve(target: str) -> Any:
    """The class or function that "module:attribute" names, imported."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _call(target: str, arguments: dict[str, Any], where: str, origins: Mapping[str, str], provided: dict[str, Any]) -> Any:
    signature = read_signature(target)
    foreign = target.startswith("torchvision.")
    ready: dict[str, Any] = {name: value for name, value in provided.items() if signature.get(name) is not None}
    for key, value in arguments.items():
        place = f"{where}.{key}" if where else key
        parameter = signature.get(key)
        if parameter is None:
            if not signature.open:
                raise InputError(f"{_origin(place, origins)}unknown key {key!r}. Expected {signature}")
            ready[key] = value
        elif _has_spec(value):
            ready[key] = _build_nested(value, place, origins, provided if key in ("backbone", "head", "loss", "members") else {})
        else:
            ready[key] = _checked(parameter.type, value, place, origins, foreign, signature)
    _check_complete(signature, ready, where, origins)
    try:
        return resolve(target)(**ready)
    except SaccadeError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"{_origin(where, origins)}{signature.name} refuses its arguments: {error}. Its signature: {signature}") from error


def _checked(expected: Any, value: Any, place: str, origins: Mapping[str, str], foreign: bool, signature: Signature) -> Any:
    if foreign and isinstance(value, str) and place.endswith("interpolation"):
        from torchvision.transforms.v2 import InterpolationMode

        return InterpolationMode(value)
    try:
        return validate(expected, value, foreign)
    except ValidationError as error:
        raise InputError(f"{_origin(place, origins)}{error.errors()[0]['msg']}; got {value!r}. Expected {signature}") from None


def _check_complete(signature: Signature, ready: dict[str, Any], where: str, origins: Mapping[str, str]) -> None:
    missing = [p.name for p in signature.parameters if p.required and p.name not in ready]
    if missing:
        raise InputError(f"{_origin(where, origins)}{signature.name} needs {', '.join(missing)}. Expected {signature}")


def _has_spec(value: Any) -> bool:
    if isinstance(value, dict):
        return "type" in value or any(_has_spec(v) for v in value.values())
    return isinstance(value, list) and any(_has_spec(v) for v in value)


def _build_nested(value: Any, where: str, origins: Mapping[str, str], provided: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if "type" in value:
            return build(value, where=where, origins=origins, **provided)
        return {k: _build_nested(v, f"{where}.{k}", origins, provided) for k, v in value.items()}
    if isinstance(value, list):
        return [_build_nested(v, f"{where}.{i}", origins, provided) for i, v in enumerate(value)]
    return value


def _origin(where: str, origins: Mapping[str, str] | None) -> str:
    origin = (origins or {}).get(where, "")
    parts = [p for p in (origin, where) if p]
    return ": ".join(parts) + ": " if parts else ""
