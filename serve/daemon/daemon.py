"""The daemon: the objects that all of its routes share."""

from __future__ import annotations

from lloss.serve.daemon.http.authentication import Authentication
from lloss.serve.daemon.observability.gauges import register_gauges
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.hand_out import Selections
from lloss.serve.daemon.services.image_labels import ImageLabels
from lloss.serve.daemon.services.job_runner import JobRunner
from lloss.serve.daemon.services.label_classes import LabelClasses
from lloss.serve.daemon.services.model_manager import ModelManager
from lloss.serve.daemon.services.pool_registry import PoolRegistry
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog


class Daemon:
    """The served model and the pools it scores.

    Attributes:
        draining: whether it is shutting down: accepted requests are answered, others refused.
    """

    def __init__(self, settings: ServeSettings) -> None:
        """Open everything but the model, which :meth:`start` loads.

        Raises:
            SettingsError: an invalid value, or a data dir that another daemon uses.
        """
        self.settings = settings
        self.draining = False
        self.metrics = DaemonMetrics(settings.limits)
        self.catalog = Catalog(settings.data_dir)
        # Only after the catalog is locked: it may make a key
        self.authentication = Authentication(settings)
        self.models = ModelManager(settings, self.metrics)
        self.pools = PoolRegistry(settings, self.catalog)
        self.jobs = JobRunner(settings, self.catalog, self.models, self.pools, self.metrics)
        self.classes = LabelClasses(self.models, self.catalog.images)
        self.labels = ImageLabels(self.catalog, self.pools, self.metrics, self.classes)
        self.selections = Selections(settings, self.catalog, self.pools, self.metrics)
        register_gauges(self.metrics, self.catalog, settings.data_dir, self.not_ready)

    def start(self) -> None:
        """Load the model, then resume the jobs of an earlier process. Blocks.

        Raises:
            ModelFileError: the model file is not an exported model.
            EngineError: the provider cannot run it.
        """
        self.models.load()
        self.jobs.start()

    def not_ready(self) -> str:
        """Return why no request should be sent here; "" when one can be."""
        if self.draining:
            return "shutting down"
        return self.models.not_ready() or self.catalog.problem()

    def close(self) -> None:
        """Interrupt jobs between two batches (the next start resumes them); free everything."""
        self.jobs.close()
        self.models.close()
        self.catalog.close()
