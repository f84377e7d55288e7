"""Checkpoints: folders that are complete or not there, and that say how to build their model.

    step_00000100/model.safetensors   the weights, under the model's own key names
                  model.json          how to build the model, its classes, the evaluation transforms, where it comes from
                  training.pt         optimiser, counters, random numbers; read with weights_only=True
                  manifest.json       size and SHA-256 of the others, written last: with it the checkpoint counts

`last` and `best` beside them are small text files with the name of a folder. A damaged newest checkpoint is passed over with a warning.
"""
from __future__ import annotations

import io
import json
import logging
import os
import pickle
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from saccade.engine.files import atomic_write, digest_of, require_space, storage_errors, sync_folder, temporary_folder, write_synced
from saccade.engine.staged_folder import network_folder
from saccade.errors import InputError, StorageError
from saccade.learning.layout import channels_last
from saccade.recipes import build

if TYPE_CHECKING:
    from saccade.models.contract import Model

FORMAT = 1
WEIGHTS, CARD, TRAINING, MANIFEST = "model.safetensors", "model.json", "training.pt", "manifest.json"
_PREFIX = "step_"
_HEADROOM = 1.2  # of the bytes to be written; must be free before writing starts

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelCard:
    """What `model.json` holds: the model's spec as in a recipe, its class names, the transforms before it, and where it comes from (plain data)."""

    model: Mapping[str, Any]
    classes: Sequence[str]
    evaluation_transforms: Sequence[Mapping[str, Any]]
    provenance: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain data for the file."""
        return {
            "format": FORMAT, "model": dict(self.model), "classes": list(self.classes),
            "evaluation_transforms": list(self.evaluation_transforms), "provenance": dict(self.provenance),
        }


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], card: ModelCard, training: Mapping[str, Any]) -> Path:
    """Write the checkpoint of `step` (optimiser updates done) into `folder` and point `last` at it; returns its path.

    `tensors` is the model's state dict, `training` nested dicts and lists of tensors, numbers and text. Raises StorageError when there is no room or
    writing fails; what was there before is then untouched.
    """
    target = folder_of(folder, step)
    partial = temporary_folder(target)
    needed = int(_HEADROOM * (_bytes_of(tensors) + _bytes_of(training))) + 65536
    with storage_errors(target, needed):
        folder.mkdir(parents=True, exist_ok=True)
        require_space(folder, needed)
        try:
            _write(partial, tensors, card, training)
            if target.exists():  # an earlier one of the same step, damaged or of a run that was set back
                shutil.rmtree(target)
            os.rename(partial, target)
        except BaseException:
            with suppress(OSError):
                shutil.rmtree(partial)
            raise
        sync_folder(folder)
    point(folder, "last", target)
    return target


def _write(partial: Path, tensors: Mapping[str, Tensor], card: ModelCard, training: Mapping[str, Any]) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    plain = {name: _alone(value) for name, value in tensors.items()}
    contents: dict[str, bytes] = {
        WEIGHTS: serialise(plain, metadata={"format": "pt"}),
        CARD: json.dumps(card.as_json(), indent=1, ensure_ascii=False).encode(),
        TRAINING: _pickled(training),
    }
    files = {}
    for name, content in contents.items():
        size, digest = write_synced(partial / name, content)
        files[name] = {"size": size, "sha256": digest}
    write_synced(partial / MANIFEST, json.dumps({"format": FORMAT, "files": files}, indent=1).encode())
    sync_folder(partial)


def _pickled(training: Mapping[str, Any]) -> bytes:
    # In memory first: torch.save loses the reason of a failing write.
    buffer = io.BytesIO()
    torch.save(dict(training), buffer)
    return buffer.getvalue()


def _alone(tensor: Tensor) -> Tensor:
    """On the CPU, in memory that no other tensor shares, which is what safetensors takes."""
    value = tensor.detach().cpu().contiguous()
    shares = value.untyped_storage().nbytes() != value.numel() * value.element_size()
    return value.clone() if shares else value


def _bytes_of(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(_bytes_of(v) for v in value.values())
    if isinstance(value, list | tuple):
        return sum(_bytes_of(v) for v in value)
    return 8


def point(folder: Path, name: str, target: Path) -> None:
    """Let the small file `name` ("last" or "best") name the checkpoint `target`."""
    atomic_write(folder / name, f"{target.name}\n".encode())


def pointed(folder: Path, name: str) -> Path | None:
    """The checkpoint that `name` names, or None."""
    try:
        text = (folder / name).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    target = folder / Path(text).name
    return target if text and target.is_dir() else None


def folder_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies, or would."""
    return folder / f"{_PREFIX}{step:08d}"


def step_of(checkpoint: Path) -> int:
    """The step in the folder's name."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def all_checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders, oldest first; complete or not."""
    found = [p for p in folder.glob(f"{_PREFIX}*") if p.is_dir() and p.name.removeprefix(_PREFIX).isdigit()] if folder.is_dir() else []
    return sorted(found, key=step_of)


