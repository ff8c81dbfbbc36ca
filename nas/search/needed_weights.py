"""Pretrained weights of a search: which it needs, what is known about them, and fetching them before it starts.

A search itself downloads nothing: only this module asks the hub. It puts files where trials look for them, into the
local cache of the Hugging Face hub (HF_HOME).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import torch
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from pydantic import BaseModel

from nas.config.search_config import SearchConfig, design_of
from nas.jobs.cell_search import plans
from nas.study.buildable import Buildable, check_options
from results.leaderboard.leaderboard import SCRATCH
from results.record import start_of
from search_spaces.candidate import Candidate
from search_spaces.errors import InputError
from search_spaces.families import FAMILIES
from search_spaces.network import build_network
from search_spaces.published.encoder_candidate import EncoderCandidate
from search_spaces.published.weights import (
    FILE_NAME,
    HubFile,
    cached_file,
    is_file_name,
    lies_in_cache,
    offered_weights,
)
from search_spaces.space import combinations, options

TIMEOUT = 5.0  # seconds within which the hub must answer

_T = TypeVar("_T")


class NeededWeights(BaseModel, frozen=True, extra="forbid"):
    """One set of encoder weights that candidates of a search start from."""

    encoder: str
    weights: str  # as in encoder_weights
    repository: str | None  # on the hub; None for a file of the user's own
    url: str | None
    file: Path | None  # on this machine; None if it has to be fetched
    size_bytes: int | None
    size_estimated: bool  # from the number of parameters
    licence: str


def needed(config: SearchConfig, possible: Buildable | None = None) -> list[tuple[Candidate, int]]:
    """A candidate and its crop for every encoder with every set of weights, or none, that a search may train.

    possible: what of the space can be built, if known; without it, every encoder of the space counts.
    """
    found = [(f.candidate, design_of(config, f).fit.crop) for f in config.fixed]
    if config.study.candidates:
        for family in config.space.families:
            found += _of_family(config, family, possible)
    found += [(config.cell_search.supernet_candidate(plan.family), plan.crop) for plan in plans(config)]
    return list({(_network_of(c), _weights_of(c)): (c, crop) for c, crop in found}.values())


def _of_family(config: SearchConfig, family: str, possible: Buildable | None) -> list[tuple[Candidate, int]]:
    """The candidates of a family with each encoder and each of its weights; one candidate if it has no encoder."""
    kind, offered = FAMILIES[family], options(config.space, family, config.fit.crop)
    light = kind.lightest(offered, config.cell_space)
    tried = combinations(config.space, family, config.fit.crop) if possible is None else possible.of(family)
    if not issubclass(kind, EncoderCandidate):
        return [(c.candidate(light), c.crop) for c in tried[:1]]
    first = {combination.named["encoder"]: combination for combination in reversed(tried)}
    return [
        (first[encoder].candidate({**light, "encoder_weights": name}), first[encoder].crop)
        for encoder in dict.fromkeys(offered["encoder"])
        if encoder in first
        for name in kind.weights_for(encoder, offered)
    ]


def _network_of(candidate: Candidate) -> str:
    """What weights belong to: the encoder, or the family if there is none."""
    return candidate.encoder if isinstance(candidate, EncoderCandidate) else candidate.family


def _weights_of(candidate: Candidate) -> str | None:
    """Which they are: of files the whole path, which `start` leaves out."""
    return candidate.encoder_weights if isinstance(candidate, EncoderCandidate) else candidate.start


def list_weights(config: SearchConfig, hub: "Hub | None" = None) -> list[NeededWeights]:
    """The pretrained weights that a search needs, those of the user's own files included.

    Sizes are those on disk, else the hub's, else estimated. Licences are timm's, else those of the hub's model card.
    hub: who is asked for them; None: nobody. Raises InputError if the configuration names weights that do not exist.
    """
    check_options(config)
    rows: dict[tuple[str, str], NeededWeights] = {}
    for candidate, crop in needed(config):
        if isinstance(candidate, EncoderCandidate) and candidate.start is not None:
            rows[candidate.encoder, candidate.encoder_weights] = _describe(candidate, crop, hub)
    return list(rows.values())


def fetch_weights(rows: Sequence[NeededWeights], on_file: Callable[[int, int, NeededWeights], None]) -> list[Path]:
    """Download what is missing into the local cache; returns the new files. Calls `on_file(done, of, row)` before each.

    Raises InputError with one line if the hub is out of reach or lacks a file; what has arrived stays.
    """
    missing = [row for row in rows if row.repository is not None and row.file is None]
    files = []
    for done, row in enumerate(missing):
        on_file(done, len(missing), row)
        place = offered_weights(row.encoder)[row.weights]
        try:
            # Asked first, because the download would try for half a minute before reporting that there is no network.
            get_hf_file_metadata(_url(place), timeout=TIMEOUT)
            again = lies_in_cache(place) is not None  # damaged: the hub's client would take it as it is
            found = hf_hub_download(place.repository, FILE_NAME, revision=place.revision, force_download=again)
            files.append(Path(found))
        except Exception as error:  # which ones depends on the HTTP library of the hub's client
            raise InputError(_out_of_reach(place, error)) from error
    return files


def starting_note(config: SearchConfig, possible: Buildable) -> str | None:
    """A note on which candidates start from scratch while others do not; None if all start alike."""
    found = [(start_of(candidate), candidate) for candidate, _ in needed(config, possible)]
    if len({start for start, _ in found}) < 2 or SCRATCH not in {start for start, _ in found}:
        return None
    scratch = dict.fromkeys(_without_start(c) for start, c in found if start == SCRATCH)
    others = dict.fromkeys(start for start, _ in found if start != SCRATCH)
    return (
        f"from scratch: {', '.join(scratch)}; others start from {', '.join(others)}. A short training favours the "
        "latter; the leaderboard's column start shows which is which"
    )


def _without_start(candidate: Candidate) -> str:
    return _network_of(candidate).removeprefix("tu-")


class Hub:
    """The hub, which is asked nothing more after the first question that it does not answer."""

    def __init__(self) -> None:
        self.answers = True

    def size(self, place: HubFile) -> int | None:
        """Bytes of a file."""
        return self._ask(lambda: get_hf_file_metadata(_url(place), timeout=TIMEOUT).size)

    def licence(self, place: HubFile) -> str | None:
        """The licence in the model card."""
        return self._ask(lambda: _licence_of_card(place))

    def _ask(self, question: Callable[[], _T]) -> _T | None:
        if not self.answers:
            return None
        try:
            return question()
        except HfHubHTTPError:  # an answer, though not the one that was wanted
            return None
        except Exception:  # which ones depends on the HTTP library of the hub's client
            self.answers = False
            return None


def _licence_of_card(place: HubFile) -> str | None:
    card = HfApi().model_info(place.repository, revision=place.revision, timeout=TIMEOUT).card_data
    found = None if card is None else card.get("license")
    return None if found is None else str(found)


def _describe(candidate: EncoderCandidate, crop: int, hub: Hub | None) -> NeededWeights:
    if is_file_name(candidate.encoder_weights):
        file = candidate.find_weights()
        assert file is not None
        return NeededWeights(
            encoder=candidate.encoder,
            weights=candidate.encoder_weights,
            repository=None,
            url=None,
            file=file,
            size_bytes=file.stat().st_size,
            size_estimated=False,
            licence="your own file",
        )
    offered = offered_weights(candidate.encoder)
    if candidate.encoder_weights not in offered:
        candidate.find_weights()  # which raises, and names those that exist
    place = offered[candidate.encoder_weights]
    file = cached_file(place)
    size = file.stat().st_size if file is not None else None if hub is None else hub.size(place)
    return NeededWeights(
        encoder=candidate.encoder,
        weights=candidate.encoder_weights,
        repository=place.repository,
        url=place.url,
        file=file,
        size_bytes=_estimated(candidate, crop) if size is None else size,
        size_estimated=size is None,
        licence=place.licence or (hub and hub.licence(place)) or f"unknown, see {place.url}",
    )


def _estimated(candidate: EncoderCandidate, crop: int) -> int | None:
    """Bytes of the encoder's numbers; None if no network can be made of it here."""
    try:
        with torch.device("meta"):
            encoder = build_network(candidate.folded(), crop, pretrained=False).get_submodule("encoder")
    except InputError:
        return None
    return 4 * sum(p.numel() for p in encoder.parameters())


def _url(place: HubFile) -> str:
    return hf_hub_url(place.repository, FILE_NAME, revision=place.revision)


def _out_of_reach(place: HubFile, error: Exception) -> str:
    why = " ".join(str(error).split()) or type(error).__name__
    return (
        f"{place.repository} cannot be fetched from {urlsplit(_url(place)).netloc}: {why[:200]}; fetch it on a "
        f"machine with a network (`{place.fetch_command}`) and copy the cache (HF_HOME), or name a .safetensors file"
    )
