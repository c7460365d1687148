"""Figures over paired trials: means with intervals, and differences of methods."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lloss.statistics.confidence_intervals import Interval, usable
from lloss.statistics.paired_trials import holm, mean_after_first, mean_interval, sign_flip_p

LEVEL = 0.05
"""Adjusted p below which a difference is called clear."""


class Measured(NamedTuple):
    """A mean over trials and its 95 % interval; NaN where nothing was measured."""

    value: float
    interval: Interval


NOTHING = Measured(math.nan, (math.nan, math.nan))


def number(value: float | None) -> float | None:
    """The value if it is finite, or None."""
    return None if value is None or not math.isfinite(value) else float(value)


def measured(values: Iterable[float | None]) -> Measured:
    """The mean and interval of one figure a trial, without the trials that lack it."""
    known = np.array([x for value in values if (x := number(value)) is not None], np.float64)
    return Measured(float(known.mean()), mean_interval(known)) if len(known) else NOTHING


@dataclass(frozen=True)
class Difference:
    """A method's metric less that of another, over the trials that both finished."""

    trials: int
    final: Measured  # at the last cycle
    later: Measured  # in the mean of the cycles after the first
    curve: Sequence[Measured]  # at each cycle
    p: float  # of `final`, adjusted for the other methods that are compared with the same one
    settled: bool = True  # whether all trials that were planned are finished

    @property
    def sign(self) -> int:
        """1 or -1 where the final difference is clear, 0 where it is not.

        Clear: its interval does not contain zero, its adjusted p is below LEVEL, and no trial is
        missing.
        """
        if not self.settled or self.p >= LEVEL or not usable(self.final.interval):
            return 0
        low, high = self.final.interval
        return int(low > 0) - int(high < 0)


def differences(
    of_trials: dict[str, NDArray[np.float64]], settled: bool = True
) -> dict[str, Difference]:
    """Make differences of several methods, each float64 [T, C]: T trials, C cycles.

    The p of all are adjusted together.
    """
    p = [sign_flip_p(values[:, -1]) for values in of_trials.values()]
    return {
        method: Difference(
            trials=len(values),
            final=measured(values[:, -1]),
            later=measured(map(mean_after_first, values)),
            curve=[measured(cycle) for cycle in values.T],
            p=adjusted,
            settled=settled,
        )
        for (method, values), adjusted in zip(of_trials.items(), holm(p), strict=True)
    }
