"""Score a pool on a cluster of Ray: its actors score whole parts, this process plans and checks.

::

    missing parts ─▶ ray.data ─▶ [actors: list, read, decode, run, write a part] ─▶ counts ─▶ checks

A part is the unit of work because its bytes are those of a local run: the last bit of a score may
depend on the batch that an image is in. What has been written is the checkpoint.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.data
from lloss.serve.scoring.batch.ray_actor import (
    Attempts,
    PartActor,
    PartWork,
    PoolSource,
    ScorerSpec,
)
from lloss.serve.scoring.batch.scoring_run import (
    PART,
    EngineFacts,
    ScoreReport,
    ScoringRun,
    ids_digest,
)
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lloss.errors import EngineError, LlossError, ScoresError, SettingsError
from lloss.pools import Pool
from lloss.runtime.cpu_count import usable_cores
from lloss.runtime.providers import parse_provider
from lloss.scores.scores_folder import ScoresFolder
from lloss.scores.shard_spec import Shard
from lloss.text.progress import progress

log = logging.getLogger(__name__)

_PATIENCE = 20.0
"""Seconds to wait for a cluster's answer."""

_IDLE = 0.1
"""Share of the actors' time that parts of equal length may leave idle without a word."""


@dataclass(frozen=True)
class RayOptions:
    """Where and how to score.

    Attributes:
        address: of a cluster; by default that of ``RAY_ADDRESS``, or a new Ray on this machine.
        actors: number of actors; 0 for one per GPU or else per ``threads`` cores.
        provider: as of :class:`.Scorer`, without a GPU's number: Ray assigns GPUs.
        batch_size: as of :class:`.Scorer`.
        threads: of an actor; 0 for 1 on the CPU, and for a GPU its share of its machine's cores.
        readers: as of :class:`.Scorer`.
    """

    address: str = ""
    actors: int = 0
    provider: str = "auto"
    batch_size: int = 0
    threads: int = 0
    readers: int = 32


def score_on_ray(
    model: Path,
    source: PoolSource,
    pool: Pool,
    out: Path | str,
    *,
    options: RayOptions = RayOptions(),
    part_size: int = PART,
    shard: Shard = Shard(),  # noqa: B008  frozen
    announce: Callable[[EngineFacts, int], None] = lambda facts, actors: None,
) -> ScoreReport:
    """Score a pool, or a shard of it, as :func:`.score_pool` does: the same files, bit for bit.

    Args:
        model: path of ``model.onnx`` on this machine.
        source: the pool, as workers open it; they must see the same images.
        pool: the same one, opened here, with the excluded images.
        out: the scores folder, which all machines share, or its URL.
        options: where and how.
        part_size: items per part.
        shard: of the pool.
        announce: called before the first part with what computes, and the number of actors.

    Raises:
        SettingsError: no cluster is there, or it lacks what the options ask for.
        EngineError: a worker cannot run the model, or workers differ, or Ray gave up.
        ScoresError: as of :func:`.score_pool`; or a part is not where this process looks for it.
        PoolError: the pool cannot be read, or workers see other images.
        InterruptedRunError: Ctrl-C; the finished parts stay.
    """
    name, number = parse_provider(options.provider)
    if number:
        raise SettingsError(
            f"provider {options.provider!r}: give {name}, without a number: Ray assigns GPUs"
        )
    folder = ScoresFolder(out)
    folder.run()  # raises where the folder is damaged, before anything is made
    with _connected(options.address):
        workers = _Workers.of(options, name)
        content = ray.put(model.read_bytes())
        spec = ScorerSpec(
            str(model.absolute()), content, name, options.batch_size, workers.threads,
            options.readers,
        )  # fmt: skip
        facts = _asked(spec, workers)
        announce(facts, workers.count)
        images = source.without_excluded(pool)
        run = ScoringRun(
            facts.engine, images, source.exclude, folder, part_size, facts.batch_size, shard
        )
        where = out if isinstance(out, str) else str(out.absolute())
        work = PartWork(
            spec, ray.put(source), where, part_size, facts.batch_size, facts.engine,
            images.fingerprint(), _attempts(),
        )  # fmt: skip
        busy = ScoresError(f"{out}: another lloss score is at work in this folder; wait for it")
        with folder.files.locked(busy):
            return run.score(_RayParts(run, work, workers).score)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine; leave one alone that is connected."""
    if ray.is_initialized():
        yield
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    asked = address or os.environ.get("RAY_ADDRESS", "")
    where: dict[str, Any] = {"address": asked} if asked else {}
    if not asked:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        where = {"address": "local", "num_cpus": usable_cores(), "include_dashboard": False}
    try:
        _check_reachable(asked)
        ray.init(**where, logging_level="warning", log_to_driver=False)
    except Exception as error:  # Ray raises the bare class where its own node does not start
        reason = " ".join(str(error).split())
        raise SettingsError(f"--ray-address {asked or 'none'}: {reason}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray replaced it
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError where nothing listens at ``HOST:PORT``: Ray would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


@dataclass(frozen=True)
class _Workers:
    """How many actors, and what Ray reserves for each."""

    count: int
    threads: int
    resources: Mapping[str, float]

    @classmethod
    def of(cls, options: RayOptions, provider: str) -> _Workers:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
        if provider in ("cuda", "tensorrt") and not with_gpu:
            raise SettingsError(f"--provider {provider}: no machine of the cluster has a GPU")
        if provider != "cpu" and with_gpu:
            shares = [int(node.get("CPU", 0) // node["GPU"]) for node in with_gpu]
            threads, gpus = options.threads or max(1, min(shares)), {"num_gpus": 1.0}
            slots = sum(
                min(int(node["GPU"]), int(node.get("CPU", 0) // threads)) for node in with_gpu
            )
        else:
            threads, gpus = options.threads or 1, {}
            slots = sum(int(node.get("CPU", 0) // threads) for node in nodes)
        if not slots:
            more = " and a GPU; give fewer, or start Ray with more" if gpus else "; give fewer"
            raise SettingsError(
                f"--threads {threads}: no machine of the cluster has so many cores{more}"
            )
        return cls(options.actors or slots, threads, {"num_cpus": float(threads), **gpus})


def _describe(spec: ScorerSpec) -> EngineFacts | str:
    try:
        with spec.start() as scorer:
            return spec.facts(scorer)
    except LlossError as error:
        return str(error)


def _asked(spec: ScorerSpec, workers: _Workers) -> EngineFacts:
    """Ask a worker what it computes with: this process may have no GPU."""
    asked = ray.remote(_describe).options(**workers.resources).remote(spec)
    try:
        if not ray.wait([asked], timeout=_PATIENCE)[0]:
            log.warning("no worker of Ray has answered yet: the cluster may be busy; waiting")
        facts: EngineFacts | str = ray.get(asked)
    except RayError as error:
        raise _gave_up(error) from error
    if isinstance(facts, str):
        raise EngineError(f"on a worker of Ray: {facts}")
    return facts


def _attempts() -> Any:
    """Start the actor that counts attempts, on the machine whose end ends the run anyway.

    Ray itself repeats a part without end: a limit of its retries would be used up in the seconds
    that a machine is dead and not yet known to be.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Attempts).options(num_cpus=0, scheduling_strategy=here).remote()


