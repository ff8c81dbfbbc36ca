"""Which storages are this user's own: those that the command line has named once, or a file of the user's own.

A storage that only a run folder names is not connected to: libpq would send the password of the environment there.
"""

from nas.config import named
from nas.config.storage_url import read_url, shown
from results.run_folder import RunFolder
from search_spaces.errors import InputError


def check_own(url: str | None) -> None:
    """Raise InputError for a storage that a run folder names, and no command of this user ever did."""
    if url is not None and not named.is_named(read_url(url).mark):
        raise InputError(
            f"the run folder names the storage {shown(url)}, which none of your commands has named: if it is yours, "
            "repeat it with --storage"
        )


def remember(url: str) -> None:
    """From now on a configuration may name this storage."""
    named.remember(read_url(url).mark)


def storage_of(folder: RunFolder, configured: str | None, said: str | None) -> str | None:
    """The storage of a run: that of its configuration, with the password of what the command line said, if it did.

    Raises InputError if the two are not the same.
    """
    if said is None:
        return configured
    if configured is None or read_url(configured).mark != read_url(said).mark:
        where = "study.journal" if configured is None else shown(configured)
        raise InputError(
            f"{folder.path} keeps its study in {where}, not in {shown(said)} (or for another user); leave out --storage"
        )
    remember(said)
    return said
