"""How many cores there are to use."""

import os


def available_cores() -> int:
    """Number of cores that this process may use: worker processes and containers are often limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
