"""Score a whole pool into a scores folder; killed and started again, it ends the same."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import os
import sys
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lloss.serve.scoring.result import Scores, joined
from lloss.serve.scoring.scorer import Scorer
from tqdm import tqdm

from lloss.errors import (
    ImageError,
    InterruptedRunError,
    LlossError,
    OtherRunError,
    ScoresError,
    SettingsError,
)
from lloss.files import explained, locked, sweep
from lloss.pools import Pool, SubsetPool, unique_ids
from lloss.scores.scores_folder import POOL_IDS, ScoresFolder
from lloss.scores.shard_spec import Shard

PART = 10_000
"""Items a part: what a killed run does again at most, and what is held in memory of the outputs."""


@dataclass(frozen=True)
class ScoreReport:
    """What became of a pool's images."""

    scored: int
    skipped: int
    resumed: int
    """Items that an earlier, interrupted run had done."""


class Progress(Protocol):
    """Who follows a run; all calls come from the thread that scores."""

    def begin(self, done: ScoreReport, total: Callable[[], int | None]) -> None:
        """The first batch comes.

        Args:
            done: what an earlier run did.
            total: counts the images to score, those of the earlier run too; None where that is
                not cheap. It may list the pool.
        """

    def batch(self, scores: Scores) -> None:
        """A batch was scored, but for the images in it that could not be read.

        Raises:
            InterruptedRunError: the run shall end here; the finished parts stay.
        """

    def end(self) -> None:
        """No further batch comes, for whatever reason."""


def score_pool(
    scorer: Scorer,
    pool: Pool,
    out: Path,
    *,
    exclude: Collection[str] = (),
    part_size: int = PART,
    fail_fast: bool = False,
    shard: Shard = Shard(),  # noqa: B008  frozen
    batch_size: int = 0,
    progress: Progress | None = None,
) -> ScoreReport:
    """Score every item of a pool, or of a shard of it, that is not excluded.

    A folder that an interrupted run of the same model, pool and settings left is finished; one
    that is complete is left alone.

    Args:
        scorer: what scores.
        pool: opened.
        out: the folder, made when it is not there.
        exclude: ids to leave out.
        part_size: items a part.
        fail_fast: whether to stop at the first image that cannot be read.
        shard: of the pool.
        batch_size: images a run of the engine, at most the scorer's; 0 for that.
        progress: who follows; by default a bar, where there is a terminal.

    Raises:
        SettingsError: a batch size over the scorer's.
        ScoresError: the folder holds another run, or the pool changed under it, or no image at
            all could be read.
        PoolError: the pool cannot be read on, or an id comes twice in it.
        ImageError: an image cannot be read and ``fail_fast`` is on.
        InterruptedRunError: Ctrl-C; the finished parts stay.
    """
    folder = ScoresFolder(out)
    batch_size = batch_size or scorer.batch_size
    if not 0 < batch_size <= scorer.batch_size:
        raise SettingsError(f"batch_size = {batch_size}: give 1 to {scorer.batch_size}")
    settings = _settings(scorer, pool, exclude, part_size, batch_size, shard)
    rest = SubsetPool(pool, exclude) if exclude else pool
    followed = progress or _Bar()
    run = _PoolRun(scorer, rest, folder, part_size, batch_size, shard, fail_fast, followed)
    folder.run()  # says what is wrong with it, before anything is made
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(error, out) from error
    busy = ScoresError(f"{out}: another lloss score is at work in this folder; wait for it")
    try:
        with locked(out, busy):
            return run.into(settings)
    except LlossError:
        with contextlib.suppress(OSError):
            out.rmdir()  # where nothing came into it
        raise


