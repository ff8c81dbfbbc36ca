"""Bundle: a trained network as a folder of data, which loads without running code from a file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from results.bundles.architecture import Architecture, Normalisation
from results.bundles.model_card import model_card
from results.links import refuse_links
from search_spaces.errors import InputError
from search_spaces.network import build_network
from search_spaces.published.weights import check_numbers
from trainers.atomic import whole_folder, write_atomically
from trainers.checkpoint import save_tensors
from trainers.inference.reader import Reader, make_reader

ARCHITECTURE, WEIGHTS, CARD = "architecture.json", "weights.safetensors", "MODEL_CARD.md"

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Bundle:
    """A bundle read from disk."""

    path: Path
    architecture: Architecture
    network: nn.Module

    @property
    def reader(self) -> Reader:
        """The network, ready to read volumes."""
        return make_reader(self.network, self.architecture.candidate, self.architecture.fit)


def write_bundle(path: Path, architecture: Architecture, weights: dict[str, Tensor]) -> Path:
    """Write a bundle atomically: the folder appears complete, replacing an earlier one."""
    with whole_folder(path, replacing=True) as part:
        save_tensors(weights, part / WEIGHTS)
        architecture = architecture.model_copy(update={"weights_hash": _hash((part / WEIGHTS).read_bytes())})
        (part / ARCHITECTURE).write_text(architecture.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (part / CARD).write_text(model_card(architecture), encoding="utf-8")
    return path


def rewrite_description(path: Path, architecture: Architecture) -> None:
    """Replace a bundle's description by another one of the same network, with another reading."""
    write_atomically(path / CARD, model_card(architecture))
    write_atomically(path / ARCHITECTURE, architecture.model_dump_json(indent=2) + "\n")


def read_architecture(path: Path) -> Architecture:
    """The description in a bundle's folder; InputError if there is none."""
    return read_description(path / ARCHITECTURE, Architecture, "a bundle")


def read_description(file: Path, model: type[M], what: str) -> M:
    """The model that a folder's file describes; InputError if the folder is not `what`, as in "a bundle".

    Nor may a link in the folder lead out of it: what is read from it, and written into it, lies in it.
    """
    if file.exists():
        refuse_links(file.parent)
    try:
        return model.model_validate_json(file.read_bytes(), strict=True)
    except OSError as error:
        raise InputError(f"{file.parent} is not {what}: {file.name} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("format",):
            what = f"{file} has format {first['input']!r}, of another version of this program"
            raise InputError(f"{what}: make it again, or read it with that version") from error
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{file} does not describe {what}: {f'{where}: ' if where else ''}{first['msg']}") from error


def read_bundle(path: Path) -> Bundle:
    """Rebuild the network of a bundle, on the CPU. Raises InputError if a part is missing or does not fit.

    If the bundle is replaced meanwhile, description and weights are those of one writing.
    """
    architecture, stored = _of_one_writing(path)
    if architecture.normalisation != Normalisation():
        raise InputError(f"{path} was trained on grey values stretched in another way than in this version")
    network = build_network(architecture.candidate.folded(), architecture.fit.crop, pretrained=False)
    try:
        weights = load(stored)
        check_numbers(path / WEIGHTS, weights)
        network.load_state_dict(weights)
    except SafetensorError as error:
        raise InputError(f"{path / WEIGHTS} cannot be read: {error}") from error
    except RuntimeError as error:
        raise InputError(
            f"{path / WEIGHTS} does not fit its architecture.json: {str(error).splitlines()[-1].strip()}"
        ) from error
    return Bundle(path, architecture, network.eval())


def _of_one_writing(path: Path) -> tuple[Architecture, bytes]:
    """The description and the stored weights; once more if the bundle was replaced between the two."""
    for _ in range(2):
        architecture = read_architecture(path)
        try:
            stored = (path / WEIGHTS).read_bytes()
        except OSError as error:
            raise InputError(f"{path / WEIGHTS} cannot be read: {error}") from error
        if architecture.weights_hash in (None, _hash(stored)):
            return architecture, stored
    raise InputError(f"{path}: its weights are not those that its {ARCHITECTURE} was written with; copy both again")


def _hash(stored: bytes) -> str:
    return hashlib.blake2b(stored, digest_size=16).hexdigest()
