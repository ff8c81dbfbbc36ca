"""From an Optuna trial to a Candidate and a FitConfig."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import optuna

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
    space, choices = config.space, distributions(config.space)

    def choose(name: str, *given: str) -> Any:
        parameter, values = choices(name, *given)
        return trial.suggest_categorical(parameter, values)

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
    fit = config.fit.model_copy(
        update={
            "crop": choose("crop", encoder, decoder),
            "loss": choose("loss"),
            "batch_size": choose("batch_size"),
            "learning_rate": trial.suggest_float("learning_rate", *space.learning_rate, log=True),
            "vessel_share": trial.suggest_float("vessel_share", *space.vessel_share),
        }
    )
    return candidate, fit


def distributions(space: SearchSpace) -> Callable[..., tuple[str, tuple[Any, ...]]]:
    """A function from a parameter, and what was chosen before it, to its name in the study and its values.

    A parameter whose values depend on an earlier choice (a decoder that an encoder has no features for, a crop that
    it cannot take) carries them in its name: Optuna wants one set of values a name, and the sampler then learns about
    each set apart.
    """
    possible = buildable(space)

    def find(name: str, *given: str) -> tuple[str, tuple[Any, ...]]:
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
        values = some(*given)
        return (name if len(values) == len(every) else f"{name} of {', '.join(map(str, values))}"), values

    return find


def known_parameters(config: SearchConfig, candidate: Candidate, fit: FitConfig) -> dict[str, Any]:
    """The parameters of a fixed trial that the space could have suggested, by their names in the study."""
    space, choices = config.space, distributions(config.space)
    known: dict[str, Any] = {}
    steps: list[tuple[str, Any, tuple[str, ...]]] = [
        ("encoder", candidate.encoder, ()),
        ("decoder", candidate.decoder, (candidate.encoder,)),
        ("encoder_weights", candidate.encoder_weights, (candidate.encoder,)),
        ("crop", fit.crop, (candidate.encoder, candidate.decoder)),
        ("slices_in", candidate.slices_in, ()),
        ("slices_out", "middle" if candidate.slices_out == 1 else "all", ()),
        ("loss", fit.loss, ()),
        ("batch_size", fit.batch_size, ()),
    ]
    for name, value, given in steps:
        if given and given[0] not in space.encoders:
            continue
        parameter, values = choices(name, *given)
        if value in values:
            known[parameter] = value
    for name, number, (low, high) in (
        ("learning_rate", fit.learning_rate, space.learning_rate),
        ("vessel_share", fit.vessel_share, space.vessel_share),
    ):
        if low <= number <= high:
            known[name] = number
    return known


def register(trial: optuna.Trial, config: SearchConfig, candidate: Candidate, fit: FitConfig) -> None:
    """Enter a fixed trial's parameters into the study as if they had been suggested, so that the sampler learns."""
    known = known_parameters(config, candidate, fit)
    choices = distributions(config.space)
    for name, given in (
        ("encoder", ()),
        ("decoder", (candidate.encoder,)),
        ("encoder_weights", (candidate.encoder,)),
        ("crop", (candidate.encoder, candidate.decoder)),
        ("slices_in", ()),
        ("slices_out", ()),
        ("loss", ()),
        ("batch_size", ()),
    ):
        if given and given[0] not in config.space.encoders:
            continue
        parameter, values = choices(name, *given)
        if parameter in known:
            trial.suggest_categorical(parameter, values)
    if "learning_rate" in known:
        trial.suggest_float("learning_rate", *config.space.learning_rate, log=True)
    if "vessel_share" in known:
        trial.suggest_float("vessel_share", *config.space.vessel_share)
