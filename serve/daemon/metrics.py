"""What the daemon tells of itself, beside the scorer's own telemetry."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from lloss.artifact import Manifest

from ..telemetry import Telemetry


class DaemonMetrics:
    """Metrics of requests, queue, jobs, selections and drift, in one registry with the scorer's.

    Attributes:
        telemetry: that every scorer of this daemon counts in, so that a reload loses no count.
        registry: to serve; that of ``telemetry``.
    """

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.registry: CollectorRegistry = self.telemetry.registry

    def request(self, route: str, code: int, seconds: float) -> None:
        """Count an answered request; ``route`` is the path's pattern, never the path."""
        raise NotImplementedError

    def refused(self, reason: str) -> None:
        """Count images refused or dropped: ``queue_full``, ``deadline``, ``cancelled``, …"""
        raise NotImplementedError

    def queued(self, images: int) -> None:
        """Tell how many images of requests wait for the engine."""
        raise NotImplementedError

    def served(self, losses: NDArray[np.float32]) -> None:
        """Count predicted losses of live traffic, float32 [N]; jobs' do not come here."""
        raise NotImplementedError

    def model(self, manifest: Manifest, sha256: str, provider: str) -> None:
        """Name the model that serves from now on; drift is measured against it anew."""
        raise NotImplementedError

    def reloaded(self, outcome: str) -> None:
        """Count a reload: ``swapped``, ``unchanged`` or ``refused``."""
        raise NotImplementedError

    def job(self, outcome: str) -> None:
        """Count a job that ended: ``done``, ``failed`` or ``cancelled``."""
        raise NotImplementedError

    def selected(self, images: int) -> None:
        """Count images handed out for labeling."""
        raise NotImplementedError

    def labeled(self, images: int) -> None:
        """Count images marked labeled."""
        raise NotImplementedError
