"""The processes of a run: one on the CPU or a GPU, several on this machine, or several machines; and what they do together.

Each process is one *rank*. They come from `saccade train --devices N`, which starts them (see `supervision`), or from torchrun on every machine.
Fabric then knows devices, precision and strategy: DDP copies the model into every process, FSDP spreads it over them.
"""
from __future__ import annotations

import functools
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from saccade.engine.settings import RunSettings
from saccade.errors import InputError, SaccadeError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_TIMEOUT = timedelta(minutes=30)  # of a collective operation; a process that ended is noticed at once
_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_SHARDED_FROM = 1_000_000  # parameters of a repeated block from which FSDP gathers it on its own

Accelerator = Literal["auto", "cpu", "gpu"]


class RankFailedError(SaccadeError):
    """Another process of the run ended; its own message tells why."""

    exit_code = 1


@dataclass(frozen=True)
class Place:
    """Where this process stands: its number on this machine, its machine's number, and how many there are of both."""

    local_rank: int = 0
    node: int = 0
    devices: int = 1
    nodes: int = 1

    @property
    def world_size(self) -> int:
        """How many processes the run has."""
        return self.devices * self.nodes

    @property
    def rank(self) -> int:
        """This process's number among all."""
        return self.node * self.devices + self.local_rank


def started_by_launcher() -> bool:
    """Whether this process is a rank that torchrun or our supervisor started."""
    return "LOCAL_RANK" in os.environ


def find_place() -> Place:
    """This process's place, by the variables that torchrun and our supervisor set. One process where there are none."""
    if not started_by_launcher():
        return Place()
    try:
        world, local_world = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        node = int(os.environ.get("GROUP_RANK", os.environ.get("NODE_RANK", "0")))
        return Place(int(os.environ["LOCAL_RANK"]), node, local_world, world // local_world)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"LOCAL_RANK is set, so this process was started by a launcher, but its other variables are missing or no numbers ({error}). "
            "Start the run with `saccade train --devices N`, or with torchrun."
        ) from None


def start_fabric(settings: RunSettings, accelerator: Accelerator = "auto") -> Fabric:
    """Fabric for this process, launched: the processes of the run have found each other when it returns.

    Raises InputError for what this machine can't do (precision, strategy).
    """
    Fabric = import_fabric()  # noqa: N806
    from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

    place = find_place()
    kind = accelerator if accelerator != "auto" else "gpu" if torch.cuda.is_available() else "cpu"
    _check(settings, kind, place)
    environment = TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(srun|Slurm|SLURM).*")
        fabric = Fabric(
            accelerator="cuda" if kind == "gpu" else "cpu", devices=place.devices, num_nodes=place.nodes,
            precision=_PRECISIONS[settings.precision],  # type: ignore[arg-type]
            strategy=_strategy(settings, kind, place), plugins=[environment],
        )
    fabric.launch()
    torch.use_deterministic_algorithms(settings.deterministic)
    return fabric


def import_fabric() -> type[Fabric]:
    """Fabric's class. Where torchmetrics is installed Fabric would import it, which takes seconds and serves a part of it that is not used here."""
    hidden = "torchmetrics" not in sys.modules
    if hidden:
        sys.modules["torchmetrics"] = None  # type: ignore[assignment]
    try:
        from lightning_fabric import Fabric
    finally:
        if hidden:
            del sys.modules["torchmetrics"]
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return Fabric


def _check(settings: RunSettings, kind: str, place: Place) -> None:
    if kind == "gpu" and not torch.cuda.is_available():
        raise InputError("there is no usable CUDA GPU here; leave the accelerator to `auto`, or choose `cpu`")
    if kind == "gpu" and torch.cuda.device_count() < place.devices:
        raise InputError(f"{place.devices} GPUs are asked for, this machine has {torch.cuda.device_count()}")
    if kind == "cpu" and settings.precision == "fp16":
        raise InputError("run.precision fp16 needs a GPU (its loss scaling is not made for the CPU); choose bf16 or fp32")
    if settings.strategy == "fsdp" and settings.precision == "fp16":
        raise InputError("run.strategy fsdp works with fp32 and bf16; choose bf16, or ddp")
    part = place.world_size * settings.accumulate
    if settings.batch_size % part:
        raise InputError(
            f"run.batch_size {settings.batch_size} is the total of one step; with {place.world_size} processes and accumulate "
            f"{settings.accumulate} it must be a multiple of {part}"
        )


