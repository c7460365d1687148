"""Pools being scored, one at a time, behind the requests."""

from __future__ import annotations

from .catalog import Catalog, JobRow
from .metrics import DaemonMetrics
from .models import Models
from .pools import Pools
from .settings import ServeSettings


class Jobs:
    """A thread that scores pools; what a killed process left it goes on with."""

    def __init__(
        self,
        settings: ServeSettings,
        catalog: Catalog,
        models: Models,
        pools: Pools,
        metrics: DaemonMetrics,
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Begin to work, first on jobs that were under way."""
        raise NotImplementedError

    def submit(self, pool: str) -> JobRow:
        """Have a pool scored by the model that serves now; the job that is under way, if one is."""
        raise NotImplementedError

    def cancel(self, id: str) -> JobRow:
        """Stop a job between two batches and remove what it wrote; does nothing to ended ones."""
        raise NotImplementedError

    def close(self) -> None:
        """Interrupt the job between two batches; it goes on at the next start."""
        raise NotImplementedError
