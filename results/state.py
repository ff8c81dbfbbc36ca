"""State: how a trial ended."""

from typing import Literal

State = Literal["complete", "pruned", "failed", "infeasible", "interrupted"]
