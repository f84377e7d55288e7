"""Weights from a file into a module: every tensor is accounted for, and what does not fit is an error that shows all of it.

Sources are safetensors files, torch checkpoints (see `pickles`), saccade's checkpoint and run folders, and names of `saccade weights list`. Foreign
key names are translated by the key maps of `weights/maps`.
"""
from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from saccade.engine.checkpoints import WEIGHTS, find_checkpoint, pointed
from saccade.errors import InputError
from saccade.models.contract import Model

# Where checkpoints keep their tensors, in order of preference; a dot leads into a member of a member.
MEMBERS = ("state_dict", "model", "params", "model_state_dict", "net", "weights", "ResNet101.model_state")
HEADS = "heads"  # in `reinitialise`: the module's own head_keys()
_COUNTER = "num_batches_tracked"
_SHOWN = 25


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor.

    `matched` keys were filled; `missing` are the module's without a tensor, `unexpected` the file's without a place; `mismatched` have (key, shape in
    the file, shape in the module); `reinitialised` keep the module's fresh values because they were named; `cast` were converted from another type.
    """

    origin: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    reinitialised: tuple[str, ...]
    cast: tuple[str, ...]

    def summary(self) -> str:
        """One line: how many were filled, and whatever is out of the ordinary, by name."""
        parts = [f"{len(self.matched)} tensors loaded ({self.origin} names)"]
        groups = {"drawn anew": self.reinitialised, "not in the file": self.missing, "left out": self.unexpected}
        parts += [f"{len(keys)} {what}: {_few(keys)}" for what, keys in groups.items() if keys]
        parts += [f"{len(self.cast)} converted to the model's type"] if self.cast else []
        return "; ".join(parts)

    def table(self, near: LoadReport | None = None) -> str:
        """The keys that do not fit, kind by kind, each with the nearest key of the other side (of `near`, where this report holds only a part)."""
        every = near or self
        lines = []
        for what, mine, theirs in (("missing in the file", self.missing, every.unexpected), ("not in the model", self.unexpected, every.missing)):
            if mine:
                lines += [f"{what} ({len(mine)}):"] + [f"  {key}{_nearest(key, theirs)}" for key in mine[:_SHOWN]]
                lines += [f"  and {len(mine) - _SHOWN} more"] if len(mine) > _SHOWN else []
        if self.mismatched:
            lines += [f"other shape ({len(self.mismatched)}):"]
            lines += [f"  {key}: {_size(file)} in the file, {_size(own)} in the model" for key, file, own in self.mismatched[:_SHOWN]]
            lines += [f"  and {len(self.mismatched) - _SHOWN} more"] if len(self.mismatched) > _SHOWN else []
        return "\n".join(lines)


def read_tensors(source: str | Path) -> dict[str, Tensor]:
    """The state dict in `source`: a file, a checkpoint or run folder, or a published name (downloaded when it is not in the cache yet).

    Of a torch checkpoint with several state dicts, `FILE#MEMBER` names one, as in `warmup.pkl#FCDiscriminator.model_state`. `module.` prefixes of
    data-parallel wrappers are taken off. Raises InputError for what is no checkpoint, names unknown, or would run code.
    """
    return tensors_in(locate(source), _split(source)[1])


def tensors_in(path: Path, member: str = "") -> dict[str, Tensor]:
    """The state dict in the file `path`, or in that member of a torch checkpoint; a single tensor is called by the last name of its member."""
    if _is_safetensors(path):
        if member:
            raise InputError(f"{path} is a safetensors file, which has no members, so no {member!r}; leave out what follows the #")
        return _read_safetensors(path)
    from saccade.weights.pickles import load_pickle

    content = load_pickle(path)
    found = _member(content, member) if member else content
    if isinstance(found, Tensor):
        return {member.rpartition(".")[2] or "tensor": found}
    if found is None:
        raise InputError(f"{path} has no member {member!r}; it has {', '.join(map(str, content)) if isinstance(content, Mapping) else 'none'}")
    return _plain(pick_state_dict(found, path))


def locate(source: str | Path) -> Path:
    """The file that `source` stands for; published names are fetched. Raises InputError with the nearest names where there is none."""
    from saccade.weights.table import fetch_published

    name, _ = _split(source)
    path = Path(name).expanduser()
    if path.is_file() and path.name in ("best", "last"):
        path = pointed(path.parent, path.name) or path
    if path.is_dir():
        return find_checkpoint(path) / WEIGHTS
    if path.is_file():
        return path

    return fetch_published(name)


def load_into(
    module: nn.Module, tensors: Mapping[str, Tensor], *, origin: str = "auto", missing: Sequence[str] = (), reinitialise: Sequence[str] = ()
) -> LoadReport:
    """Fills `module` with `tensors` and says what became of each.

    `origin` names the key map ("auto": recognised, "saccade": none). Keys that start with one of `missing` may be absent from the file, or be left
    over in it. Keys that start with one of `reinitialise` may have another shape and then keep the module's values; "heads" stands for the module's
    own `head_keys()`. Batch-norm counters may always be absent: files of torch before 0.4.1 have none, and nothing here depends on them.

    Raises InputError with the whole table when anything else does not fit; `module` is unchanged then.
    """
    own = module.state_dict()
    chosen, converted = translate(tensors, module, origin)
    converted = {key: _counter_as(value, own.get(key)) if key.endswith(_COUNTER) else value for key, value in converted.items()}
    renewed = _expand(reinitialise, module)
    differing = [key for key in own if key in converted and converted[key].shape != own[key].shape]
    redrawn = tuple(key for key in differing if key.startswith(renewed))
    matched = tuple(key for key in own if key in converted and key not in differing)
    absent = [key for key in own if key not in converted and not key.endswith(_COUNTER)]
    left = [key for key in converted if key not in own]
    report = LoadReport(
        origin=chosen,
        matched=matched,
        missing=tuple(absent),
        unexpected=tuple(left),
        mismatched=tuple((key, tuple(converted[key].shape), tuple(own[key].shape)) for key in differing if key not in redrawn),
        reinitialised=redrawn,
        cast=tuple(key for key in matched if converted[key].dtype != own[key].dtype),
    )
    named = tuple(missing)
    refused_missing = [key for key in absent if not key.startswith(named)] if named else absent
    refused_left = [key for key in left if not key.startswith(named)] if named else left
    if refused_missing or refused_left or report.mismatched:
        refused = replace(report, missing=tuple(refused_missing), unexpected=tuple(refused_left))
        raise InputError(_refusal(module, refused, report, len(own)))
    new = {key: value for key, value in own.items() if key not in matched}
    new |= {key: converted[key].to(own[key].dtype) for key in matched}
    module.load_state_dict(new, strict=True)
    return report


def _counter_as(value: Tensor, own: Tensor | None) -> Tensor:
    """A batch-norm counter in the module's shape: some writers of safetensors store scalars as (1,)."""
    return value.reshape(own.shape) if own is not None and value.numel() == own.numel() else value


