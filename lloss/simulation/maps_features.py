"""Feature maps of all images that the trials will draw, and what is labeled in their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.simulation.experiment import Experiment
from lloss.simulation.feature_store import FeatureStore
from lloss.simulation.frozen_features import views_of
from lloss.simulation.frozen_maps import FrozenMapsNetwork, MapsLayout
from lloss.simulation.labeled_data import SimulatedData
from lloss.simulation.maps_learner import MapsLearner
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.training_data import TrainingData, load_examples

BATCH = 16


@dataclass(frozen=True)
class MapsMaker:
    """Makes a :class:`.MapsLearner` of features on disk, in any process."""

    settings: TrainSettings
    names: tuple[str, ...]
    layout: MapsLayout
    folder: Path
    views: dict[tuple[int, int], tuple[str, Any]]  # key and target of a row's variant
    test: tuple[Sequence[str], list[Any], list[Any]]  # keys, targets and labels

    def learner(self) -> MapsLearner:
        """Open the features."""
        store, task = FeatureStore(self.folder), get_task(self.settings.task)
        objective = task.network_objective(self.settings, self.names)

        def read(
            rows: NDArray[np.int64], variants: NDArray[np.int64]
        ) -> tuple[NDArray[np.float16], list[Any]]:
            found = [self.views[view] for view in zip(rows.tolist(), variants.tolist())]
            return store.rows([key for key, _ in found]), [target for _, target in found]

        keys, targets, labels = self.test
        test = store.rows(keys), targets, labels
        return MapsLearner(self.settings, objective, self.layout, self.names, read, test)


def prepare_maps(
    experiment: Experiment,
    data: SimulatedData,
    folder: Path,
    device: str,
    say: Callable[[str], None],
) -> MapsMaker:
    """Run the frozen network once over every image that a trial draws, and over the test set.

    Raises ``LabelError`` for an image or a label that cannot be used.
    """
    settings = experiment.settings
    network = FrozenMapsNetwork(settings, data.names, device)
    say(network.line)
    data.task.frozen_head(network.layout.maps, data.names, settings)  # refused before decoding
    views = views_of(experiment)
    drawn = LabeledSet(
        data.items(*zip(*views)), [data.data.labels[row] for row, _ in views], data.data.origin
    )
    decoded, test = (_decoded(each, data, settings) for each in (drawn, data.test))
    keys, test_keys = ([_key(image) for image in each.images] for each in (decoded, test))
    store = FeatureStore(folder / network.key())
    _fill(store, network, (decoded, test), [*keys, *test_keys])
    found = dict(zip(views, zip(keys, decoded.targets)))
    return MapsMaker(
        settings,
        data.names,
        network.layout,
        store.folder,
        found,
        (test_keys, list(test.targets), list(data.test.labels)),
    )


def _decoded(labeled: LabeledSet, data: SimulatedData, settings: TrainSettings) -> TrainingData:
    found, _ = load_examples(labeled, data.names, settings, Problems(remedy=""))
    return found


def _key(image: NDArray[np.uint8]) -> str:
    """Identify pixels: of one image several persons may be cut out."""
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()[:32]


def _fill(
    store: FeatureStore,
    network: FrozenMapsNetwork,
    parts: tuple[TrainingData, TrainingData],
    keys: Sequence[str],
) -> None:
    one, two = (part.images for part in parts)

    def compute(places: Sequence[int]) -> Iterator[NDArray[np.float16]]:
        for start in range(0, len(places), BATCH):
            some = places[start : start + BATCH]
            images = [one[at] if at < len(one) else two[at - len(one)] for at in some]
            yield network.features(np.stack(images))

    store.fill(keys, compute)
