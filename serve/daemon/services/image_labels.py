"""Mark images labeled, skipped or free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.label_classes import LabelClasses
from lloss.serve.daemon.services.name_matching import match_images, scored_ids, unknown_ids
from lloss.serve.daemon.services.pool_registry import PoolRegistry
from lloss.serve.daemon.store.catalog import Catalog


@dataclass(frozen=True)
class Labeled:
    """How many images are labeled now.

    Attributes:
        kept: images that had a label, and were given none.
        by_name: images that were given by a name that is not their id.
        new_classes: classes that neither the model nor an earlier label had.
    """

    images: int
    kept: int = 0
    by_name: int = 0
    new_classes: Sequence[str] = ()


@dataclass(frozen=True)
class Returned:
    """How many images are free now, are pending by ``others`` now, or never had a state."""

    images: int
    others: int
    unknown: int


class ImageLabels:
    """Changes the states of images, each call in one transaction."""

    def __init__(
        self, catalog: Catalog, pools: PoolRegistry, metrics: DaemonMetrics, classes: LabelClasses
    ) -> None:
        self._catalog, self._pools = catalog, pools
        self._metrics, self._classes, self._images = metrics, classes, catalog.images

    def present(self, pool: str, ids: Iterable[str]) -> set[str]:
        """The ids that the pool has, by the catalog, its scores, or itself."""
        asked = set(ids)
        unknown = asked - self._images.states(pool, asked).keys()
        unknown -= self._pools.get(pool).cached_ids(unknown)  # such as those that a page shows
        if unknown and self._catalog.pools.row(pool).scores is not None:
            with self._pools.reading(pool) as (_, folder):
                unknown -= scored_ids(folder, unknown)
        if unknown:  # such as images that were excluded when the pool was scored
            unknown -= self._pools.get(pool).existing_ids(unknown)
        return asked - unknown

    def label(
        self, pool: str, labels: Mapping[str, str], new_classes: bool = False, without: bool = False
    ) -> Labeled:
        """Mark images labeled; "" if the label is kept elsewhere.

        ``new_classes`` accepts classes that neither the model nor an earlier label has, ``without``
        images without a label. If a name or label is not accepted, none is marked.
        """
        names = match_images(self._pools, pool, labels, self.present(pool, labels))
        by_name = sum(name != id for id, name in names.items())
        labels = {id: labels[name] for id, name in names.items()}
        labels, new = self._classes.checked(pool, labels, new_classes, without)
        bare = [id for id, label in labels.items() if not label]
        kept = sum(bool(row.label) for row in self._images.states(pool, bare).values())
        marked = self._images.label(pool, labels)
        self._metrics.labeled(marked)
        return Labeled(marked, kept, by_name, tuple(new))

    def skip(self, pool: str, ids: Sequence[str]) -> int:
        """Never hand these out; labeled ones stay labeled. Returns how many changed."""
        present = self.present(pool, ids)
        if unknown := [id for id in dict.fromkeys(ids) if id not in present]:
            raise unknown_ids(pool, unknown)
        return self._images.skip(pool, ids)

    def give_back(self, pool: str, ids: Sequence[str], selection: str = "") -> Returned:
        """Free pending (or skipped) images; with ``selection``, only those that it still has."""
        states = self._images.states(pool, ids)
        others = sum(
            row.state == "pending" and selection not in ("", row.selection)
            for row in states.values()
        )
        freed = self._images.give_back(pool, ids, selection)
        return Returned(freed, others, len(set(ids) - states.keys()))
