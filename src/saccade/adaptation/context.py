"""What a term of an adaptation method can read: the networks, the views of this step, and what each network says about each view.

A forward pass happens when the first term asks for it, and once only, however many terms read it.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from saccade.errors import InputError
from saccade.models.contract import Model
from saccade.structures import Batch, Detections, Geometry, Outputs

Network = Literal["student", "teacher", "fixed"]
RAW = "raw"  # the view that is the batch as it was loaded
SOURCE = "source"  # the view that is the labelled batch of the source domain, where the data has one


@dataclass
class Context:
    """One step of an adaptation.

    `views`: name -> the batch as that view shows it, on the device of the networks; "raw" is the batch as it was loaded, "source" the batch of the
    source domain beside it. The `targets` of "source", and of views after it, are the labels of the data; those of all other views are pseudo objects
    where the method makes them (boxes in pixels of the view, labels, track_ids that tell which objects of two views are the same), and empty
    annotations otherwise: no term sees labels of the target domain. `step` counts from 0. `fixed`: a network that never changes. `notes`: what a term
    leaves for those behind it in the list, by name.
    """

    student: Model
    teacher: Model | None
    views: dict[str, Batch]
    step: int
    fixed: Model | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    _outputs: dict[tuple[Network, int], Outputs] = field(default_factory=dict, repr=False)

    def network(self, which: Network) -> Model:
        """The student, the teacher or the fixed network. Raises InputError where the method has none of that kind."""
        if which == "student":
            return self.student
        if which == "fixed":
            if self.fixed is None:
                raise InputError("this adaptation has no fixed network; give the learner one, e.g. `fixed: {type: FixedNetwork}`")
            return self.fixed
        if self.teacher is None:
            raise InputError("this adaptation has no teacher; give the learner one, e.g. `teacher: {type: MovingAverage, momentum: 0.002}`")
        return self.teacher

    def view(self, name: str) -> Batch:
        """The batch of a view. Raises InputError where there is none of that name."""
        try:
            return self.views[name]
        except KeyError:
            remedy = "name labelled images of the source domain in data.source" if name == SOURCE else "learner.views"
            raise InputError(f"there is no view {name!r}; this adaptation has {', '.join(self.views)} ({remedy})") from None

    def part(self, view: str, indices: Sequence[int]) -> str:
        """The name of the view that has only the images `indices` of `view`: the same name where these are all of them."""
        batch = self.view(view)
        if list(indices) == list(range(len(batch))):
            return view
        name = f"{view}[{','.join(map(str, indices))}]"
        if name not in self.views:
            padding = None if batch.padding is None else batch.padding[list(indices)]
            targets, metas = [batch.targets[i] for i in indices], [batch.metas[i] for i in indices]
            self.views[name] = Batch(batch.images[list(indices)], targets, metas, padding)
        return name

    def outputs(self, which: Network, view: str) -> Outputs:
        """What a network gives for a view; with gradients for the student, without for the others. Views with the same pixels share them."""
        model, batch = self.network(which), self.view(view)
        key = (which, id(batch.images))
        if key not in self._outputs:
            with torch.set_grad_enabled(which == "student" and torch.is_grad_enabled()):
                self._outputs[key] = model(batch)
        return self._outputs[key]

    def detections(self, which: Network, view: str) -> list[Detections]:
        """What a network detects in each image of a view, in pixels of the view instead of the original, without gradients.

        Raises InputError for models whose predictions are no detections.
        """
        model, outputs, batch = self.network(which), self.outputs(which, view), self.view(view)
        if "proposals" in outputs:  # two-stage detectors have them at hand; their predictions would also make embeddings
            return [Detections(*found) for found in method_of(self, model, "detect")(outputs)]
        metas = []
        for meta, image in zip(batch.metas, batch.images, strict=True):
            size = meta.geometry.canvas_size if meta.geometry is not None else (int(image.shape[-2]), int(image.shape[-1]))
            metas.append(replace(meta, geometry=Geometry.identity(size), original_size=size))
        with torch.no_grad():
            predictions = model.predictions(outputs, replace(batch, metas=metas))
        detections = [each for each in predictions if isinstance(each, Detections)]
        if len(detections) != len(predictions):
            raise InputError(f"pseudo objects come from detectors; {type(model).__name__} gives {type(predictions[0]).__name__}")
        return detections

    def read(self, term: object, which: Network, view: str, *names: str) -> list[Any]:
        """Those outputs of a network for a view, which `term` needs. Raises InputError where the model has no such outputs."""
        outputs = self.outputs(which, view)
        missing = [name for name in names if name not in outputs]
        if missing:
            raise InputError(
                f"{type(term).__name__} reads {', '.join(missing)}, which {type(self.network(which)).__name__} does not give; "
                f"it gives {', '.join(outputs)}. Use a term that reads these, or another model."
            )
        return [outputs[name] for name in names]


def method_of(term: object, model: Model, name: str) -> Callable[..., Any]:
    """The method `name` of `model`, which `term` calls. Raises InputError where the model has none."""
    method = getattr(model, name, None)
    if not callable(method):
        raise InputError(f"{type(term).__name__} calls {name}() of the model, which {type(model).__name__} does not have; use another term or model")
    found: Callable[..., Any] = method
    return found