def find_damage(checkpoint: Path, names: Sequence[str] = (WEIGHTS, CARD, TRAINING)) -> str | None:
    """What is wrong with those files of a checkpoint, by its manifest, or None."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name in names:
            size, expected = (checkpoint / name).stat().st_size, files[name]
            if size != expected["size"]:
                return f"{name} has {size:,} bytes instead of {expected['size']:,}"
            if digest_of(checkpoint / name) != expected["sha256"]:
                return f"the content of {name} has changed (its SHA-256 is not that of {MANIFEST})"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} can't be read ({error})"
    return None


def newest_valid(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; damaged newer ones are named in a warning. None where there is none."""
    for checkpoint in reversed(all_checkpoints(folder)):
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint
        _log.warning("checkpoint %s is damaged and passed over: %s", checkpoint, damage)
    return None


def purge(folder: Path, keep_last: int, keep: Path | None) -> None:
    """Remove all checkpoints but the newest `keep_last` and `keep`; one that can't be removed is left with a warning."""
    for checkpoint in all_checkpoints(folder)[:-keep_last]:
        if keep is not None and checkpoint.name == keep.name:
            continue
        try:
            (checkpoint / MANIFEST).unlink(missing_ok=True)  # first, so that a half-removed folder does not count
            shutil.rmtree(checkpoint)
        except OSError as error:
            _log.warning("the old checkpoint %s can't be removed: %s", checkpoint, error.strerror)


def load_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, on the CPU. Raises InputError for a file that saccade did not write."""
    try:
        return load_file(checkpoint / WEIGHTS)
    except SafetensorError as error:
        raise InputError(f"{checkpoint / WEIGHTS} is no safetensors file ({error}), though {MANIFEST} agrees with it; take another one.") from None


def load_training(checkpoint: Path) -> dict[str, Any]:
    """The training state of a checkpoint, on the CPU; nothing in the file is executed. Raises InputError for a file that saccade did not write."""
    content = (checkpoint / TRAINING).read_bytes()
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError):
        raise InputError(
            f"{checkpoint / TRAINING} is not the state of a training that saccade wrote: it is damaged, or reading it would execute "
            "something, which is refused. Take another checkpoint."
        ) from None
    return state


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder that `path` stands for: itself, or the best, else the last one of a run folder (of a run in stages: of the last that has
    finished a training). Raises InputError where there is none."""
    folder = network_folder(Path(path).expanduser())
    if (folder / WEIGHTS).is_file():
        return folder
    if not folder.exists():
        raise InputError(f"there is no checkpoint or run folder {folder}")
    inside = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    for name in ("best", "last"):
        found = pointed(inside, name)
        if found is not None and find_damage(found, (WEIGHTS, CARD)) is None:
            return found
    newest = newest_valid(inside)
    if newest is None:
        raise InputError(f"{folder} holds no complete checkpoint: neither {WEIGHTS} with {MANIFEST}, nor a folder checkpoints/ that has one")
    return newest


def read_card(checkpoint: Path) -> ModelCard:
    """What `model.json` says. Raises InputError for a file of another format."""
    try:
        content = json.loads((checkpoint / CARD).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise InputError(f"{checkpoint / CARD} has format {content['format']}; this version of saccade reads format {FORMAT}")
        return ModelCard(content["model"], content["classes"], content["evaluation_transforms"], content["provenance"])
    except FileNotFoundError:
        raise InputError(f"{checkpoint} has no {CARD}, so it can't be said how to build its model") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{checkpoint / CARD} is not a model card of saccade: {type(error).__name__} {error}") from None


def load_model(path: str | Path, device: str | torch.device = "cpu") -> Model:
    """The model of a checkpoint folder (or of a run folder: its best, else its last), in evaluation mode on `device`.

    `model.evaluation_transforms` has the specs of the transforms that go before it. Raises InputError for what is no checkpoint, StorageError for a
    damaged one.
    """
    checkpoint = find_checkpoint(path)
    card = read_card(checkpoint)
    damage = find_damage(checkpoint, (WEIGHTS, CARD))
    if damage is not None:
        raise StorageError(f"the checkpoint {checkpoint} is damaged: {damage}. Copy it again, or take another one of the run.")
    model: Model = build(without_downloads(card.model), where=f"{checkpoint / CARD}: model", classes=tuple(card.classes))
    fill(model, load_tensors(checkpoint), str(checkpoint))
    model.evaluation_transforms = list(card.evaluation_transforms)  # type: ignore[assignment]
    return cast("Model", channels_last(model.to(device)).eval())


def fill(model: torch.nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Load `tensors` into `model`, every one of them. Raises InputError that names what does not fit."""
    try:
        model.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise InputError(f"the weights of {origin} do not fit its model: {error}") from None


def without_downloads(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A model spec whose parts do not fetch weights of their own, for those come from the checkpoint."""
    return {k: False if k == "pretrained" else without_downloads(v) if isinstance(v, Mapping) else v for k, v in spec.items()}
