"""A scores folder on its way: begun, checked before it is continued, and finished.

What scores the missing parts is not decided here: this process does, or the actors of a cluster.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lloss.serve.scoring.engine.engine import Engine
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import InterruptedRunError, OtherRunError, ScoresError
from lloss.pools import Pool, refuse_duplicates
from lloss.scores.scores_folder import POOL_IDS, ScoresFolder
from lloss.scores.shard_spec import Shard
from lloss.text.counts import counted

PART = 10_000
"""Items a part: a killed run repeats no more, and no more outputs are in memory."""


@dataclass(frozen=True)
class ScoreReport:
    """Numbers of images."""

    scored: int
    skipped: int  # could not be read
    resumed: int  # scored or skipped by an earlier, interrupted run


@dataclass(frozen=True)
class RunEngine:
    """The engine that computes a run's scores, as ``run.json`` describes it."""

    model: str  # absolute path; it does not decide whether a run may go on
    sha256: str
    identity: Mapping[str, str]
    precision: str
    versions: Mapping[str, str]

    @classmethod
    def of(cls, engine: Engine) -> RunEngine:
        """Describe an engine of this process."""
        model, identity = str(engine.path.absolute()), engine.identity()
        return cls(model, engine.sha256, identity, engine.manifest.precision, _versions())


@dataclass(frozen=True)
class EngineFacts:
    """An engine as a user is informed of it; of a cluster, that of its workers."""

    engine: RunEngine
    batch_size: int
    device: str
    note: str


def engine_facts(scorer: Scorer) -> EngineFacts:
    """Describe the engine of a scorer of this process."""
    engine = scorer.engine
    return EngineFacts(RunEngine.of(engine), engine.batch_size, engine.device, engine.note)


def part_ranges(number: int, part_size: int, batch_size: int) -> Iterator[range]:
    """Batches that end at the end of a part, so that a part has the same bytes in any run."""
    start = number * part_size
    end = start + part_size
    return (range(at, min(at + batch_size, end)) for at in range(start, end, batch_size))


def _changed(folder: ScoresFolder, what: str) -> ScoresError:
    return ScoresError(
        f"{folder}: the pool changed since it was scored ({what}); "
        "remove that folder to score again, or choose another"
    )


def _versions() -> dict[str, str]:
    """Versions of the packages that decode, compute and write; both onnxruntime wheels are one."""
    versions = {}
    for name in ("onnxruntime", "onnxruntime-gpu", "pillow", "pyarrow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name.removesuffix("-gpu")] = importlib.metadata.version(name)
    return versions


def ids_digest(ids: Iterable[str]) -> str:
    """A digest of ids in their order."""
    digest = hashlib.sha256()
    for id in ids:
        digest.update(repr(id).encode("utf-8", "backslashreplace") + b"\n")
    return digest.hexdigest()


@dataclass(frozen=True)
class ScoringRun:
    """One run into a folder; ``pool`` is without the excluded images."""

    engine: RunEngine
    pool: Pool
    exclude: Collection[str]
    folder: ScoresFolder
    part_size: int
    batch_size: int
    shard: Shard

    def score(
        self, missing_parts: Callable[[ScoreReport, Iterator[int]], ScoreReport]
    ) -> ScoreReport:
        """Fill the folder, or finish or verify its contents.

        ``missing_parts`` is given the counts of the parts that are there and the numbers of the
        others, without end; it writes these and returns all counts. A part that another run writes
        later, into a folder that cannot be locked, is written again, and so counted once.
        """
        settings = self._settings()
        before = self.folder.run()
        if before is not None:
            self._check_same(before, settings)
            if before["state"] == "complete":
                return self._checked(self._verified(self.folder.part_numbers(), complete=True))
        folder = self.folder
        folder.files.clean()
        if before is None and folder.files.names():
            raise ScoresError(f"{folder}: is not empty and holds no scores; choose another -o")
        if not self.pool.streamed:
            refuse_duplicates(self.pool)
        settings["model"] = self.engine.model
        folder.write_run({"state": "running", **settings}, new=before is None)
        try:
            done = folder.part_numbers()
            report = missing_parts(self._verified(done), folder.missing_parts(done))
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"{folder}: interrupted, "
                f"{counted(len(folder.part_numbers()), 'part is', 'parts are')} done; "
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
            counts[POOL_IDS] = ids_digest(self.pool.ids())  # the same in every shard
        self.folder.write_run({"state": "complete", **settings, **counts})
        return self._checked(report)

    def total(self) -> int | None:
        """Count the images of the run; None where that is not cheap."""
        return self.shard.items(self.pool.count(), self.part_size) if self.pool.counted else None

    def _settings(self) -> dict[str, Any]:
        """All that decides the bytes of the parts."""
        excluded = hashlib.sha256(json.dumps(sorted(self.exclude)).encode())
        return {
            "model_sha256": self.engine.sha256,
            "pool": self.pool.uri,
            "pool_fingerprint": self.pool.fingerprint(),
            "excluded": len(self.exclude),
            "excluded_sha256": excluded.hexdigest(),
            **self.engine.identity,
            "precision": self.engine.precision,
            "batch_size": self.batch_size,
            "part_size": self.part_size,
            **self.engine.versions,
            **({"shard": str(self.shard)} if self.shard.count > 1 else {}),
        }

    def _check_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        for name in dict.fromkeys((*now, "shard")):
            old, value = before.get(name), now.get(name)
            if name == "pool" and os.path.realpath(str(old)) == os.path.realpath(str(value)):
                continue  # the same pool by another path
            if name == "pool_fingerprint" and old != value:
                raise _changed(self.folder, "its images are others than before")
            if old != value:
                raise OtherRunError(
                    f"{self.folder}: was begun with {name} = {old!r}, now it is "
                    f"{value!r}; score into another folder, or go back to the old value"
                )

    def _checked(self, report: ScoreReport) -> ScoreReport:
        """Return the report, unless no image at all could be read."""
        if report.skipped and not report.scored:
            id, reason = self.folder.skipped()[0]
            raise ScoresError(
                f"{self.folder}: none of the {counted(report.skipped, 'image')} could be read "
                f"(the first, {id!r}: {reason})"
            )
        return report

    def _verified(self, numbers: Sequence[int], complete: bool = False) -> ScoreReport:
        """Count the images of finished parts, and check that the pool still has them.

        A ``complete`` run's pool must have no further image.
        """
        scored = skipped = position = 0
        ids = self.pool.ids()
        for number in numbers:
            start = number * self.part_size
            chunk = set(itertools.islice(ids, start - position, start - position + self.part_size))
            position = start + self.part_size
            rows, failed = self.folder.part_ids(number)
            part = set(rows) | {id for id, _ in failed}
            if part != chunk:
                new, gone = sorted(chunk - part), sorted(part - chunk)
                what = f"{new[0]!r} is new or moved" if new else f"{gone[0]!r} is gone"
                raise _changed(self.folder, what)
            scored, skipped = scored + len(rows), skipped + len(failed)
        if complete:
            start = self.shard.part(len(numbers)) * self.part_size
            added = next(itertools.islice(ids, max(0, start - position), None), None)
            if added is not None:
                raise _changed(self.folder, f"{added!r} is new")
        return ScoreReport(scored, skipped, scored + skipped)
