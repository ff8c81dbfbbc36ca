"""Batches: an endless, resumable stream of augmented samples as tensors, from one process or several."""

import re
import signal
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainers.data.augment import Augmentation
from trainers.data.patches import PatchSampler

_DEAD = re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)")
_UNTIL_THE_SIGNAL = 5  # seconds; it comes within milliseconds of the broken connection


class LoaderDied(RuntimeError):
    """A process that made samples is gone."""


def loader_died(error: BaseException) -> bool:
    """Whether a process that made samples is gone, as after a kill for memory.

    torch has no class for it, and raises it from a signal handler, wherever the training is at that moment.
    """
    return isinstance(error, LoaderDied) or (isinstance(error, RuntimeError) and bool(_DEAD.search(str(error))))


class Batches:
    """Samples `start`, `start` + 1, ... in batches: image (B, slices_in, crop, crop) and target (B, slices_out, ...).

    Both are float32. Targets are 0 to 1, or UNSURE farther than `sparse_margin` voxels from the labels of a volume
    whose labels are incomplete (None: never). Iteration continues where the last one stopped: `position` is the number
    of the next sample, and the stream is the same for any number of workers, so this one integer is enough to resume
    it exactly.
    workers: loader processes; 0 makes the samples in this process. share: which part of each batch to make, and of how
    many parts; all parts in order form the batch.
    """

    def __init__(
        self,
        sampler: PatchSampler,
        augmentation: Augmentation,
        batch_size: int,
        start: int = 0,
        workers: int = 0,
        share: tuple[int, int] = (0, 1),
        sparse_margin: int | None = None,
    ) -> None:
        self.samples, self.share = _Samples(sampler, augmentation, sparse_margin), share
        self.batch_size, self.position, self.workers = batch_size, start, workers

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            self.samples,
            batch_sampler=_Consecutive(self.position, self.batch_size, self.share),
            num_workers=self.workers,
            multiprocessing_context="spawn" if self.workers else None,
            pin_memory=torch.cuda.is_available(),
            # The loader draws a seed when it starts; not from the global generator, whose state a resumed run needs.
            generator=torch.Generator(),
            worker_init_fn=_heed_the_trainer_alone,
        )
        samples = iter(loader)
        while True:
            try:
                image, label = next(samples)
            except (ConnectionError, EOFError) as error:  # it died while it handed a batch over
                _let_torch_tell()
                raise LoaderDied(f"a loader process is gone: {error}") from error
            self.position += self.batch_size
            yield image, label


def _let_torch_tell() -> None:
    """Waits for the signal of a dead child, whose handler raises once: it would interrupt what comes next."""
    try:
        time.sleep(_UNTIL_THE_SIGNAL)
    except RuntimeError as error:
        if not loader_died(error):
            raise


def _heed_the_trainer_alone(_: int) -> None:
    """Ignores signals: a loader process ends with its trainer, which still needs samples after a signal to all."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _Samples(Dataset[tuple[NDArray[np.float32], NDArray[np.float32]]]):
    def __init__(self, sampler: PatchSampler, augmentation: Augmentation, sparse_margin: int | None) -> None:
        self.sampler, self.augmentation, self.sparse_margin = sampler, augmentation, sparse_margin

    def __getitem__(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.sampler.sample(number, self.augmentation, self.sparse_margin)


class _Consecutive:
    """One part of each batch in an endless sequence of batches of consecutive sample numbers."""

    def __init__(self, start: int, batch_size: int, share: tuple[int, int]) -> None:
        self.start, self.batch_size = start, batch_size
        part, parts = share
        self.first, self.last = batch_size * part // parts, batch_size * (part + 1) // parts

    def __iter__(self) -> Iterator[list[int]]:
        first = self.start
        while True:
            yield list(range(first + self.first, first + self.last))
            first += self.batch_size
