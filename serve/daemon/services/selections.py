"""Which K are next, and who has them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.label_classes import Accepted, Classes
from lloss.serve.daemon.services.name_matching import left_out, meant, scored_of, unknown
from lloss.serve.daemon.services.pool_registry import Pools
from lloss.serve.daemon.services.preview import Best, Preview
from lloss.serve.daemon.services.scores_cache import ScoresCache
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.image_table import Answer, TakenError

from lloss.errors import LlossError, ScoresError, SelectionError, SettingsError
from lloss.scores.part_file import check_columns, opened_part
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import Selection, SelectionSettings, select
from lloss.selection.ties import tie_note
from lloss.text.clean_names import is_text

_TRIES = 5
"""Choices made anew when images were labeled or skipped while one was made."""

_KEY = 255

DIVERSE_MOST = 10_000
"""Picks of ``diverse``: their cost grows with the square, and the next choice waits for them."""


@dataclass(frozen=True)
class Ranked:
    """An image that was chosen; rank from 1."""

    id: str
    score: float
    rank: int


@dataclass(frozen=True)
class SelectionRequest:
    """What is asked for, and ids to leave out."""

    settings: SelectionSettings
    exclude: Sequence[str] = ()

    def digest(self) -> str:
        """The same for the same request, in whatever order it excludes."""
        whole = {**vars(self.settings), "exclude": sorted(set(self.exclude))}
        whole["subset"] = float(self.settings.subset)
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class HandedOut:
    """A selection that was made and is remembered.

    Attributes:
        id: of the selection.
        pool: its name.
        model_sha256: of the model whose scores decided.
        images: best first.
        expires: when those of them that are still pending become free again, Unix seconds.
        eligible: images the choice was made from.
        replayed: whether an earlier request with the same key had made it.
        unknown: ids to exclude that mean no scored image.
        by_name: ids to exclude that mean one by another name.
        notes: what to know of the choice, such as that scores tie, in lines.
    """

    id: str
    pool: str
    model_sha256: str
    images: Sequence[Ranked]
    expires: float
    eligible: int
    replayed: bool = False
    unknown: int = 0
    by_name: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Labeled:
    """What became of labels.

    Attributes:
        images: that are labeled now.
        kept: of them, that had a label and keep it, since they were given none.
        by_name: of them, that were found by a name that is not their id.
        new_classes: names that neither the model nor an earlier label knew.
    """

    images: int
    kept: int = 0
    by_name: int = 0
    new_classes: Sequence[str] = ()


@dataclass(frozen=True)
class Returned:
    """What became of images that were given back.

    Attributes:
        images: that are free now.
        others: that another selection has by now, and keeps.
        unknown: ids that are not in the pool.
    """

    images: int
    others: int
    unknown: int


class Selections:
    """Hands out images to label: no image twice at a time, none that is labeled or skipped.

    Counts in the metrics what it hands out and what it is told to be labeled.
    """

    def __init__(
        self,
        settings: ServeSettings,
        catalog: Catalog,
        pools: Pools,
        metrics: DaemonMetrics,
        classes: Classes | None = None,
    ) -> None:
        """As given; without ``classes`` every label is accepted."""
        self._settings, self._catalog, self._pools = settings, catalog, pools
        self._metrics, self._classes = metrics, classes
        self._images = catalog.images
        self._previews = ScoresCache(Preview, 16)
        self._lock = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def select(
        self,
        pool: str,
        request: SelectionRequest,
        key: str = "",
        check: Callable[[Sequence[Ranked]], None] = lambda images: None,
    ) -> HandedOut:
        """Choose K images and note them as pending.

        Args:
            pool: its name; it must have scores.
            request: what is asked for.
            key: of the caller (``Idempotency-Key``): the same key gives the same answer again, for
                a week, whatever became of the images meanwhile.
            check: raises where the images cannot be answered; then nothing is noted.

        Raises:
            RequestError: 404, 409; 422 the key was used for another request, or an id to exclude
                may mean several images.
            SettingsError: it costs too much.
            SelectionError: fewer than K are left.
        """
        _check_cost(request.settings)
        _check_texts("id", request.exclude)
        if len(key) > _KEY or not is_text(key):
            raise RequestError(422, f"the Idempotency-Key: give at most {_KEY} characters of text")
        self._catalog.pool(pool)
        if earlier := self.replayed(pool, request, key):
            check(earlier.images)
            return earlier
        with self._lock:
            alone = self._locks[pool]
        # One at a time: the second of two would find the first one's images taken, and begin anew.
        with alone:
            if earlier := self.replayed(pool, request, key):
                check(earlier.images)
                return earlier
            return self._made(pool, request, key, check)

    def replayed(self, pool: str, request: SelectionRequest, key: str) -> HandedOut | None:
        """What was handed out to the request with this key, if one is remembered; waits for nobody.

        Raises:
            RequestError: 404; 422 the key was used for another request.
        """
        earlier = self._images.answer(pool, key) if key else None
        if earlier is None:
            return None
        if earlier.request != request.digest():
            raise RequestError(
                422, f"the Idempotency-Key {key!r} was used for another request; take a new one"
            )
        handed = _unpacked(earlier.content)
        # A selection that was made while the clock stood in the future does not last until then.
        latest = self._catalog.now() + self._settings.pending_seconds
        return dataclasses.replace(handed, expires=min(handed.expires, latest))

    def preview(self, pool: str, k: int) -> list[Ranked]:
        """The best K that ``select`` would give now (or fewer), without handing them out.

        Costs little when it is asked for again, also after images were labeled.
        """
        with self._pools.reading(pool) as (_, folder):
            kept = self._previews.get(folder)
            best = kept.best()
            chosen = self._free(pool, best, k)
            for _ in range(2):  # nearly all are taken: look at those left lately, then at those now
                if len(chosen) >= k or best.whole:
                    break
                version = self._images.version(pool)
                best = kept.left(k, version, lambda: self._images.taken(pool), spent=best)
                chosen = self._free(pool, best, k)
        return [Ranked(id, score, rank) for rank, (id, score) in enumerate(chosen, 1)]

    def _free(self, pool: str, best: Best, k: int) -> list[tuple[str, float]]:
        """The first K of the best that are free, or fewer."""
        chosen: list[tuple[str, float]] = []
        for start in range(0, len(best.images), max(k, 100)):
            some = best.images[start : start + max(k, 100)]
            taken = self._images.taken_of(pool, (id for id, _ in some))
            chosen += [(id, score) for id, score in some if id not in taken]
            if len(chosen) >= k:
                break
        return chosen[:k]

    def present(self, pool: str, ids: Iterable[str]) -> set[str]:
        """Those of some ids that are of the pool, as its catalog, its scores or it itself knows.

        Raises:
            RequestError: 404 no such pool.
            PoolError: it has to be asked and cannot be read.
        """
        asked = set(filter(is_text, ids))
        unknown = asked - self._images.known(pool, asked)
        unknown -= self._pools.kept_ids(pool, unknown)  # those that a page shows, among others
        if unknown and self._catalog.pool(pool).scores is not None:
            with self._pools.reading(pool) as (_, folder):
                unknown -= scored_of(folder, unknown)
        if unknown:  # not scored, such as those that lloss score was told to leave out
            unknown -= self._pools.held_ids(pool, unknown)
        return asked - unknown

    def label(
        self,
        pool: str,
        labels: Mapping[str, str],
        accepted: Accepted = Accepted(),  # noqa: B008
    ) -> Labeled:
        """Mark images labeled; "" where the label itself is kept elsewhere.

        Raises:
            RequestError: 422 an id is not in the pool and no name of one image either, two are of
                the same image, or a label is not accepted; then none is marked.
        """
        means = meant(self._pools, pool, labels, self.present(pool, labels))
        by_name = sum(name != id for id, name in means.items())
        labels = {id: labels[name] for id, name in means.items()}
        _check_texts("label", labels.values())
        new: Sequence[str] = ()
        if self._classes is not None:
            labels = self._classes.checked(pool, labels, accepted)
            new = self._classes.new_in(pool, labels.values())
        with self._images.marking() as marks:
            kept = marks.labeled(pool, [id for id, label in labels.items() if not label])
            marked = marks.label(pool, labels)
        self._metrics.labeled(marked)
        return Labeled(marked, kept, by_name, tuple(new))

    def unlabel(self, pool: str, ids: Sequence[str]) -> int:
        """Take labels back, such as when an annotation was deleted. Others are left as they are."""
        return self._images.unlabel(pool, ids)

    def skip(self, pool: str, ids: Sequence[str]) -> int:
        """Never hand these out. Labeled ones stay labeled. Returns how many were not skipped yet.

        Raises:
            RequestError: 422 an id is not in the pool; then none is marked.
        """
        self._check_known(pool, ids)
        return self._images.skip(pool, ids)

    def give_back(self, pool: str, ids: Sequence[str], selection: str = "") -> Returned:
        """Free pending (or skipped) images for the next who asks.

        Args:
            pool: its name.
            ids: of the images; unknown ones are counted.
            selection: that handed them out: images that a later selection handed out
                again stay pending. "" frees them from any selection.
        """
        with self._images.marking() as marks:
            others = marks.elsewhere(pool, ids, selection) if selection else 0
            freed = marks.give_back(pool, ids, selection)
        asked = set(ids)
        try:
            present = self.present(pool, asked)
        except LlossError:  # the pool cannot be asked: its catalog knows what it handed out
            present = self._images.known(pool, asked)
        return Returned(freed, others, len(asked - present))

    def labels(self, pool: str) -> dict[str, str]:
        """All labels of a pool by id."""
        return self._images.labels(pool)

    def _made(
        self,
        pool: str,
        request: SelectionRequest,
        key: str,
        check: Callable[[Sequence[Ranked]], None],
    ) -> HandedOut:
        for _ in range(_TRIES):
            with self._pools.reading(pool) as (row, folder):
                _check_column(folder, request.settings)
                taken = self._images.taken(pool)
                without = left_out(folder, request.exclude)
                chosen = _chosen(folder, request.settings, taken.union(without.ids))
                tied = tie_note(folder, chosen).removeprefix("warning: ")
            handed = HandedOut(
                secrets.token_hex(8),
                pool,
                row.model_sha256 or "",
                _ranked(chosen),
                self._catalog.now() + self._settings.pending_seconds,
                chosen.eligible,
                unknown=without.unknown,
                by_name=without.by_name,
                notes=[*chosen.unusable(), *filter(None, [tied])],
            )
            check(handed.images)
            answer = Answer(request.digest(), _packed(handed)) if key else None
            pairs = [(one.id, one.score) for one in handed.images]
            try:
                self._images.hand_out(pool, handed.id, pairs, handed.expires, key, answer)
            except TakenError:
                continue
            self._metrics.selected(len(handed.images))
            return handed
        raise RequestError(503, f"the pool {pool!r} changes too fast to choose from; try again", 1)

    def _check_known(self, pool: str, ids: Iterable[str]) -> None:
        asked = dict.fromkeys(ids)
        present = self.present(pool, asked)
        if len(present) < len(asked):
            raise unknown(pool, [id for id in asked if id not in present])


def _check_cost(settings: SelectionSettings) -> None:
    if settings.strategy == "diverse" and settings.k > DIVERSE_MOST:
        raise SettingsError(
            f"k = {settings.k}: strategy diverse hands out at most {DIVERSE_MOST:,} at a time; "
            "ask for fewer, or with strategy top"
        )


def _chosen(folder: ScoresFolder, settings: SelectionSettings, exclude: set[str]) -> Selection:
    try:
        return select(folder, settings, exclude)
    except SelectionError as error:
        told = str(error).replace("pass --at-most", "ask with at_most").replace("-k", "k")
        told = told.replace("choose --strategy", "ask with strategy")
        raise SelectionError(told) from error


def _check_column(folder: ScoresFolder, settings: SelectionSettings) -> None:
    wanted = [settings.by, *(["embedding"] if settings.strategy == "diverse" else [])]
    for part in folder.parts()[:1]:
        with opened_part(part) as file:
            try:
                check_columns(part, file, wanted)
            except ScoresError as error:
                raise RequestError(422, str(error)) from error


def _check_texts(what: str, texts: Iterable[str]) -> None:
    broken = next((text for text in texts if not is_text(text)), None)
    if broken is not None:
        raise RequestError(422, f"the {what} {broken[:100]!r} is no text: it has half a character")


def _ranked(chosen: Selection) -> list[Ranked]:
    scores = chosen.scores.tolist()
    return [Ranked(id, score, n) for n, (id, score) in enumerate(zip(chosen.ids, scores), 1)]


def _packed(handed: HandedOut) -> bytes:
    whole = dict(vars(handed))
    whole["images"] = [(one.id, one.score) for one in handed.images]
    return zlib.compress(json.dumps(whole).encode(), 1)


def _unpacked(content: bytes) -> HandedOut:
    whole = json.loads(zlib.decompress(content))
    images = [Ranked(id, score, rank) for rank, (id, score) in enumerate(whole["images"], 1)]
    return HandedOut(**{**whole, "images": images, "replayed": True})
