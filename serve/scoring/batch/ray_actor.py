"""What an actor of Ray does: it scores whole parts and writes them where the run's scores are."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from lloss.serve.scoring.batch.part_scorer import PartScorer
from lloss.serve.scoring.batch.scoring_run import EngineFacts, RunEngine, engine_facts
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import EngineError, LlossError, PoolError
from lloss.pools import Pool, SubsetPool, open_pool
from lloss.runtime import tf32
from lloss.scores.scores_folder import ScoresFolder

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""Times that a part is begun before the run ends."""


@dataclass(frozen=True)
class PoolSource:
    """A pool that every machine can open.

    Attributes:
        uri: absolute.
        leave_out: folders whose images are not of the pool.
        exclude: ids to leave out.
    """

    uri: str
    leave_out: Sequence[Path] = ()
    exclude: frozenset[str] = frozenset()

    def open(self) -> Pool:
        """Open it without the excluded images."""
        return self.without_excluded(open_pool(self.uri, leave_out=self.leave_out))

    def without_excluded(self, pool: Pool) -> Pool:
        """Leave the excluded images out of the pool, which was opened."""
        return SubsetPool(pool, self.exclude) if self.exclude else pool


@dataclass(frozen=True)
class ScorerSpec:
    """How a worker makes its scorer.

    Attributes:
        model: path on the driver's machine.
        content: the file's bytes, in Ray's object store: other machines need not have the file.
    """

    model: str
    content: Any
    provider: str
    batch_size: int
    threads: int
    readers: int

    def start(self) -> Scorer:
        """Load the model in this process; ModelFileError or EngineError where that fails."""
        tf32.forbid()
        with tempfile.TemporaryDirectory(prefix="lloss-") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(ray.get(self.content))
            return Scorer(path, self.provider, self.batch_size, self.threads, self.readers)

    def facts(self, scorer: Scorer) -> EngineFacts:
        """What the scorer computes with, by the driver's name of the model."""
        facts = engine_facts(scorer)
        return replace(facts, engine=replace(facts.engine, model=self.model))


@dataclass(frozen=True)
class PartWork:
    """All that an actor needs.

    ``source`` and ``spec.content`` are in Ray's object store, ``attempts`` is an actor.
    """

    spec: ScorerSpec
    source: Any
    out: str
    part_size: int
    batch_size: int
    engine: RunEngine
    fingerprint: str
    attempts: Any


class Attempts:
    """Counts how often each part was begun; an actor of its own holds it."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, part: int) -> int:
        """Count one more attempt, and return the number."""
        self._begun[part] += 1
        return self._begun[part]


class PartActor:
    """Scores the parts whose numbers Ray Data passes to it, one call a part.

    What fails comes back as text in the column ``error``: of an exception Ray would keep the
    traceback and not the reason.
    """

    def __init__(self, work: PartWork) -> None:
        self.folder, self._attempts, self._failure = ScoresFolder(work.out), work.attempts, ""
        try:
            self.parts = self._parts(work)
        except Exception as error:
            self._failure = _reason(error)

    def _parts(self, work: PartWork) -> PartScorer:
        scorer = work.spec.start()
        engine = work.spec.facts(scorer).engine
        if engine != work.engine:
            raise EngineError(
                f"a worker computes with {engine.identity} and {dict(engine.versions)}, another "
                f"one with {work.engine.identity} and {dict(work.engine.versions)}: give "
                "--provider, or install the same versions on all machines"
            )
        pool = ray.get(work.source).open()
        if pool.fingerprint() != work.fingerprint:
            raise PoolError(f"{pool.uri}: holds other images on another machine")
        return PartScorer(scorer, pool, work.part_size, work.batch_size)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Score and write a part; return its counts and the digest of its ids."""
        number, scored, skipped, digest, failure = int(batch["part"][0]), 0, 0, "", self._failure
        if not failure:
            try:
                self._begin(number)
                part = self.parts.score(number)
                scores, digest = part.scores, part.ids_sha256
                scored, skipped = len(scores), len(scores.skipped)
                self.folder.write_part(number, scores.table(), scores.skipped)
            except Exception as error:
                failure = _reason(error)
        row = {"part": number, "scored": scored, "skipped": skipped}
        texts = {"ids": digest, "error": failure}
        return {name: np.array([value]) for name, value in {**row, **texts}.items()}

    def _begin(self, part: int) -> None:
        """Raise an EngineError for a part whose actors died each time."""
        attempt = ray.get(self._attempts.begin.remote(part))
        if attempt > ATTEMPTS:
            raise EngineError(
                f"part {part} was begun {ATTEMPTS} times, and each time the actor died: is there "
                "enough memory? Ray's logs say why; fewer --ray-actors need less"
            )


def _reason(error: Exception) -> str:
    """One line; what no user causes goes into Ray's logs too, with its traceback."""
    if isinstance(error, LlossError):
        return str(error)
    log.error("an actor failed", exc_info=error)
    return " ".join(f"{type(error).__name__}: {error}".split())
