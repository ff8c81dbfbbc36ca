"""Design: what a trial trains, and how it is read."""

from dataclasses import dataclass

from search_spaces.candidate import Candidate
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig


@dataclass(frozen=True)
class Design:
    """One point of a search space: the network, its recipe, and how it reads a volume."""

    candidate: Candidate
    fit: FitConfig
    inference: InferenceConfig
