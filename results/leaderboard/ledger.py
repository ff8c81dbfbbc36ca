"""Ledger: the records of a run and their ranking, held in memory by the one process that writes them."""

import shutil
from collections.abc import Set
from dataclasses import dataclass, field

from results.leaderboard.columns import to_markdown
from results.leaderboard.leaderboard import Leaderboard
from results.leaderboard.ranking import rank
from results.record import Record, read_record
from results.run_folder import RunFolder
from trainers.atomic import write_atomically
from trainers.metrics.score import ScoreConfig


@dataclass
class Ledger:
    """Reads a run folder once and then adds each new record, so that thousands of trials are not read again for each.

    Raises InputError if a record cannot be understood.
    """

    folder: RunFolder
    study: str
    held_out: str
    score: ScoreConfig
    _records: dict[int, Record] = field(default_factory=dict)
    _with_weights: set[int] = field(default_factory=set)  # trials whose weights lie on disk
    _board: Leaderboard | None = None  # as long as nothing was added

    def __post_init__(self) -> None:
        for number, place in self.folder.trial_folders():
            if (record := read_record(place.record)) is not None:
                self._records[number] = record
            if place.weights.is_file():
                self._with_weights.add(number)

    def __contains__(self, trial: int) -> bool:
        return trial in self._records

    def add(self, record: Record) -> None:
        """Write a record into its trial's folder; it counts from now on."""
        number = record.job.trial
        place = self.folder.trial(number)
        write_atomically(place.record, record.model_dump_json(indent=2))
        self._records[number] = record
        if place.weights.is_file():
            self._with_weights.add(number)
        self._board = None

    def board(self) -> Leaderboard:
        """The ranking of what is known; leaderboard.json and LEADERBOARD.md are written if it has changed."""
        if self._board is None:
            records = [record for _, record in sorted(self._records.items())]
            self._board = rank(records, self.study, self.held_out, self.score)
            write_atomically(self.folder.leaderboard_json, self._board.model_dump_json(indent=2) + "\n")
            write_atomically(self.folder.leaderboard_markdown, to_markdown(self._board))
        return self._board

    def drop_weights(self, most: int, busy: Set[int]) -> None:
        """Keep weights and trunks of the top rows and of busy trials only: those of hundreds would fill a disk."""
        board = self.board()
        kept = {row.trial for row in board.rows[:most]} | {board.best}
        kept |= {row.trial for row in board.rows if row.default or row.judged}  # any of them may still be exported
        for number in sorted(self._with_weights - busy):
            record = self._records.get(number)
            if record is None or record.job.design not in kept:
                self.folder.trial(number).weights.unlink(missing_ok=True)
                shutil.rmtree(self.folder.trial(number).trunk, ignore_errors=True)
                self._with_weights.remove(number)
