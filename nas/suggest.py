"""From an Optuna trial to a Candidate and a FitConfig."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

from nas.config import SearchConfig
from search_spaces.candidate import Candidate
from search_spaces.space import Pair, SearchSpace, pairs, weights_for
from trainers.fit import FitConfig


@dataclass(frozen=True)
class Buildable:
    """Which choices of a space go together."""

    pairs: tuple[Pair, ...]

    def encoders(self) -> tuple[str, ...]:
        """Encoders that make a network with some decoder at some crop."""
        return self._names(lambda pair: pair.encoder, lambda _: True)

    def decoders(self, encoder: str) -> tuple[str, ...]:
        """Decoders that make a network with an encoder at some crop."""
        return self._names(lambda pair: pair.decoder, lambda pair: pair.encoder == encoder)

    def crops(self, encoder: str, decoder: str) -> tuple[int, ...]:
        """Crops at which an encoder and a decoder make a network."""
        return self._names(lambda pair: pair.crop, lambda pair: (pair.encoder, pair.decoder) == (encoder, decoder))

    def _names(self, name: Callable[[Pair], Any], wanted: Callable[[Pair], bool]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(name(pair) for pair in self.pairs if pair.refusal is None and wanted(pair)))


@lru_cache(maxsize=8)
def buildable(space: SearchSpace) -> Buildable:
    """What of a space can be built; found by building it once."""
    return Buildable(pairs(space))


def suggest(trial: optuna.Trial, config: SearchConfig) -> tuple[Candidate, FitConfig]:
    """One point of the search space, asked of Optuna parameter by parameter.

    Only what can be built is offered. The same trial always gives the same point.
    """
    space = config.space

    def choose(name: str, *given: str) -> Any:
        return _ask(trial, *_parameter(space, name, *given))

    encoder = choose("encoder")
    decoder = choose("decoder", encoder)
    slices_in = choose("slices_in")
    candidate = Candidate(
        encoder=encoder,
        decoder=decoder,
        encoder_weights=choose("encoder_weights", encoder),
        slices_in=slices_in,
        slices_out=slices_in if choose("slices_out") == "all" else 1,
    )
    recipe = {
        "crop": choose("crop", encoder, decoder),
        "loss": choose("loss"),
        "batch_size": choose("batch_size"),
        "learning_rate": choose("learning_rate"),
        "vessel_share": choose("vessel_share"),
    }
    return candidate, config.fit.model_copy(update=recipe)


def known_parameters(space: SearchSpace, candidate: Candidate, fit: FitConfig) -> dict[str, Any]:
    """The parameters of a fixed trial that the space could have suggested, by their names in the study."""
    return {name: value for name, (_, value) in _known(space, candidate, fit).items()}


def register(trial: optuna.Trial, space: SearchSpace, candidate: Candidate, fit: FitConfig) -> None:
    """Enter a fixed trial's known parameters as if they had been suggested, so that the sampler learns from them."""
    for name, (distribution, _) in _known(space, candidate, fit).items():
        _ask(trial, name, distribution)


def _known(
    space: SearchSpace, candidate: Candidate, fit: FitConfig
) -> dict[str, tuple[CategoricalDistribution | FloatDistribution, Any]]:
    encoder, decoder = candidate.encoder, candidate.decoder
    wanted: list[tuple[str, tuple[str, ...], Any]] = [
        ("encoder", (), encoder),
        ("decoder", (encoder,), decoder),
        ("encoder_weights", (encoder,), candidate.encoder_weights),
        ("crop", (encoder, decoder), fit.crop),
        ("slices_in", (), candidate.slices_in),
        ("slices_out", (), "middle" if candidate.slices_out == 1 else "all"),
        ("loss", (), fit.loss),
        ("batch_size", (), fit.batch_size),
        ("learning_rate", (), fit.learning_rate),
        ("vessel_share", (), fit.vessel_share),
    ]
    found = {}
    for name, given, value in wanted:
        parameter, distribution = _parameter(space, name, *given)
        inside = (
            value in distribution.choices
            if isinstance(distribution, CategoricalDistribution)
            else distribution.low <= value <= distribution.high
        )
        if inside:
            found[parameter] = (distribution, value)
    return found


def _ask(trial: optuna.Trial, name: str, distribution: CategoricalDistribution | FloatDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def _parameter(space: SearchSpace, name: str, *given: str) -> tuple[str, CategoricalDistribution | FloatDistribution]:
    """A parameter's name in the study and its values, after the choices `given` that it depends on.

    Where these leave it only some of its values (a decoder that an encoder has no features for, a crop that it cannot
    take) the name tells which: Optuna wants one set of values a name, and the sampler then learns about each set apart.
    """
    if name == "learning_rate":
        return name, FloatDistribution(*space.learning_rate, log=True)
    if name == "vessel_share":
        return name, FloatDistribution(*space.vessel_share)
    possible = buildable(space)
    table: dict[str, tuple[tuple[Any, ...], Callable[..., tuple[Any, ...]]]] = {
        "encoder": (space.encoders, possible.encoders),
        "decoder": (space.decoders, possible.decoders),
        "encoder_weights": (space.encoder_weights, lambda encoder: weights_for(space, encoder)),
        "crop": (space.crops, possible.crops),
        "slices_in": (space.slices_in, lambda: space.slices_in),
        "slices_out": (space.slices_out, lambda: space.slices_out),
        "loss": (space.losses, lambda: space.losses),
        "batch_size": (space.batch_sizes, lambda: space.batch_sizes),
    }
    every, some = table[name]
    values = some(*given) or ("none",)
    return (name if len(values) == len(every) else f"{name} of {', '.join(map(str, values))}"), CategoricalDistribution(
        values
    )
