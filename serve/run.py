"""Score a whole pool into a scores folder; killed and started again, it ends the same."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lloss.errors import ImageError, InterruptedRunError, ScoresError
from lloss.files import sweep
from lloss.pools import Item, Pool, RestPool
from lloss.scores import ScoresFolder

from .scorer import Scorer, Scores, joined

PART = 10_000
"""Items a part: what a killed run does again at most, and what is held in memory of the outputs."""


@dataclass(frozen=True)
class ScoreReport:
    """What became of a pool's images."""

    scored: int
    skipped: int
    resumed: int
    """Items that an earlier, interrupted run had done."""


def score_pool(
    scorer: Scorer,
    pool: Pool,
    out: Path,
    *,
    exclude: Collection[str] = (),
    part_size: int = PART,
    fail_fast: bool = False,
) -> ScoreReport:
    """Score every item of a pool that is not excluded.

    A folder that an interrupted run of the same model, pool and settings left is finished; one
    that is complete is left alone.

    Raises:
        ScoresError: the folder holds another run, or the pool changed under it, or no image at
            all could be read.
        ImageError: an image cannot be read and ``fail_fast`` is on.
        InterruptedRunError: Ctrl-C; the finished parts stay.
    """
    folder = ScoresFolder(out)
    settings = _settings(scorer, pool, exclude, part_size)
    before = folder.run()
    rest = RestPool(pool, exclude) if exclude else pool
    if before is not None:
        _check_same(folder, before, settings)
        if before["state"] == "complete":
            return _checked(folder, _verified(folder, rest, part_size))
    sweep(out)
    if before is None and out.exists() and any(out.iterdir()):
        raise ScoresError(f"{out}: is not empty and holds no scores; choose another -o")
    folder.write_run({"state": "running", **settings})
    try:
        report = _score_parts(scorer, rest, folder, part_size, fail_fast)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"{out}: interrupted, {len(folder.parts())} parts are done; "
            "run the same command again to go on"
        ) from None
    folder.write_skipped()
    counts = {"scored": report.scored, "skipped": report.skipped}
    folder.write_run({"state": "complete", **settings, **counts})
    return _checked(folder, report)


def _checked(folder: ScoresFolder, report: ScoreReport) -> ScoreReport:
    if report.skipped and not report.scored:
        id, reason = folder.skipped()[0]
        raise ScoresError(
            f"{folder.path}: none of the {report.skipped} images could be read "
            f"(the first, {id!r}: {reason})"
        )
    return report


def _settings(
    scorer: Scorer, pool: Pool, exclude: Collection[str], part_size: int
) -> dict[str, Any]:
    """All that decides the bytes of the parts."""
    left_out = hashlib.sha256("\0".join(sorted(exclude)).encode("utf-8", "surrogateescape"))
    return {
        "model_sha256": scorer.engine.sha256,
        "pool": pool.uri,
        "excluded": len(exclude),
        "excluded_sha256": left_out.hexdigest(),
        "provider": scorer.engine.provider,
        "precision": scorer.manifest.precision,
        "batch_size": scorer.batch_size,
        "part_size": part_size,
    }


def _check_same(folder: ScoresFolder, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        old = before.get(name)
        if name == "pool" and os.path.realpath(str(old)) == os.path.realpath(str(value)):
            continue  # the same one by another path
        if old != value:
            raise ScoresError(
                f"{folder.path}: was begun with {name} = {old!r}, now it is "
                f"{value!r}; score into another folder, or go back to the old value"
            )


def _score_parts(
    scorer: Scorer, pool: Pool, folder: ScoresFolder, part_size: int, fail_fast: bool
) -> ScoreReport:
    items = iter(pool)
    before = _verify(folder, items, part_size)
    scored, skipped, number = before.scored, before.skipped, len(folder.parts())
    total = pool.count()
    done = scored + skipped
    with tqdm(total=total, initial=done, unit="img", desc="score", disable=None) as bar:
        while chunk := list(itertools.islice(items, part_size)):
            part = _score_part(scorer, chunk, bar, fail_fast)
            folder.write_part(number, part.table(), part.skipped)
            scored, skipped, number = scored + len(part), skipped + len(part.skipped), number + 1
    return ScoreReport(scored, skipped, done)


def _verified(folder: ScoresFolder, pool: Pool, part_size: int) -> ScoreReport:
    """What a complete folder holds, if the pool still is the one that was scored."""
    items = iter(pool)
    report = _verify(folder, items, part_size)
    added = next(items, None)
    if added is not None:
        raise _changed(folder, f"{added.id!r} is new")
    return report


def _verify(folder: ScoresFolder, items: Iterator[Item], part_size: int) -> ScoreReport:
    """Hold the parts that are there against the items they were made of, and use those up."""
    scored = skipped = 0
    for number in range(len(folder.parts())):
        ids, failed = folder.part_ids(number)
        held = set(ids) | {id for id, _ in failed}
        chunk = [item.id for item in itertools.islice(items, part_size)]
        if held != set(chunk):
            new, gone = sorted(set(chunk) - held), sorted(held - set(chunk))
            raise _changed(folder, f"{new[0]!r} is new or moved" if new else f"{gone[0]!r} is gone")
        scored, skipped = scored + len(ids), skipped + len(failed)
    return ScoreReport(scored, skipped, scored + skipped)


def _changed(folder: ScoresFolder, what: str) -> ScoresError:
    return ScoresError(
        f"{folder.path}: the pool changed since it was scored ({what}); "
        "remove that folder to score again, or choose another"
    )


def _score_part(scorer: Scorer, chunk: list[Item], bar: Any, fail_fast: bool) -> Scores:
    return joined(list(_watched(scorer.items(chunk), bar, fail_fast)), scorer.manifest)


def _watched(batches: Iterator[Scores], bar: Any, fail_fast: bool) -> Iterator[Scores]:
    for batch in batches:
        if fail_fast and batch.skipped:
            id, reason = batch.skipped[0]
            raise ImageError(f"{id!r}: {reason}; without --fail-fast it would be skipped")
        bar.update(len(batch) + len(batch.skipped))
        yield batch
