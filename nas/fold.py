"""From the configuration to the kidneys of a search: found or made, converted, split, and checked for leaks."""

from collections.abc import Callable
from pathlib import Path

from nas.config import SearchConfig
from results.run_folder import RunFolder
from trainers.data.contrast import share_contrast
from trainers.data.folds import Fold, choose, guard
from trainers.data.phantom import write_phantoms
from trainers.data.prepare import default_cache, prepare
from trainers.data.sources import VolumeSource, scan
from trainers.data.volume import Volume

OnNote = Callable[[str], None]
OnProgress = Callable[[str, int, int], None]  # what, done, of


def _ignore(_: str) -> None:
    return None


def open_fold(
    config: SearchConfig, folder: RunFolder, on_note: OnNote = _ignore, on_progress: OnProgress | None = None
) -> Fold:
    """The training and held-out volumes of a search, memory-mapped.

    Without data.root phantom kidneys are made in the run folder. The first call converts, later ones open.
    Raises InputError for whatever is wrong with the data.
    """
    cache = config.data.cache or default_cache()
    train, held_out = choose(scan(data_root(config, folder, on_progress), on_note), config.data, on_note)

    def convert(source: VolumeSource) -> Volume:
        def report(done: int, total: int) -> None:
            if on_progress:
                on_progress(f"converting {source.name}", done, total)

        return prepare(source, cache, on_progress=report, on_note=on_note)

    volumes = share_contrast([convert(source) for source in (*train, *held_out)])
    fold = Fold(volumes[: len(train)], volumes[len(train) :])
    guard(fold)
    return fold


def data_root(config: SearchConfig, folder: RunFolder, on_progress: OnProgress | None = None) -> Path:
    """Where the scans lie; the phantoms are made when they are not there yet."""
    if config.data.root is not None:
        return config.data.root
    if not folder.phantoms.is_dir():

        def report(done: int, total: int) -> None:
            if on_progress:
                on_progress("making phantom kidneys", done, total)

        write_phantoms(folder.phantoms, config.phantom, config.study.seed, on_progress=report)
    return folder.phantoms


def fingerprint(fold: Fold) -> dict[str, dict[str, str]]:
    """What the data of a run is: the content hash of each volume, by its side of the split."""
    return {
        "train": {volume.name: volume.content_hash for volume in fold.train},
        "held_out": {volume.name: volume.content_hash for volume in fold.held_out},
    }
