"""FAMILIES: every kind of network that a study may try, by the name in `family`; the first is the default."""

from search_spaces.candidate import Candidate
from search_spaces.families.cells import CellsCandidate
from search_spaces.families.hybrid import HybridCandidate
from search_spaces.families.sam import SamCandidate
from search_spaces.families.unet import UnetCandidate

FAMILIES: dict[str, type[Candidate]] = {
    "unet": UnetCandidate,
    "cells": CellsCandidate,
    "hybrid": HybridCandidate,
    "sam": SamCandidate,
}
