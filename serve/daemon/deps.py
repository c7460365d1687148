"""What all routes share."""

from __future__ import annotations

from lloss.serve.daemon.http.authentication import Access
from lloss.serve.daemon.observability.gauges import watch
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.job_runner import Jobs
from lloss.serve.daemon.services.label_classes import Classes
from lloss.serve.daemon.services.model_manager import Models
from lloss.serve.daemon.services.pool_registry import Pools
from lloss.serve.daemon.services.selections import Selections
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog


class Daemon:
    """A model that is served, and the pools that it scores.

    Attributes:
        settings: what it was told.
        access: who may ask.
        metrics: what it tells.
        models: the artifact that scores now, and how it is exchanged.
        catalog: pools, jobs, labels and pending images, on disk.
        pools: opened pools and their scores.
        jobs: pools being scored.
        classes: which labels a pool takes.
        selections: which K are next.
        draining: whether it was told to end: requests under way are finished, others refused.
    """

    def __init__(self, settings: ServeSettings) -> None:
        """Open everything; the model is loaded by :meth:`start`.

        Raises:
            SettingsError: a value that cannot be, or a data dir that another daemon holds.
        """
        self.settings = settings
        self.draining = False
        self.access = Access(settings)
        self.metrics = DaemonMetrics(settings.limits)
        self.catalog = Catalog(settings.data_dir)
        self.models = Models(settings, self.metrics)
        self.pools = Pools(settings, self.catalog)
        self.jobs = Jobs(settings, self.catalog, self.models, self.pools, self.metrics)
        self.classes = Classes(self.models, self.catalog.images)
        self.selections = Selections(settings, self.catalog, self.pools, self.metrics, self.classes)
        watch(self)

    def start(self) -> None:
        """Load the model, then go on with the jobs that an earlier process left. Blocks.

        Raises:
            ArtifactError: the model file is no artifact.
            EngineError: the provider cannot run it.
        """
        self.models.load()
        self.jobs.start()

    def not_ready(self) -> str:
        """Why no request should be sent here; "" when one can be."""
        if self.draining:
            return "draining: it was told to end"
        return self.models.not_ready() or self.catalog.problem()

    def close(self) -> None:
        """Interrupt jobs between two batches (they go on at the next start) and free everything."""
        self.jobs.close()
        self.models.close()
        self.catalog.close()