def translate(tensors: Mapping[str, Tensor], module: nn.Module, origin: str) -> tuple[str, dict[str, Tensor]]:
    """The origin chosen and the tensors under the module's names."""
    if origin == "auto":
        own = set(module.state_dict())
        origin = "saccade" if own & set(tensors) == own else _recognised(tensors)
    if origin == "saccade":
        return origin, dict(tensors)
    from saccade.weights import maps

    return origin, dict(maps.key_map(origin).to_saccade(tensors, module))


def pick_state_dict(content: Any, path: Path) -> Mapping[str, Any]:
    """The mapping of names to tensors inside a checkpoint: the checkpoint itself or one of its usual members."""
    for candidate in [_member(content, name) for name in MEMBERS] + [content] if isinstance(content, Mapping) else []:
        if isinstance(candidate, Mapping) and candidate and any(isinstance(v, Tensor) for v in candidate.values()):
            return candidate
    members = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    raise InputError(f"{path} holds no weights: expected tensors by name, or one of the members {', '.join(MEMBERS)}; found {members or 'nothing'}.")


def _split(source: str | Path) -> tuple[str, str]:
    """File (or name) and member of `FILE#MEMBER`; a file whose own name has a # is a file."""
    file, _, member = (str(source), "", "") if Path(source).expanduser().exists() else str(source).partition("#")
    return file, member


def _member(content: Any, path: str) -> Any:
    """The member of a member … of `content` that a dotted `path` names; None where there is none."""
    for name in path.split("."):
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def _plain(state: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    wrapped = all(key.startswith("module.") for key in tensors)
    return {key.removeprefix("module.") if wrapped else key: value for key, value in tensors.items()}


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"  # a header length in eight bytes, then JSON


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return _plain(load_file(path))
    except SafetensorError as error:
        raise InputError(f"{path} is a damaged safetensors file ({error}). Copy or download it again.") from None


def _recognised(tensors: Mapping[str, Tensor]) -> str:
    from saccade.weights import maps

    return maps.recognise(list(tensors)) or "saccade"


def _expand(prefixes: Sequence[str], module: nn.Module) -> tuple[str, ...]:
    own = module.state_dict()
    result: list[str] = []
    for prefix in prefixes:
        expanded = list(module.head_keys()) if prefix == HEADS and isinstance(module, Model) else [prefix]
        if not any(key.startswith(tuple(expanded)) for key in own):
            near = difflib.get_close_matches(prefix, {key.rpartition(".")[0] for key in own}, n=3)
            raise InputError(f"reinitialise: no key of {type(module).__name__} starts with {prefix!r}{'; near: ' + ', '.join(near) if near else ''}.")
        result += expanded
    return tuple(result)


def _refusal(module: nn.Module, refused: LoadReport, report: LoadReport, total: int) -> str:
    heads = tuple(module.head_keys()) if isinstance(module, Model) else ()
    only_heads = bool(heads and report.mismatched) and all(key.startswith(heads) for key, _, _ in report.mismatched)
    hint = " The shapes that differ are those of the heads; for other classes name them in `reinitialise` (\"heads\": all)." if only_heads else ""
    return (
        f"The weights do not fit {type(module).__name__}: {len(report.matched)} of its {total} tensors match ({report.origin} names).{hint} "
        f"What may be absent must be named in `missing`.\n{refused.table(near=report)}"
    )


def _nearest(key: str, candidates: Sequence[str]) -> str:
    leaf = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, [c for c in candidates if c.endswith(leaf)][:200], n=1, cutoff=0.7)
    return f"  (near: {near[0]})" if near else ""


def _few(keys: Sequence[str], most: int = 4) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


