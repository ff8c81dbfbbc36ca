"""Trainer 1: the weights of a decided network."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from torch import Tensor, nn

from search_spaces.errors import InputError
from trainers.average import weight_average
from trainers.checkpoint import (
    load_checkpoint,
    load_weights,
    optimiser_tensors,
    restore_optimiser,
    restore_surroundings,
    save_checkpoint,
    surroundings,
)
from trainers.data.augment import Augmentation, check_augmentation
from trainers.data.batches import Batches
from trainers.data.geometry import Micrometres
from trainers.data.patches import PatchSampler
from trainers.losses.losses import build_loss, check_loss
from trainers.losses.sparse import SparseWeights
from trainers.machine import available_cores
from trainers.schedule import SCHEDULES, ScheduleConfig
from trainers.step import optimiser_step, weight_groups

Precision = Literal["auto", "float32", "bfloat16", "float16"]
_ACCELERATE_NAMES = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


class FitConfig(SparseWeights, ScheduleConfig, frozen=True, extra="forbid", allow_inf_nan=False):
    """How the weights of one network are trained."""

    steps: PositiveInt = 2_000  # optimiser steps, not epochs
    crop: PositiveInt = 256  # voxels along both edges of the square that is cut from a plane
    batch_size: PositiveInt = 16  # samples per step
    loss: Annotated[str, AfterValidator(check_loss)] = "dice"  # a sum of names in LOSSES, as in "dice + 0.5*focal"
    learning_rate: PositiveFloat = 6e-5  # peak learning rate of the schedule
    weight_decay: NonNegativeFloat = 0.01  # weight decay of AdamW; not applied to biases and normalisation scales
    gradient_clip: PositiveFloat | None = None  # largest norm of the whole gradient; None: no clipping
    average_decay: float = Field(default=0.99, ge=0, lt=1)  # decay of the weight average that is scored
    vessel_share: float = Field(default=0.5, ge=0, le=1)  # share of samples placed around a vessel
    # A name in AUGMENTATIONS, optionally with parts removed: "strong - tilt".
    augmentation: Annotated[str, AfterValidator(check_augmentation)] = "strong"
    # Voxel edge in micrometres at which the network is trained and predicts; None: as scanned.
    voxel_size_um: Micrometres | None = None
    # Voxel edge in micrometres of future scans, which training samples imitate; prediction reads scans as they are.
    target_um: Micrometres | None = None
    precision: Precision = "auto"  # auto: bfloat16 on a GPU that supports it, float32 on a CPU
    # Processes that cut and augment samples, at most one for each core; 0: the trainer's own process.
    loader_workers: NonNegativeInt = 0

    @model_validator(mode="after")
    def _one_voxel_size(self) -> "FitConfig":
        if self.voxel_size_um is not None and self.target_um is not None:
            raise ValueError(
                f"voxel_size_um = {self.voxel_size_um:g} resamples every scan to one voxel size, but "
                f"target_um = {self.target_um:g} varies it; set only one of the two"
            )
        return self

    @property
    def sampled_um(self) -> float | None:
        """Voxel edge of a sample before its scale is varied; None: as scanned."""
        return self.voxel_size_um or self.target_um


def check_device(device: str) -> None:
    """Raise InputError for a device that does not exist on this machine."""
    if device in ("auto", "cpu"):
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ["auto", "cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    if device not in there:
        raise InputError(f"there is no device {device!r} here; choose one of: {', '.join(there)}")


def make_accelerator(precision: Precision, device: str = "auto") -> Accelerator:
    """The device and the precision to compute with: `device` is auto (a GPU if there is one), cpu, cuda or cuda:N.

    Raises InputError for another name, or a GPU that is not there.
    """
    check_device(device)
    use_cpu = device == "cpu" or not torch.cuda.is_available()
    if not use_cpu and device.startswith("cuda:"):
        torch.cuda.set_device(torch.device(device))
    if precision == "auto":
        precision = "float32" if use_cpu else "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    # accelerate keeps a process's first device and precision permanently, and its environment variables override its
    # arguments; but a worker trains many candidates, whose recipes may differ.
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    return Accelerator(cpu=use_cpu, mixed_precision=_ACCELERATE_NAMES[precision])


def to_device(network: nn.Module, device: torch.device) -> tuple[nn.Module, torch.memory_format]:
    """The network on a device, in the memory layout that is best there, and the layout of its input (B, k, H, W)."""
    if device.type != "cuda":
        return network.to(device), torch.contiguous_format
    # On a GPU convolutions run on tensor cores in this layout without transposing around each of them.
    solid = any(parameter.ndim == 5 for parameter in network.parameters())
    layout = torch.channels_last_3d if solid else torch.channels_last
    for parameter in network.to(device).parameters():
        if parameter.ndim == (5 if solid else 4):
            parameter.data = parameter.data.to(memory_format=layout)
    # The slices of a box are not channels: its network adds the channel itself.
    return network, torch.contiguous_format if solid else layout


class Fit:
    """The training of one network, step by step, resumable at any step.

    `network` maps float (B, k, H, W) to logits (B, m, H, W) and is trained in place; `averaged` is the one to score.
    The same network, sampler, config and seed give the same weights on one machine's CPU, whether or not the training
    was interrupted.
    """

    def __init__(
        self, network: nn.Module, sampler: PatchSampler, config: FitConfig, seed: int, accelerator: Accelerator
    ) -> None:
        self.config = config
        self.step = 0
        self._sampler = sampler
        self._augmentation = Augmentation(config.augmentation)
        self._stream: Iterator[tuple[Tensor, Tensor]] | None = None
        self._accelerator = accelerator
        if accelerator.num_processes > 1:
            network = _for_several(network, config, accelerator)
        network, self._layout = to_device(network, accelerator.device)
        self._loss = build_loss(config.loss, config.sparse_background).to(accelerator.device)
        groups = weight_groups(network.named_parameters(), config.weight_decay)
        # fused: a single pass over the weights, five times faster than the default on two cores.
        optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self._schedule = SCHEDULES[config.schedule](config, optimiser, config.steps, config.learning_rate)
        self._average = weight_average(network, config.average_decay)
        self.network, self._optimiser = accelerator.prepare(network, optimiser)
        torch.manual_seed(seed + accelerator.process_index)  # dropout and drop-path

    @property
    def averaged(self) -> nn.Module:
        """The weight average, to be scored and exported."""
        module: nn.Module = self._average.module
        return module

    def branches_at(self, until: int) -> int:
        """The step up to which `run` goes before `cool_down` makes a network of `until` steps that is worth scoring."""
        return self._schedule.branches_at(until)

    def cooled_after(self, begin: int) -> int:
        """The last step of a branch that begins at this step."""
        return self._schedule.cooled_after(begin)

    def cool_down(self, until: int, on_step: Callable[[int, float], bool]) -> bool:
        """Train up to step `until` at a rate that falls to 0; False if `on_step` asked to stop earlier.

        Begins at step `branches_at(until)`, or goes on where a checkpoint of this branch left it. To follow the trunk
        again, `resume` from a checkpoint of it. With a schedule that falls by itself there is nothing to do. Raises
        NonFiniteLoss.
        """
        begin = self.branches_at(until)
        if not begin <= self.step <= until:
            raise ValueError(f"step {self.step} is not between {begin} and {until}")
        self._schedule.fall(begin, until, self.step)
        return self.run(until, on_step)

    def run(self, until: int, on_step: Callable[[int, float], bool]) -> bool:
        """Train up to step `until`; False if `on_step(step, loss)` asked to stop earlier.

        Raises NonFiniteLoss.
        """
        if self.step >= until:
            return True
        self.network.train()
        while self.step < until:
            images, labels = next(self._batches())
            loss = optimiser_step(
                self.network,
                self._loss,
                images.to(self._accelerator.device, non_blocking=True, memory_format=self._layout),
                labels.to(self._accelerator.device, non_blocking=True),
                self._optimiser,
                self._accelerator,
                self.config.gradient_clip,
            )
            self._schedule.torch.step()
            self._average.update_parameters(self._accelerator.unwrap_model(self.network))
            self.step += 1
            if not self.agreed(on_step(self.step, loss)) and self.step < until:
                return False
        return True

    def _check_together(self, step: int, folder: Path) -> None:
        """Check that all processes read the same checkpoint; on a shared disk some may not see it yet."""
        if self._accelerator.num_processes == 1:
            return
        steps = torch.tensor([step, -step], device=self._accelerator.device)
        torch.distributed.all_reduce(steps, torch.distributed.ReduceOp.MIN)
        lowest, highest = int(steps[0]), -int(steps[1])
        if lowest != highest:
            first = "none" if lowest < 0 else f"that of step {lowest}"
            raise InputError(
                f"the processes of this training see different checkpoints in {folder} ({first} and that of step "
                f"{highest}); start the training again once they all see the same one on their shared disk"
            )

    def agreed(self, go: bool) -> bool:
        """Whether every process wants to go on: if one left alone, the others would wait for it."""
        if self._accelerator.num_processes == 1:
            return go
        flag = torch.tensor(int(go), device=self._accelerator.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN)
        return bool(flag)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The stream of batches from this step on; opened once, because loader processes are slow to start."""
        if self._stream is None:
            start = self.step * self.config.batch_size
            workers = min(self.config.loader_workers, available_cores())  # whoever wrote the configuration
            share = (self._accelerator.process_index, self._accelerator.num_processes)
            size = self.config.batch_size
            margin = self.config.marked_margin
            self._stream = iter(Batches(self._sampler, self._augmentation, size, start, workers, share, margin))
        return self._stream

    def save(self, folder: Path) -> None:
        """Write a checkpoint from which `resume` continues exactly."""
        optimiser_state, groups = optimiser_tensors(self._optimiser)
        network = self._accelerator.unwrap_model(self.network)
        around, state = surroundings(self._schedule.torch, self._accelerator)
        tensors = {
            **{f"network.{k}": v for k, v in network.state_dict().items()},
            **{f"average.{k}": v for k, v in self._average.state_dict().items()},
            **optimiser_state,
            **around,
        }
        save_checkpoint(folder, self.step, tensors, {"groups": groups, **state})

    def resume(self, folder: Path) -> bool:
        """Continue from the newest checkpoint below `folder`; False if there is none.

        Raises InputError if several processes do not see the same one, and for one of another training.
        """
        loaded = load_checkpoint(folder)
        self._check_together(-1 if loaded is None else int(loaded[1]["step"]), folder)
        if loaded is None:
            return False
        tensors, state = loaded
        try:
            load_weights(self._accelerator.unwrap_model(self.network), tensors, "network.")
            load_weights(self._average, tensors, "average.")
            restore_optimiser(self._optimiser, tensors, state["groups"])
            restore_surroundings(self._schedule.torch, self._accelerator, tensors, state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and re.search("allocate|CUDA|cuDNN|NCCL", str(error)):
                raise  # no fault of the checkpoint's
            raise InputError(
                f"{folder} holds no checkpoint of this training ({type(error).__name__}); delete it to begin anew"
            ) from error
        self._schedule.stay()
        self.step = int(state["step"])
        if self._accelerator.process_index:  # the restored random state is that of the first process
            torch.manual_seed(hash((self.step, self._accelerator.process_index)) % 2**63)
        self._stream = None
        return True


def _for_several(network: nn.Module, config: FitConfig, accelerator: Accelerator) -> nn.Module:
    """A network whose batch norms see the batch of all processes, on GPUs, where torch supports this.

    Raises InputError if the batch cannot be split evenly.
    """
    processes, batch = accelerator.num_processes, config.batch_size
    if batch % processes:
        raise InputError(
            f"a batch of {batch} cannot be split evenly among {processes} processes; start a number that divides it"
        )
    if accelerator.device.type != "cuda":
        return network
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted
