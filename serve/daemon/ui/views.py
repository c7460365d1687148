"""What the pages show, found in the daemon."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lloss.serve.daemon.deps import Daemon
from lloss.serve.daemon.services.score_summary import ScoredImage, score_summary
from lloss.serve.daemon.services.selections import Ranked
from lloss.serve.daemon.store.records import Counts, ImageState, JobRow, PoolRow
from lloss.serve.daemon.ui.image_details import Held, Mark
from lloss.serve.daemon.ui.request_rate import Rate
from lloss.serve.daemon.ui.thumbnails import Thumbnails, stamp_of

from lloss.errors import LlossError
from lloss.manifest import class_name
from lloss.pools.uri import PoolUri, without_secrets
from lloss.statistics.charts import histogram

PAGE = 60
"""Images a page."""

PAGES = 50
"""Pages of what is next; deeper than this nobody looks, and each costs what all before it do."""

POOLS = 100
"""Pools a page."""

FEW = 30
"""Classes that a list to choose from holds; of more, names are typed."""

_UNDER_WAY = ("queued", "running")


@dataclass(frozen=True)
class Progress:
    """A job that is under way.

    Attributes:
        id: of the job.
        state: ``queued`` or ``running``.
        done: images.
        total: images of the pool; None where that is not known.
        rate: images a second lately; None while that is not known.
        left: seconds that it will take; None likewise.
    """

    id: str
    state: str
    done: int
    total: int | None
    rate: float | None
    left: float | None


@dataclass(frozen=True)
class PoolView:
    """A pool at a glance.

    Attributes:
        name: of it.
        uri: of it, without credentials.
        images: that it holds; None before anybody counted them.
        counts: of its images.
        row: all that the catalog says.
        job: that is under way.
        failure: why the latest job failed; "" if it did not.
        resumable: whether that one goes on where it failed.
        outdated: whether another model made its scores than the one that serves.
    """

    name: str
    uri: str
    images: int | None
    counts: Counts
    row: PoolRow
    job: Progress | None
    failure: str
    resumable: bool
    outdated: bool

    @property
    def scored(self) -> bool:
        """Whether there are scores."""
        return self.row.scores is not None

    @property
    def version(self) -> str:
        """Differs for an earlier pool of the same name, and for other scores of this one."""
        scores = self.row.scores.name if self.row.scores else ""
        return f"{int(self.row.created * 1000)}-{scores}"


@dataclass(frozen=True)
class Tile:
    """An image to look at.

    Attributes:
        id: of it.
        place: from 1, on the page.
        rank: by predicted loss, from 1; 0 where it is not known.
        score: predicted loss; NaN likewise.
        guess: name of the class that the model takes it for; "" for none.
        confidence: of the guess, 0 to 1; NaN for none.
        mark: what is known of it.
        failure: why it cannot be shown, where that was found out before.
    """

    id: str
    place: int
    rank: int
    score: float
    guess: str
    confidence: float
    mark: Mark
    failure: str


@dataclass(frozen=True)
class Labeling:
    """How a label is given.

    Attributes:
        classes: names that the model knows; empty where labels are no class names.
        chosen: whether they are few enough to be chosen from a list.
        required: whether an image is not labeled without a class.
    """

    classes: tuple[str, ...]
    chosen: bool
    required: bool


class Viewer:
    """Looks at a daemon for the pages; what is costly to find it keeps.

    Attributes:
        thumbnails: of images that were looked at.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.held = Held(daemon.catalog, daemon.selections)
        self.rate = Rate()
        self.thumbnails = Thumbnails(daemon.settings.limits.image_pixels)

    def status(self) -> dict[str, Any]:
        """What changes from second to second, as JSON can hold it."""
        metrics = self.daemon.metrics
        return {
            "problem": self.daemon.not_ready(),
            "rate": self.rate.seen(metrics.telemetry.images),
            "queue": int(metrics.registry.get_sample_value("lloss_queue_images") or 0),
            "jobs": {
                job.pool: vars(self._progress(job)) for job in self.daemon.catalog.jobs.active()
            },
        }

    def model(self) -> dict[str, str]:
        """What serves, by heading; empty before it is loaded."""
        models = self.daemon.models
        if not models.sha256:
            return {}
        manifest = models.manifest
        classes = f"{len(manifest.classes):,}" if manifest.classes else "–"
        image = manifest.image
        return {
            "name": manifest.model,
            "task": manifest.task,
            "classes": classes,
            "input": f"{image.height}×{image.width}, {image.fit}",
            "precision": manifest.precision,
            "provider": models.provider,
            "sha256": models.sha256,
        }

    def pools(self, page: int = 1) -> list[PoolView]:
        """A page of pools, by name."""
        shown = slice((page - 1) * POOLS, page * POOLS)
        return self.daemon.catalog.pools.each(self._pool, shown)

    def pool(self, name: str) -> PoolView:
        """One.

        Raises:
            RequestError: 404.
        """
        return self._pool(self.daemon.catalog.pools.row(name))

    def labeling(self) -> Labeling:
        """How labels are given to images of the task that the model is for."""
        models, required = self.daemon.models, self.daemon.classes.required
        if not models.sha256 or not required:
            return Labeling((), False, required)
        classes = models.manifest.classes
        return Labeling(classes, 0 < len(classes) <= FEW, required)

    def ranked(self, pool: PoolView, page: int) -> tuple[list[Ranked], bool]:
        """A page of what is next, and whether there is another; none after :data:`PAGES`."""
        if page > PAGES:
            return [], False
        found = self.daemon.selections.preview(pool.name, page * PAGE + 1)
        return found[(page - 1) * PAGE : page * PAGE], len(found) > page * PAGE and page < PAGES

    def tiles(self, pool: PoolView, images: Sequence[Ranked], own: str = "") -> list[Tile]:
        """Images with all that is known of them by those whose selection is ``own``."""
        ids = [image.id for image in images]
        self._prefetch(pool, ids)
        guesses = self._guesses(pool, ids)
        marks = self.held.marks(pool.name, ids, own)
        key = self.thumbnail_key(pool.row)
        names = () if pool.outdated else self.labeling().classes
        return [
            Tile(
                image.id,
                place,
                image.rank,
                image.score,
                class_name(names, guesses.get(image.id, ScoredImage()).prediction),
                guesses.get(image.id, ScoredImage()).confidence,
                marks.get(image.id, Mark()),
                self.thumbnails.failure(key, image.id),
            )
            for place, image in enumerate(images, 1)
        ]

    def listed(self, pool: PoolView, state: ImageState, page: int) -> tuple[list[Tile], bool]:
        """A page of the images of a state, and whether there is another."""
        rows = self.daemon.catalog.images.listed(pool.name, state, (page - 1) * PAGE, PAGE + 1)
        images = [Ranked(id, math.nan, 0) for id, _ in rows[:PAGE]]
        return self.tiles(pool, images), len(rows) > PAGE

    def chart(self, pool: PoolView, shown: Iterable[float]) -> str:
        """The histogram of predicted loss as HTML, and where the shown ones lie."""
        if not pool.scored:
            return ""
        with self.daemon.pools.reading(pool.name) as (_, folder):
            spread = score_summary(folder).spread
        return histogram(spread, list(shown)) if spread else ""

    @staticmethod
    def thumbnail_key(row: PoolRow) -> str:
        """What a pool's thumbnails are kept under, until it is scored anew or its file changes."""
        file = stamp_of(PoolUri.parse(row.uri).path)
        return f"{row.name} {row.uri} {row.created} {row.scores} {file}"

    def _pool(self, row: PoolRow) -> PoolView:
        job = self.daemon.catalog.jobs.newest(row.name)
        under_way = job if job and job.state in _UNDER_WAY else None
        progress = self._progress(under_way) if under_way else None
        counted = progress.total if progress else (job.total if job else None)
        images = row.scored + row.skipped if row.scores else counted
        sha256 = self.daemon.models.sha256
        return PoolView(
            row.name,
            without_secrets(row.uri),
            images,
            self.daemon.catalog.images.counts(row.name),
            row,
            progress,
            job.error if job and job.state == "failed" else "",
            bool(job and job.resumable),
            bool(row.scores and sha256 and row.model_sha256 != sha256),
        )

    def _progress(self, job: JobRow) -> Progress:
        now, rate = self.daemon.jobs.live(job), self.daemon.jobs.rate(job)
        left = (now.total - now.done) / rate if now.total is not None and rate else None
        return Progress(now.id, now.state, now.done, now.total, rate, left)

    def _guesses(self, pool: PoolView, ids: Sequence[str]) -> Mapping[str, ScoredImage]:
        if not pool.scored:
            return {}
        with self.daemon.pools.reading(pool.name) as (_, folder):
            return score_summary(folder).images(ids)

    def _prefetch(self, pool: PoolView, ids: Sequence[str]) -> None:
        """Find all at once what the thumbnails will be asked for one by one."""
        with contextlib.suppress(LlossError):  # the thumbnails will tell
            self.daemon.pools.get(pool.name).items(ids)
