"""Records of trainings that never ran, and leaderboards made of them."""

import numpy as np

from results.leaderboard.leaderboard import Leaderboard, State
from results.leaderboard.ranking import rank
from results.record import Job, Outcome, Record
from search_spaces.families.unet import UnetCandidate
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import Score, ScoreConfig, Slab, VolumeScore


def score(dice: float, slabs: int = 8, spread: float = 0.0, seed: int = 0) -> Score:
    """A score whose slabs lie around `dice`; slabs of one seed move together, as on one kidney."""
    noise = np.random.default_rng(seed).normal(0, spread, slabs)
    parts = (float(dice + n) for n in noise - noise.mean())
    values = {"surface_dice": dice, "voxel_dice": dice}
    return Score(
        rank_by="surface_dice",
        values=values,
        ci_low=0.0,
        ci_high=1.0,
        threshold=0.5,
        best=dice,
        mean_over_thresholds=dice,
        volumes=(VolumeScore(volume="k", values=values),),
        slabs=tuple(Slab(volume="k", threshold=0.5, parts={"surface_dice": (part, 1.0)}) for part in parts),
    )


def record(
    trial: int, dice: float | None, state: State = "complete", repeats: int | None = None, **kwargs: float | int
) -> Record:
    return Record(
        job=Job(
            trial=trial,
            name=f"network {trial}",
            candidate=UnetCandidate(),
            fit=FitConfig(),
            inference=InferenceConfig(),
            seed=trial,
            repeats=repeats,
        ),
        outcome=Outcome(
            state=state,
            score=None if dice is None else score(dice, **kwargs),  # type: ignore[arg-type]
            reason=None if state == "complete" else "a reason",
            parameters=1_000_000,
            train_seconds=60.0,
        ),
        version="0",
    )


def ranked(records: list[Record]) -> Leaderboard:
    return rank(records, "s", "k", ScoreConfig())


def trained(trial: int, values: list[float], default: bool = False, seconds: float = 60.0) -> list[Record]:
    """A design's trainings: that of the search, and those with the seeds 1, 2 and so on."""
    found = []
    for seed, value in enumerate(values):
        plain = record(trial + 100 * seed, value, repeats=trial if seed else None)
        job = plain.job.model_copy(update={"seed": seed, "default": default, "name": f"network {trial}"})
        outcome = plain.outcome.model_copy(update={"train_seconds": seconds})
        found.append(plain.model_copy(update={"job": job, "outcome": outcome}))
    return found


def over_kidneys(trial: int, chosen: float, *judged: tuple[str | None, float], default: bool = False) -> list[Record]:
    """A design's trainings: that of the search, and those with fresh seeds and what they held out instead."""
    found = trained(trial, [chosen, *(value for _, value in judged)], default)
    held_out = [None, *(kidney for kidney, _ in judged)]
    return [
        record.model_copy(update={"job": record.job.model_copy(update={"hold_out": kidney})})
        for record, kidney in zip(found, held_out, strict=True)
    ]


def board_of(*designs: list[Record]) -> Leaderboard:
    return ranked([record for design in designs for record in design])
