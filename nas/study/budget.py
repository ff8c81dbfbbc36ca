"""How long a search may go on: wall-clock time and hours of all devices, summed over every driver of its study."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import optuna

from nas.config.study_config import BUSY_SECONDS, SECONDS, StudyConfig

_SAVE_SECONDS = 60.0


@dataclass
class Budget:
    """What is used and what is left. busy: seconds that the workers of this driver have worked, added up."""

    config: StudyConfig
    study: optuna.Study
    busy: Callable[[], float] = lambda: 0.0
    _began: float | None = None
    _saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        attributes = self.study.user_attrs
        self._used_before = float(attributes.get(SECONDS, 0.0))
        self._busy_before = float(attributes.get(BUSY_SECONDS, 0.0))

    def begin(self) -> None:
        """The first worker is ready; starting workers and preparing data do not count."""
        self._began = self._began or time.monotonic()

    def seconds(self) -> float:
        """Wall-clock seconds of searching so far."""
        return self._used_before + (0.0 if self._began is None else time.monotonic() - self._began)

    def busy_seconds(self) -> float:
        """Seconds that workers have worked so far, added up."""
        return self._busy_before + self.busy()

    def minutes_left(self) -> float | None:
        """Wall-clock minutes that are left; None without a limit."""
        return None if self.config.minutes is None else self.config.minutes - self.seconds() / 60

    def over(self) -> str | None:
        """Which limit has been reached, in words for the user; None while there is time."""
        minutes, hours = self.config.minutes, self.config.gpu_hours
        if minutes is not None and self.seconds() >= 60 * minutes:
            return f"{minutes:g} minutes are used up; with more --minutes"
        if hours is not None and self.busy_seconds() >= 3600 * hours:
            return f"{hours:g} GPU hours are used up; with a larger study.gpu_hours"
        return None

    def save(self, now: bool = False) -> None:
        """Store the time used in the study, at most once a minute, so that a kill loses at most a minute of it."""
        if now or time.monotonic() - self._saved > _SAVE_SECONDS:
            self._saved = time.monotonic()
            self.study.set_user_attr(SECONDS, self.seconds())
            self.study.set_user_attr(BUSY_SECONDS, self.busy_seconds())


def seconds_used(study: optuna.Study) -> float:
    """Wall-clock seconds that all drivers of this study have searched."""
    return float(study.user_attrs.get(SECONDS, 0.0))