@dataclass(frozen=True)
class _RayParts:
    """Scores a run's missing parts on a cluster."""

    run: ScoringRun
    work: PartWork
    workers: _Workers

    def score(self, before: ScoreReport, missing: Iterator[int]) -> ScoreReport:
        """Score the missing parts; check each that comes back."""
        planned = self._planned(missing)
        scored, skipped = before.scored, before.skipped
        total = before.resumed + sum(count for count, _ in planned.values())
        if not planned:
            return before
        if not before.resumed:  # in a new folder all of it would be scored again
            self._note_idle(len(planned))
        with progress(total=total, initial=before.resumed, unit="images", desc="score") as bar:
            for row in self._rows(list(planned)):
                self._check(row, *planned[row["part"]])
                scored, skipped = scored + row["scored"], skipped + row["skipped"]
                bar.update(row["scored"] + row["skipped"])
        return ScoreReport(scored, skipped, before.resumed)

    def _planned(self, missing: Iterator[int]) -> dict[int, tuple[int, str]]:
        """The missing parts: how many images each has, and a digest of their ids."""
        planned: dict[int, tuple[int, str]] = {}
        ids, at = self.run.pool.ids(), 0
        for number in missing:
            start = number * self.run.part_size
            part = list(itertools.islice(ids, start - at, start - at + self.run.part_size))
            at = start + self.run.part_size
            if not part:
                return planned
            planned[number] = len(part), ids_digest(part)
        return planned

    def _rows(self, parts: list[int]) -> Iterator[dict[str, Any]]:
        count = min(self.workers.count, len(parts))
        # A part that waits for one actor while another one is idle would be late.
        pool = ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1)
        numbers = ray.data.from_items([{"part": n} for n in parts], override_num_blocks=len(parts))
        scored = numbers.map_batches(
            PartActor,
            fn_constructor_args=(self.work,),
            batch_size=1,
            compute=pool,
            **self.workers.resources,
        )
        try:
            yield from scored.iter_rows()
        except RayError as error:
            raise _gave_up(error) from error

    def _note_idle(self, parts: int) -> None:
        """Log where the parts keep too few of the actors busy: nothing else would show it."""
        actors = self.workers.count
        idle = 1 - parts / (-(-parts // actors) * actors)
        if idle > _IDLE:
            log.warning(
                "%d part%s for %d actors: about %.0f %% of their time is idle; a smaller "
                "--part-size in a new folder makes more parts",
                parts, "s" * (parts != 1), actors, 100 * idle,
            )  # fmt: skip

    def _check(self, row: Mapping[str, Any], count: int, digest: str) -> None:
        """Raise for a part that failed, is of other images, or is not in the folder."""
        if row["error"]:
            raise EngineError(f"on a worker of Ray: {row['error']}")
        folder, number = self.run.folder, int(row["part"])
        if row["ids"] != digest:
            raise ScoresError(
                f"{folder}: a worker of Ray sees other images in part {number} of "
                f"{self.run.pool.uri} ({row['scored'] + row['skipped']}, not these {count}); "
                "the pool must be the same on all machines, and stay as it is"
            )
        try:
            found = folder.part_counts(number)
        except ScoresError as error:
            raise ScoresError(
                f"{folder}: part {number} is not here, so it was written on another machine; "
                "choose an -o that all machines share, such as s3://..."
            ) from error
        if found != (row["scored"], row["skipped"]):
            raise ScoresError(f"{folder}: part {number} was overwritten; choose another -o")


_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_RAISED = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): ", re.MULTILINE)
"""Begins what an exception says, below its traceback."""


def _gave_up(error: RayError) -> EngineError:
    text = _COLOR.sub("", str(error)).strip() or repr(error)
    raised = [found.start() for found in _RAISED.finditer(text)]
    reason = " ".join((text[raised[-1] :] if raised else text.rpartition("\n")[2]).split())
    return EngineError(f"Ray gave up: {reason[:300]}; run the same command again to go on")
