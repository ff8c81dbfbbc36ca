"""Pretrained weights as a table for a terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from nas.search.needed_weights import NeededWeights
from search_spaces.errors import printable


def weights_table(rows: Sequence[NeededWeights]) -> Table:
    """One row for each set of weights."""
    table = Table("encoder", "weights", "here", "size", "licence", "from", pad_edge=False)
    for row in rows:
        texts = (row.encoder, row.weights, "yes" if row.file else "no", size_text(row), row.licence)
        origin = row.repository or str(row.file)
        table.add_row(*(Text(printable(text), overflow="fold") for text in (*texts, origin)))
    return table


def size_text(row: NeededWeights) -> str:
    """A size in megabytes."""
    if row.size_bytes is None:
        return "size unknown"
    return f"{'about ' if row.size_estimated else ''}{row.size_bytes / 1e6:.0f} MB"


def summary(rows: Sequence[NeededWeights], source: str, answered: bool = True) -> str:
    """How many are missing, and what to do about it.

    source: the arguments that name the configuration, as in "--preset sennet". answered: whether the hub did.
    """
    silent = "" if answered else "; huggingface.co did not answer, so sizes are estimated and some licences unknown"
    missing = [row for row in rows if row.file is None]
    if not rows:
        return f"no pretrained weights are needed: with {source} every candidate starts from scratch"
    if not missing:
        return "all weights are on this machine"
    total = sum(row.size_bytes or 0 for row in missing)
    return (
        f"{len(missing)} of {len(rows)} are missing, about {total / 1e6:.0f} MB: `nas weights fetch {source}` "
        f"fetches them{silent}"
    )
