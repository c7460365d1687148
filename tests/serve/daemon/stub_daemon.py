"""A daemon whose parts are real; only the model is a stub."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

from lloss.serve.daemon.http.authentication import Authentication
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.hand_out import Selections
from lloss.serve.daemon.services.image_labels import ImageLabels
from lloss.serve.daemon.services.label_classes import LabelClasses
from lloss.serve.daemon.services.pool_registry import PoolRegistry
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog


class StubDaemon:
    draining = False
    problem = ""

    def __init__(self, folder: Path, models: Any, **settings: Any) -> None:
        self.folder, self.models, self.started = folder, models, time.time()
        self.settings = ServeSettings(
            model=folder / "model.onnx",
            data_dir=folder / "data",
            pool_roots=(str(folder),),
            **settings,
        )
        self.authentication = Authentication(self.settings)
        self.catalog = Catalog(self.settings.data_dir)
        self.metrics = DaemonMetrics(self.settings.limits)
        self.pools = PoolRegistry(self.settings, self.catalog)
        self.classes = LabelClasses(cast(Any, models), self.catalog.images)
        self.labels = ImageLabels(self.catalog, self.pools, self.metrics, self.classes)
        self.selections = Selections(self.settings, self.catalog, self.pools, self.metrics)

    def not_ready(self) -> str:
        return self.problem