def _strategy(settings: RunSettings, kind: str, place: Place) -> Any:
    if place.world_size == 1:
        return "auto"
    from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy

    backend = "gloo" if kind == "cpu" else "nccl"
    if settings.strategy == "fsdp":
        return ModelParallelStrategy(
            functools.partial(_shard, bf16=settings.precision == "bf16"), data_parallel_size=place.world_size, tensor_parallel_size=1,
            process_group_backend=backend, timeout=_TIMEOUT,
        )
    return DDPStrategy(process_group_backend=backend, timeout=_TIMEOUT, find_unused_parameters=settings.find_unused_parameters)


def _shard(module: nn.Module, mesh: Any, bf16: bool) -> nn.Module:
    """FSDP: large repeated blocks one by one, then what is left, so that only one block is whole at a time."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy()
    if bf16:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32)
    for parameter in module.parameters():  # channels-last weights can't be split
        parameter.data = parameter.data.contiguous()
    for part in list(module.modules()):
        if isinstance(part, nn.ModuleList | nn.Sequential):
            for block in part.children():
                if sum(p.numel() for p in block.parameters()) >= _SHARDED_FROM and not isinstance(block, nn.ModuleList | nn.Sequential):
                    fully_shard(block, mesh=mesh["data_parallel"], mp_policy=policy)
    for network in module.children():  # the network itself, so that it also works without the wrapper that training calls
        fully_shard(network, mesh=mesh["data_parallel"], mp_policy=policy)
    return module


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed torch (all devices), NumPy and `random`; each rank draws its own numbers."""
    own = (seed + 1_000_003 * rank) % 2**32
    torch.manual_seed(own)
    np.random.seed(own)
    random.seed(own)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of the global generators as plain tensors, numbers and lists."""
    numpy_state: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, cached = numpy_state
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


class undisturbed_randomness:  # noqa: N801 - reads as a block: `with undisturbed_randomness(device):`
    """The global generators are afterwards as before: starting data workers and evaluating draw from them, and must not change the training."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> None:
        self.state = random_state(self.device)

    def __exit__(self, *_: object) -> None:
        set_random_state(self.state, self.device)


class Together:
    """What the processes of a run agree on. With one process everything is its own answer, at no cost."""

    def __init__(self, fabric: Fabric) -> None:
        self.rank, self.world_size = fabric.global_rank, fabric.world_size
        # Flags live on the CPU, so that looking at them never waits for a GPU.
        separate = self.world_size > 1 and fabric.device.type != "cpu"
        self._group: Any = torch.distributed.new_group(backend="gloo") if separate else None

    def highest(self, value: int) -> int:
        """The largest `value` of all processes."""
        if self.world_size == 1:
            return value
        shared = torch.tensor(value)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(shared)

    def gathered(self, value: Any) -> list[Any]:
        """Every process's `value`, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value, group=self._group)
        return values

    def from_first(self, value: Any) -> Any:
        """The first process's `value`."""
        if self.world_size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, 0, group=self._group)
        return box[0]

    def same_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers (running statistics), which DDP lets drift between two steps."""
        if self.world_size > 1:
            for buffer in model.buffers():
                if not hasattr(buffer, "full_tensor"):
                    torch.distributed.broadcast(buffer, 0)


def whole_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of `model`; of a model that is spread over processes the whole tensors on the CPU, and every process must call it."""
    from saccade.learning.wrapping import is_sharded

    if not is_sharded(model):
        return model.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    whole: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return dict(whole)


@contextmanager
def failures_of_others(together: Together) -> Iterator[None]:
    """Turns what a collective operation raises because another process ended or hangs into RankFailedError."""
    try:
        yield
    except RuntimeError as error:
        if together.world_size == 1 or not _is_of_another(error):
            raise
        raise RankFailedError(
            f"Process {together.rank} stops because another process of the run ended or no longer answers ({str(error).splitlines()[0][:200]})."
        ) from error


def _is_of_another(error: RuntimeError) -> bool:
    if isinstance(error, torch.distributed.DistError):
        return True
    text = str(error)
    return any(words in text for words in ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Broken pipe", "NCCL"))
