"""Reading torch's pickled checkpoints without running anything in them.

Only `torch.load(weights_only=True)` is used, whose unpickler builds tensors and plain containers and refuses every other name. The published files
of the systems at hand also hold a few harmless names; those are allowed here, the foreign classes among them as inert stand-ins. Tar files of torch
before 0.4 cannot be read this way and are refused.
"""
from __future__ import annotations

import pickle
import pickletools
import re
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.errors import InputError


class Inert:
    """Stands for a foreign class in a checkpoint: holds what was stored, does nothing."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _allowed() -> list[Any]:
    """What a checkpoint may name beyond tensors and containers: numbers of NumPy, and stand-ins for settings and log histories."""
    stand_ins = [
        "argparse.Namespace",  # DETR and its kin store their arguments
        "mmcv.runner.log_buffer.LogBuffer",
        "mmengine.logging.history_buffer.HistoryBuffer",
        "mmengine.config.config.ConfigDict",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
    ]
    from numpy._core.multiarray import _reconstruct, scalar  # type: ignore[attr-defined]

    numbers = [np.ndarray, np.dtype, *(getattr(np.dtypes, n) for n in np.dtypes.__all__ if n != "StringDType" and n != "ObjectDType")]
    rebuilders = [(f, f"{module}.multiarray.{f.__name__}") for f in (_reconstruct, scalar) for module in ("numpy.core", "numpy._core")]
    return [*numbers, *rebuilders, *((type(name.rpartition(".")[2], (Inert,), {}), name) for name in stand_ins)]


def load_pickle(path: Path) -> Any:
    """The object in a torch checkpoint, tensors on the CPU. Raises InputError for a name that is not allowed and for files that are no checkpoint."""
    if tarfile.is_tarfile(path):
        raise InputError(f"{path} is a tar checkpoint of torch before 0.4, unreadable without running code. Get the weights as safetensors.")
    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's notes on old storage types
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        forbidden = named[1] if named else _first_global(path)
        if forbidden:
            raise InputError(
                f"{path} was refused: it asks for {forbidden}, which could run code. Nothing in it was executed. Get the weights from a source that "
                "you trust as safetensors, or, where you trust this file, convert it with the software that wrote it."
            ) from None
        raise InputError(f"{path} is neither safetensors nor a torch checkpoint. Copy or download it again, or name the right file.") from None
    except (RuntimeError, EOFError, KeyError, ValueError, IndexError, TypeError, AttributeError, UnicodeDecodeError, OverflowError, OSError) as error:
        # torch's reader raises these on cut or foreign files, depending on where it stumbles
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise InputError(f"{path} is damaged or no checkpoint ({reason}). Copy or download it again.") from None


def _first_global(path: Path) -> str | None:
    """The first class or function that a bare pickle asks for, read from its opcodes alone; None where the file is no pickle."""
    strings: list[str] = []
    try:
        for operation, argument, _ in pickletools.genops(path.read_bytes()):
            if operation.name == "GLOBAL":
                return str(argument).replace(" ", ".")
            if operation.name == "STACK_GLOBAL" and len(strings) >= 2:
                return ".".join(strings[-2:])
            if isinstance(argument, str):
                strings.append(argument)
    except (ValueError, IndexError, UnicodeDecodeError):  # pickletools on bytes that are no pickle
        return None
    return None
