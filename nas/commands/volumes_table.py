"""The volumes of a folder as a table for a terminal."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from trainers.data.check import CheckRow
from trainers.data.geometry import spacing_text
from trainers.data.soft_labels import DEFAULT_SET


def volumes_table(rows: Sequence[CheckRow]) -> Table:
    """One row for each volume; one that cannot be used is red."""
    table = Table(pad_edge=False)
    for name in ("volume", "kidney", "shape", "type", "spacing (µm)", "labels", "annotated", "vessels", "grey values"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(
            row.name,
            row.kidney or "–",
            "–" if row.shape is None else " x ".join(map(str, row.shape)),
            row.dtype or "–",
            "–" if row.spacing_um is None else spacing_text(row.spacing_um),
            _labels(row),
            _percent(row.annotated),
            _percent(row.vessel_share, digits=2),
            "–" if row.grey_low is None else f"{row.grey_low:.0f} – {row.grey_high:.0f}",
            style="red" if row.error else None,
        )
    return table


def volume_remarks(rows: Sequence[CheckRow]) -> Iterator[Text]:
    """Remarks on single volumes, one line each."""
    for row in rows:
        for remark in (*row.notes, *([f"cannot be used: {row.error}"] if row.error else [])):
            yield Text(f"{row.name}: {remark}")


def _labels(row: CheckRow) -> str:
    """Where labels are read from; for a set that is not the usual one, its name."""
    named = row.labels if row.label_set in (None, DEFAULT_SET) else row.label_set
    return (named or "–") + (" (soft)" if row.soft else "")


def _percent(share: float | None, digits: int = 0) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"
