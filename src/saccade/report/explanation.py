"""The tear-down of a model and its training: one real sample after every transform, the modules with shapes, parameters and FLOPs, the loss terms,
the parameter groups, the order of the loop, each with where it is written.

Everything is found by looking: a real sample goes through the real transforms, a real batch through the real model. What can't be shown is said why.
FLOPs are torch's count of the forward pass (a multiplication and an addition are two), of operators that torch knows the cost of.
"""
from __future__ import annotations

import ast
import inspect
import sysconfig
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from saccade.learning.groups import ParameterGroup
from saccade.models.contract import Model
from saccade.structures import Annotations, Batch, Clip, Panoptic, Sample, first_frame


@dataclass(frozen=True)
class Setting:
    """One value of the recipe: dotted path, value as text, and where it was written."""

    path: str
    value: str
    origin: str


@dataclass(frozen=True)
class SampleStep:
    """The sample after one step: the step's name, where it is written, and (field, type, shape, range) of each field that is known."""

    name: str
    where: str
    fields: tuple[tuple[str, str, str, str], ...]
    objects: int


@dataclass(frozen=True)
class ModuleRow:
    """One module: dotted name, class, where the class is written, shape of what it gave, its parameters (all below it) and the FLOPs spent in it."""

    name: str
    depth: int
    kind: str
    where: str
    output: str
    parameters: int
    trainable: int
    flops: int
    calls: int


@dataclass(frozen=True)
class LossTerm:
    """One loss term of a real batch: its name, value and share of the sum."""

    name: str
    value: float
    share: float


@dataclass(frozen=True)
class LoopLine:
    """One statement of the loop, in the order of running; `depth` is how far it is nested."""

    depth: int
    text: str
    where: str


@dataclass
class Explanation:
    """Everything that `saccade explain` shows; `notes` say what could not be shown, or stands in for what."""

    title: str
    settings: list[Setting] = field(default_factory=list)
    sample: list[SampleStep] = field(default_factory=list)
    modules: list[ModuleRow] = field(default_factory=list)
    total_flops: int = 0
    batch_size: int = 0
    losses: list[LossTerm] = field(default_factory=list)
    groups: list[ParameterGroup] = field(default_factory=list)
    optimizer: str = ""
    loop: list[LoopLine] = field(default_factory=list)
    parts: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def where_written(thing: Any) -> str:
    """`saccade/models/ssd.py:41` for a class, function or object of a class; "" for what has no Python source."""
    target = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    try:
        file = inspect.getsourcefile(target)
        line = inspect.getsourcelines(target)[1]
    except (TypeError, OSError):
        return ""
    return f"{_short(file)}:{line}" if file else ""


def _short(file: str) -> str:
    """The path below the package's root or site-packages, as it is imported."""
    roots = [str(Path(__file__).resolve().parents[2]), *{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}]
    path = str(Path(file).resolve())
    return next((path[len(root) + 1 :] for root in roots if path.startswith(root + "/")), path)


def follow_sample(sample: Any, transforms: Sequence[Callable[[Any], Any]], source: object) -> tuple[list[SampleStep], Any]:
    """The sample (or clip) as its data set `source` gives it and after each of `transforms`, and the last of them."""
    steps = [_describe(type(source).__name__, where_written(source), sample)]
    for transform in transforms:
        sample = transform(sample)
        steps.append(_describe(type(transform).__name__, where_written(transform), sample))
    return steps, sample


def _describe(name: str, where: str, item: Sample | Clip) -> SampleStep:
    sample = first_frame(item)
    rows = [] if isinstance(item, Sample) else [("clip", "list", f"{len(item)} frames", "of which this is the first")]
    rows.append(("image", *_tensor_facts(sample.image)))
    for f in fields(Annotations):
        value = getattr(sample, f.name)
        if isinstance(value, Tensor):
            rows.append((f.name, *_tensor_facts(value)))
        elif isinstance(value, Panoptic):
            rows.append((f.name, "Panoptic", _shape(value.segment_map), f"{len(value.segments)} segments"))
        elif value is not None:
            rows.append((f.name, type(value).__name__, "", str(value)))
    return SampleStep(name, where, tuple(rows), sample.num_objects)


