"""A small network that gets a process into trouble, for tests that start several."""

from __future__ import annotations

import os
import signal

from torch import Tensor, nn

from lloss.errors import LabelError

TROUBLE = "TEST_TROUBLE"
"""Names the variable ``RANK:PASS:WHAT``: what happens to this process in this pass of training.

Pass 0 is when the network is made.
"""


class TroubledNet(nn.Module):
    """Two convolutions with batch norm, and a layer that nothing uses."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.unused = nn.Linear(3, 3)
        self.last = nn.Linear(8, num_classes)
        self.passes = 0
        self._trouble()

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
            self._trouble()
        logits: Tensor = self.last(self.second(self.first(images)).mean((2, 3)))
        return logits

    def _trouble(self) -> None:
        rank, passes, what = os.environ.get(TROUBLE, "-1:0:").split(":")
        if (os.environ.get("RANK", "0"), self.passes) != (rank, int(passes)):
            return
        if what == "error":
            raise LabelError("a label that only this process has")
        os.kill(os.getpid(), signal.Signals[what])
