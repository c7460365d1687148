"""How long training takes and how much memory: measured on its first steps, and said once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from resource import RUSAGE_SELF, getrusage

import torch

from lloss.training.trainer import Trainer
from lloss.training.training_data import TrainingData

TIMED = 3  # Steps that are timed, behind a first one that allocates and tunes
ENOUGH = 2.0  # Seconds of them that are enough
SHORT = 10.0  # Trainings of fewer seconds are over before the line is read


class Pace:
    """Says how long the rest of a training takes, as soon as a few steps were timed."""

    def __init__(
        self, steps: int, images: int, device: torch.device, say: Callable[[str], None]
    ) -> None:
        """``steps`` are still to do; the decoded images take ``images`` bytes."""
        self.steps, self.images, self.device, self.say = steps, images, device, say
        self.times: list[float] = []  # of the end of each step so far
        self.said = False

    @classmethod
    def of(cls, trainer: Trainer, say: Callable[[str], None]) -> Pace:
        """Of what a trainer still has to do."""
        steps = (trainer.settings.epochs - trainer.epoch) * trainer.steps - trainer.step
        decoded = trainer.data.images.nbytes if isinstance(trainer.data, TrainingData) else 0
        return cls(steps, decoded, next(trainer.model.parameters()).device, say)

    def step(self) -> None:
        """Take note of a step that just ended."""
        if self.said:
            return
        self.times.append(time.monotonic())
        timed, seconds = len(self.times) - 1, self.times[-1] - self.times[0]
        if timed < TIMED and not (timed and seconds > ENOUGH):
            return
        self.said = True
        rest = (self.steps - len(self.times)) * seconds / timed
        if rest >= SHORT:
            self.say(
                f"training takes about {in_words(rest)} on {self.device.type}: {self.steps:,} "
                f"steps of {seconds / timed:.2g} s; memory {_memory(self.device)}, of which "
                f"{in_bytes(self.images)} are decoded images"
            )


def in_words(seconds: float) -> str:
    """Round a duration to what is worth knowing: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def in_bytes(count: float) -> str:
    """Round a number of bytes: ``0.2 MB``, ``20 MB``, ``1.5 GB``."""
    return f"{count / 1e6:.2g} MB" if count < 1e8 else f"{count / 1e9:.1f} GB"


def _memory(device: torch.device) -> str:
    """The most that the process used so far: later steps need what the first ones did."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    host = in_bytes(getrusage(RUSAGE_SELF).ru_maxrss * unit)
    if device.type != "cuda":
        return host
    return f"{in_bytes(torch.cuda.max_memory_reserved(device))} on the GPU and {host} of the host"