def _tensor_facts(value: Tensor) -> tuple[str, str, str]:
    """(type, shape, range)"""
    plain = value.as_subclass(Tensor)
    kind = type(value).__name__
    label = str(plain.dtype).removeprefix("torch.") + ("" if kind == "Tensor" else f" {kind}")
    if not plain.numel():
        return label, _shape(plain), "empty"
    low, high = (float(v) for v in plain.double().aminmax())
    return label, _shape(plain), f"{low + 0.0:g} .. {high + 0.0:g}"  # + 0.0 makes of -0 a 0


def _shape(value: Tensor) -> str:
    return " x ".join(str(n) for n in value.shape) or "scalar"


def follow_batch(model: Model, batch: Batch) -> tuple[Mapping[str, Any], list[ModuleRow], int]:
    """The outputs of `model` for `batch`, a row for each module in the order of their definition, and the FLOPs of the whole forward pass."""
    seen: dict[str, _Seen] = {name: _Seen() for name, _ in model.named_modules()}
    counter = FlopCounterMode(display=False)
    handles = [handle for name, module in model.named_modules() for handle in _watch(module, seen[name], counter)]
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        model.requires_grad_(False)  # the counter can't follow a parameter that is handed from module to module
        with counter:
            outputs = model(batch)
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for handle in handles:
            handle.remove()
    rows = [
        ModuleRow(
            name=name, depth=name.count(".") + 1 if name else 0, kind=type(module).__name__, where=where_written(module), output=seen[name].output,
            parameters=sum(p.numel() for p in module.parameters()), trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
            flops=_spent(name, module, seen), calls=seen[name].calls,
        )
        for name, module in model.named_modules()
    ]
    return outputs, rows, counter.get_total_flops()


@dataclass
class _Seen:
    """What was seen of a module during one forward pass."""

    output: str = ""
    calls: int = 0
    flops: int = 0


def _watch(module: nn.Module, seen: _Seen, counter: FlopCounterMode) -> Iterator[Any]:
    """Hooks that note the module's output and the FLOPs between its beginning and its end."""
    before: list[int] = []

    def begin(called: nn.Module, inputs: Any) -> None:
        before.append(counter.get_total_flops())

    def end(called: nn.Module, inputs: Any, output: Any) -> None:
        seen.output = describe_output(output)
        seen.calls += 1
        seen.flops += counter.get_total_flops() - before.pop()

    yield module.register_forward_pre_hook(begin)
    yield module.register_forward_hook(end)


def _spent(name: str, module: nn.Module, seen: Mapping[str, _Seen]) -> int:
    """The FLOPs of a module; those of a container that is never called itself are its children's."""
    if seen[name].calls:
        return seen[name].flops
    return sum(_spent(f"{name}.{child}" if name else child, part, seen) for child, part in module.named_children())


def describe_output(output: Any, most: int = 4) -> str:
    """The shapes in what a module gave: `1 x 64 x 75 x 75`, names before those of mappings, further ones counted."""
    parts = list(_shapes(output, ""))
    shown = ", ".join(parts[:most])
    return f"{shown}, {len(parts) - most} more" if len(parts) > most else shown


def _shapes(output: Any, name: str) -> Iterator[str]:
    label = f"{name}: " if name else ""
    if isinstance(output, Tensor):
        yield f"{label}{_shape(output)}"
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _shapes(value, str(key))
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _shapes(value, name)


def loss_terms(losses: Mapping[str, Tensor]) -> list[LossTerm]:
    """The terms (weighted, as the model gives them) with their shares of the sum."""
    values = {name: float(value.detach()) for name, value in losses.items()}
    total = sum(values.values())
    return [LossTerm(name, value, value / total if total else 0.0) for name, value in values.items()]


def loop_lines(function: Callable[..., Any], deepest: int = 3) -> list[LoopLine]:
    """The statements of `function` in order, as they are written, with file and line: the order in which a training step does things."""
    source, first = inspect.getsourcelines(function)
    file = _short(inspect.getsourcefile(function) or "")
    tree = ast.parse(textwrap.dedent("".join(source))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    body = tree.body[1:] if ast.get_docstring(tree) else tree.body
    return [LoopLine(depth, text, f"{file}:{first + line - 1}") for depth, text, line in _statements(body, 0, deepest)]


def _statements(body: Sequence[ast.stmt], depth: int, deepest: int) -> Iterator[tuple[int, str, int]]:
    for statement in body:
        text = ast.unparse(statement).split("\n", 1)[0]
        yield depth, text, statement.lineno
        if depth < deepest:
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, part, []), depth + 1, deepest)
