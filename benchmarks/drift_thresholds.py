"""How often the daemon's drift figure passes a threshold, by chance and when there is a shift.

    python benchmarks/drift_thresholds.py

Each trial draws the losses of a reference and, of the same distribution, those of a window of live
images, and shifts the latter by so many standard deviations. Prints a Markdown table with the share
of trials in which the population stability index is above each threshold. All losses are
independent of each other, which those of a video's frames are not.
"""

from __future__ import annotations

from collections.abc import Callable

import click
import numpy as np
from lloss.serve.daemon.observability.drift import LEAST, WINDOW, Drift
from numpy.typing import NDArray

from lloss.statistics.loss_distribution import MIN_IMAGES, LossReference

REFERENCES = (MIN_IMAGES, 1000)
WINDOWS = (LEAST, WINDOW)
SHIFTS = (0.0, 0.25, 0.5, 0.75, 1.0)
THRESHOLDS = (0.05, 0.1, 0.25)

Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Values]

SHAPES: dict[str, Draw] = {
    "normal": lambda random, count: random.normal(0, 1, count),
    "skewed": lambda random, count: random.gamma(2, 2**-0.5, count),
}
"""Distributions of a standard deviation of 1."""


def indices(draw: Draw, images: int, window: int, trials: int) -> Values:
    """The index of each trial and shift, [trials, shifts]."""
    random = np.random.default_rng((images, window))
    found = np.empty((trials, len(SHIFTS)))
    drift = Drift(window)
    for trial in found:
        reference = LossReference.of(draw(random, images).astype(np.float32), "made up")
        live = draw(random, window)
        for number, shift in enumerate(SHIFTS):
            drift.against(reference)
            drift.add((live + shift).astype(np.float32))
            trial[number] = drift.psi()
    return found


@click.command()
@click.option("--trials", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--shape", type=click.Choice(list(SHAPES)), default="normal", show_default=True)
def main(trials: int, shape: str) -> None:
    """Print the table."""
    columns = "".join(f" > {threshold:g} |" for threshold in THRESHOLDS)
    print(f"| reference | window | shift (sd) | median |{columns}")
    print("|--:|--:|--:|--:|" + "--:|" * len(THRESHOLDS))
    for images in REFERENCES:
        for window in WINDOWS:
            found = indices(SHAPES[shape], images, window, trials)
            for shift, each in zip(SHIFTS, found.T):
                shares = "".join(f" {(each > limit).mean():.2%} |" for limit in THRESHOLDS)
                median = np.median(each)
                print(f"| {images:,} | {window:,} | {shift:g} | {median:.3f} |{shares}", flush=True)


if __name__ == "__main__":
    main()
