"""What an exception in a worker says about its trial: infeasible, failed, or not its fault."""

import errno
import re
import resource

import torch

from results.record import Outcome
from search_spaces.errors import InputError
from trainers.machine import whole_memory
from trainers.step import NonFiniteLoss

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the last: the limit of `ulimit -f`
_UNITS = {"bytes": 2**-30, "KiB": 2**-20, "MiB": 2**-10, "GiB": 1.0, "TiB": 2**10, "PiB": 2**20}
_ON_CPU = re.compile(r"can't allocate memory: you tried to allocate (?P<amount>[\d.]+) (?P<unit>bytes)")
_ON_GPU = re.compile(r"Tried to allocate (?P<amount>[\d.]+) (?P<unit>[KMGTP]iB|bytes)")

_SHARED = re.compile(r"</torch_\w+>: No space left")  # as torch says it of what processes share
_SHARED_FULL = "/dev/shm, where loader processes put samples, is full: make it larger, or --set fit.loader_workers=0"


def outcome_of(error: Exception, device: str) -> tuple[Outcome, bool]:
    """How a trial that raised this error ends, and whether its process can take another trial.

    Out of memory: infeasible, with the total memory requested, so that the sampler learns from it. A full disk
    or /dev/shm: interrupted, because no other trial would fare better. Everything else: failed, for a reason of one
    line.
    """
    asked = _asked_gib(error)
    if asked is not None:
        had = _capacity_gib(device)
        peak = asked + _used_gib(device)
        words = f"out of {'GPU ' if device != 'cpu' else ''}memory: needs {peak:.1f} GiB of {had:.1f} GiB"
        return Outcome(
            state="infeasible", reason=words, peak_memory_gib=peak, memory_excess_gib=max(peak - had, 0.001)
        ), (device == "cpu")
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" for {error.filename}" if error.filename else ""
        return Outcome(state="interrupted", reason=f"the disk is full: no space left{where}; free some"), True
    if _SHARED.search(str(error)):
        return Outcome(state="interrupted", reason=_SHARED_FULL), device == "cpu"
    expected = isinstance(error, InputError | NonFiniteLoss)
    reason = str(error) if expected else f"{type(error).__name__}: {error}"
    return Outcome(state="failed", reason=_line(reason)), (device == "cpu" or expected)


def _line(reason: str) -> str:
    """The line that says what happened: the first, or the last of what was passed on with its traceback."""
    lines = reason.strip().splitlines()
    return (lines[-1 if "Caught " in lines[0] else 0][:300]) if lines else "unknown"


def _asked_gib(error: Exception) -> float | None:
    """GiB whose allocation failed; None if that is not what went wrong."""
    found = (_ON_GPU if isinstance(error, torch.OutOfMemoryError) else _ON_CPU).search(str(error))
    if found is not None:
        return float(found["amount"]) * _UNITS[found["unit"]]
    return 0.0 if isinstance(error, torch.OutOfMemoryError | MemoryError) else None


def _used_gib(device: str) -> float:
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return torch.cuda.memory_allocated(device) / 2**30


def _capacity_gib(device: str) -> float:
    if device == "cpu":
        return whole_memory() / 2**30
    return torch.cuda.get_device_properties(device).total_memory / 2**30
