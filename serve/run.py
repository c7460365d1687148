"""Score a whole pool into a scores folder; killed and started again, it ends the same."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lloss.errors import ImageError, InterruptedRunError, ScoresError
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
    if before is not None:
        _check_same(folder, before, settings)
        if before["state"] == "complete":
            return _checked(
                folder, ScoreReport(before["scored"], before["skipped"], before["items"])
            )
    elif out.exists() and any(out.iterdir()):
        raise ScoresError(f"{out}: is not empty and holds no scores; choose another -o")
    folder.write_run({"state": "running", **settings})
    rest = RestPool(pool, exclude) if exclude else pool
    done = len(folder.parts())
    try:
        scored, skipped, parts = _score_parts(scorer, rest, folder, done, part_size, fail_fast)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"{out}: interrupted, {len(folder.parts())} parts are done; "
            "run the same command again to go on"
        ) from None
    folder.write_skipped(parts)
    counts = {"items": scored + skipped, "scored": scored, "skipped": skipped, "parts": parts}
    folder.write_run({"state": "complete", **settings, **counts})
    return _checked(folder, ScoreReport(scored, skipped, min(done * part_size, scored + skipped)))


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
        if before.get(name) != value:
            raise ScoresError(
                f"{folder.path}: was begun with {name} = {before.get(name)!r}, now it is "
                f"{value!r}; score into another folder, or go back to the old value"
            )


def _score_parts(
    scorer: Scorer, pool: Pool, folder: ScoresFolder, done: int, part_size: int, fail_fast: bool
) -> tuple[int, int, int]:
    scored = skipped = number = 0
    items = iter(pool)
    total = pool.count()
    before = min(done * part_size, total)
    with tqdm(total=total, initial=before, unit="img", desc="score", disable=None) as bar:
        while chunk := list(itertools.islice(items, part_size)):
            if number < done:
                rows, failed = _check_part(folder, number, chunk)
            else:
                part = _score_part(scorer, chunk, bar, fail_fast)
                folder.write_part(number, part.table(), part.skipped)
                rows, failed = len(part), len(part.skipped)
            scored, skipped, number = scored + rows, skipped + failed, number + 1
    if number < done:
        raise ScoresError(
            f"{folder.path}: holds {done} parts, but the pool now has images for {number} only; "
            "it changed: remove that folder to score again, or choose another"
        )
    return scored, skipped, number


def _score_part(scorer: Scorer, chunk: list[Item], bar: Any, fail_fast: bool) -> Scores:
    return joined(list(_watched(scorer.items(chunk), bar, fail_fast)), scorer.manifest)


def _watched(batches: Iterator[Scores], bar: Any, fail_fast: bool) -> Iterator[Scores]:
    for batch in batches:
        if fail_fast and batch.skipped:
            id, reason = batch.skipped[0]
            raise ImageError(f"{id!r}: {reason}; without --fail-fast it would be skipped")
        bar.update(len(batch) + len(batch.skipped))
        yield batch


def _check_part(folder: ScoresFolder, number: int, chunk: list[Item]) -> tuple[int, int]:
    ids, skipped = folder.part_ids(number)
    held = set(ids) | {id for id, _ in skipped}
    changed = next((item.id for item in chunk if item.id not in held), None)
    if changed is not None or len(held) != len(chunk):
        detail = f" ({changed!r} is new or moved)" if changed is not None else ""
        raise ScoresError(
            f"{folder.path}: the pool changed since part {number} was scored{detail}; "
            "remove that folder to score again, or choose another"
        )
    return len(ids), len(skipped)