def _settings(
    scorer: Scorer,
    pool: Pool,
    exclude: Collection[str],
    part_size: int,
    batch_size: int,
    shard: Shard,
) -> dict[str, Any]:
    """All that decides the bytes of the parts."""
    left_out = hashlib.sha256(json.dumps(sorted(exclude)).encode())
    return {
        "model_sha256": scorer.engine.sha256,
        "pool": pool.uri,
        "pool_fingerprint": pool.fingerprint(),
        "excluded": len(exclude),
        "excluded_sha256": left_out.hexdigest(),
        **scorer.engine.identity(),
        "precision": scorer.manifest.precision,
        "batch_size": batch_size,
        "part_size": part_size,
        **_versions(),
        **({"shard": str(shard)} if shard.count > 1 else {}),
    }


def _check_same(folder: ScoresFolder, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name in dict.fromkeys((*now, "shard")):
        old, value = before.get(name), now.get(name)
        if name == "pool" and os.path.realpath(str(old)) == os.path.realpath(str(value)):
            continue  # the same one by another path
        if name == "pool_fingerprint" and old != value:
            raise _changed(folder, "its images are others than before")
        if old != value:
            raise OtherRunError(
                f"{folder.path}: was begun with {name} = {old!r}, now it is "
                f"{value!r}; score into another folder, or go back to the old value"
            )


def _changed(folder: ScoresFolder, what: str) -> ScoresError:
    return ScoresError(
        f"{folder.path}: the pool changed since it was scored ({what}); "
        "remove that folder to score again, or choose another"
    )


def _versions() -> dict[str, str]:
    """Of the packages that decode, compute and write; both wheels of onnxruntime are one."""
    found = {}
    for name in ("onnxruntime", "onnxruntime-gpu", "pillow", "pyarrow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name.removesuffix("-gpu")] = importlib.metadata.version(name)
    return found


@dataclass(frozen=True)
class _PoolRun:
    """A pool on its way into a folder."""

    scorer: Scorer
    pool: Pool
    folder: ScoresFolder
    part_size: int
    batch_size: int
    shard: Shard
    fail_fast: bool
    progress: Progress

    def into(self, settings: dict[str, Any]) -> ScoreReport:
        """Fill the folder, or finish or check what is there already."""
        before = self.folder.run()
        if before is not None:
            _check_same(self.folder, before, settings)
            if before["state"] == "complete":
                return self.checked(self.verified(to_the_end=True))
        path = self.folder.path
        sweep(path)
        if before is None and any(path.iterdir()):
            raise ScoresError(f"{path}: is not empty and holds no scores; choose another -o")
        if not (self.pool.unique or self.pool.streamed):
            for _ in unique_ids(self.pool):
                pass
        self.folder.write_run({"state": "running", **settings})
        try:
            report = self.through()
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"{path}: interrupted, {len(self.folder.parts())} parts are done; "
                "run the same command again to go on"
            ) from None
        if self.pool.streamed and not self.pool.unique:
            self.folder.check_unique()
        self.folder.write_skipped()
        counts: dict[str, Any] = {"scored": report.scored, "skipped": report.skipped}
        passed = self.pool.passed_over()
        if passed and passed.as_dict():
            counts["passed_over"] = passed.as_dict()
        if self.shard.count > 1 and not settings["pool_fingerprint"]:
            counts[POOL_IDS] = self.pool_ids()
        self.folder.write_run({"state": "complete", **settings, **counts})
        return self.checked(report)

    def pool_ids(self) -> str:
        """A digest of the pool's ids in their order: other shards must have scored that pool."""
        digest = hashlib.sha256()
        for id in self.pool.ids():
            digest.update(repr(id).encode("utf-8", "backslashreplace") + b"\n")
        return digest.hexdigest()

    def checked(self, report: ScoreReport) -> ScoreReport:
        """The report, unless nothing at all could be read."""
        if report.skipped and not report.scored:
            id, reason = self.folder.skipped()[0]
            raise ScoresError(
                f"{self.folder.path}: none of the {report.skipped} images could be read "
                f"(the first, {id!r}: {reason})"
            )
        return report

    def verified(self, to_the_end: bool = False) -> ScoreReport:
        """What the parts hold that are there, if the pool still has these very images.

        Args:
            to_the_end: whether there may be no further image.
        """
        scored = skipped = position = 0
        ids = self.pool.ids()
        numbers = self.folder.part_numbers()
        for number in numbers:
            start = number * self.part_size
            chunk = list(itertools.islice(ids, start - position, start - position + self.part_size))
            position = start + self.part_size
            rows, failed = self.folder.part_ids(number)
            held = set(rows) | {id for id, _ in failed}
            if held != set(chunk):
                new, gone = sorted(set(chunk) - held), sorted(held - set(chunk))
                what = f"{new[0]!r} is new or moved" if new else f"{gone[0]!r} is gone"
                raise _changed(self.folder, what)
            scored, skipped = scored + len(rows), skipped + len(failed)
        if to_the_end:
            start = self.shard.part(len(numbers)) * self.part_size
            added = next(itertools.islice(ids, max(0, start - position), None), None)
            if added is not None:
                raise _changed(self.folder, f"{added!r} is new")
        return ScoreReport(scored, skipped, scored + skipped)

    def through(self) -> ScoreReport:
        """Score what is not in the folder yet."""
        done = len(self.folder.part_numbers())
        before = self.verified()
        scored, skipped = before.scored, before.skipped
        with (
            self._followed(before),
            _Writer(self) as writer,
            contextlib.closing(self._batches(done)) as scored_batches,
        ):
            for number, batches in itertools.groupby(scored_batches, self._part_of):
                part = list(batches)
                scored += sum(len(batch) for batch in part)
                skipped += sum(len(batch.skipped) for batch in part)
                writer.write(number, part)
        return ScoreReport(scored, skipped, before.resumed)

    @contextlib.contextmanager
    def _followed(self, before: ScoreReport) -> Iterator[None]:
        self.progress.begin(before, self._total)
        try:
            yield
        finally:
            self.progress.end()

    def _total(self) -> int | None:
        if not self.pool.counted:
            return None
        return self.shard.items(self.pool.count(), self.part_size)

    def _part_of(self, batch: Scores) -> int:
        return batch.start // self.part_size

    def _batches(self, done: int) -> Generator[Scores]:
        ranges = self._ranges(self.shard.parts(done))
        with contextlib.closing(self.scorer.ranges(self.pool, ranges)) as batches:
            for batch in batches:
                if self.fail_fast and batch.skipped:
                    id, reason = batch.skipped[0]
                    raise ImageError(f"{id!r}: {reason}; without --fail-fast it would be skipped")
                self.progress.batch(batch)
                yield batch

    def _ranges(self, parts: Iterable[int]) -> Iterator[range]:
        """Batches that never reach over the end of a part: a part is the same however it came."""
        size = self.batch_size
        for number in parts:
            start = number * self.part_size
            end = start + self.part_size
            yield from (range(at, min(at + size, end)) for at in range(start, end, size))


class _Bar:
    """A bar in a terminal, and nothing elsewhere."""

    def begin(self, done: ScoreReport, total: Callable[[], int | None]) -> None:
        seen = total() if sys.stderr.isatty() else None  # else nobody sees the share
        self._bar = tqdm(total=seen, initial=done.resumed, unit="img", desc="score", disable=None)

    def batch(self, scores: Scores) -> None:
        self._bar.update(len(scores) + len(scores.skipped))

    def end(self) -> None:
        self._bar.close()


class _Writer:
    """Writes a part while the next one is scored."""

    def __init__(self, run: _PoolRun) -> None:
        self._run = run
        self._thread = ThreadPoolExecutor(1, "lloss-write")
        self._last: Future[None] | None = None

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            self._thread.shutdown()

    def write(self, number: int, batches: list[Scores]) -> None:
        """Begin to write a part, when the one before is written; the list is emptied meanwhile.

        Raises:
            LlossError: the one before could not be written, such as for a full disk.
        """
        self._wait()
        self._last = self._thread.submit(self._write, number, batches)

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()

    def _write(self, number: int, batches: list[Scores]) -> None:
        with self._run.scorer.telemetry.timed("write"):
            part = joined(batches, self._run.scorer.manifest)
            batches.clear()
            self._run.folder.write_part(number, part.table(), part.skipped)
