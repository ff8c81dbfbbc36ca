"""Words for how a training began and how it ended."""

from typing import Literal

State = Literal["complete", "pruned", "failed", "infeasible", "interrupted"]
SCRATCH = "scratch"  # the start of a network without pretrained weights
