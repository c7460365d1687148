"""Features of all images that the trials will draw, computed before the first of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lloss.data.decode_ahead import decoded
from lloss.data.labeled_set import LabeledSet
from lloss.errors import ImageError, LabelError
from lloss.pools import Item
from lloss.simulation.experiment import Experiment
from lloss.simulation.feature_store import FeatureStore
from lloss.simulation.frozen_learner import FrozenLearner
from lloss.simulation.frozen_network import FrozenNetwork, Layout
from lloss.simulation.image_variants import ORIGINAL, VERSION
from lloss.simulation.labeled_data import SimulatedData
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.training_data import at_once

FOLDER = "features"


@dataclass(frozen=True)
class FrozenMaker:
    """Makes a :class:`.FrozenLearner` of features on disk, in any process."""

    settings: TrainSettings
    names: tuple[str, ...]
    layout: Layout
    folder: Path
    digests: dict[int, str]  # of the images' contents, by their row
    test_keys: Sequence[str]
    test_classes: NDArray[np.int64]

    def learner(self) -> FrozenLearner:
        """Open the features."""
        store = FeatureStore(self.folder)
        objective = get_task(self.settings.task).network_objective(self.settings, self.names)

        def read(rows: NDArray[np.int64], variants: NDArray[np.int64]) -> NDArray[np.float32]:
            return store.rows([view_key(self.digests[r], v) for r, v in zip(rows, variants)])

        test = store.rows(self.test_keys), self.test_classes
        return FrozenLearner(self.settings, objective, self.layout, self.names, read, test)


def view_key(digest: str, variant: int) -> str:
    """Identify an image's features within those of a network."""
    return digest if variant == ORIGINAL else f"{digest}/{VERSION}.{variant}"


def prepare_features(
    experiment: Experiment,
    data: SimulatedData,
    folder: Path,
    device: str,
    say: Callable[[str], None],
) -> FrozenMaker:
    """Run the frozen network once over every image that a trial draws, and over the test set.

    Raises ``LabelError`` for an image that cannot be read.
    """
    network = FrozenNetwork(experiment.settings, data.names, device)
    say(network.line)
    views = views_of(experiment)
    rows = sorted({row for row, _ in views})
    digests = {row: _key(data.data, data.digests, row) for row in rows}
    test_digests = [_key(data.test, data.test_digests, row) for row in range(len(data.test))]
    items = [*data.items(*zip(*views)), *data.test.items]
    keys = [view_key(digests[row], variant) for row, variant in views]
    test_keys = [view_key(digest, ORIGINAL) for digest in test_digests]
    store = FeatureStore(folder / network.key())
    _fill(store, network, items, [*keys, *test_keys])
    classes = data.class_numbers(data.test.labels)
    assert classes is not None, "refuse_frozen() was called"
    return FrozenMaker(
        experiment.settings, data.names, network.layout, store.folder, digests, test_keys, classes
    )


def views_of(experiment: Experiment) -> list[tuple[int, int]]:
    """Rows and variants that any trial draws."""
    views = set[tuple[int, int]]()
    for scenario in experiment.scenarios:
        for trial in range(experiment.trials):
            pool = experiment.pool(scenario, trial)
            views.update(zip(pool.rows.tolist(), pool.variants.tolist()))
    return sorted(views)


def _key(labeled: LabeledSet, digests: Sequence[str], row: int) -> str:
    if not digests[row]:
        item = labeled.items[row]
        try:
            item.read()
        except ImageError as error:
            raise _unusable(labeled.origin, item.id, error) from error
    return digests[row][:32]


def _fill(
    store: FeatureStore, network: FrozenNetwork, items: Sequence[Item], keys: Sequence[str]
) -> None:
    spec = network.settings.image_spec()

    def compute(places: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        found = decoded([items[place] for place in places], spec)
        while some := list(itertools.islice(found, at_once(spec.height, spec.width))):
            for id, pixels in some:
                if isinstance(pixels, ImageError):
                    raise _unusable("the images", id, pixels)
            yield network.features(np.stack([pixels for _, pixels in some]))  # type: ignore[misc]

    store.fill(keys, compute)


def _unusable(origin: str, id: str, error: ImageError) -> LabelError:
    return LabelError(f"{origin}: {id!r}: {error}; mend or remove the image")
