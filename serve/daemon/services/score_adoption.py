"""Scores that ``lloss score`` made, adopted for a pool of the daemon."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.store.records import PoolScores
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from lloss.errors import ScoresError
from lloss.pools import Pool
from lloss.pools.confinement import Confinement
from lloss.scores.scores_folder import ScoresFolder
from lloss.text.counts import counted


class _Run(BaseModel):
    """What ``run.json`` must have."""

    model_config = ConfigDict(strict=True)

    model_sha256: str
    pool_fingerprint: str
    scored: NonNegativeInt
    skipped: NonNegativeInt
    excluded: NonNegativeInt
    part_size: PositiveInt


def adopted_scores(path: Path, pool: Pool, confinement: Confinement) -> PoolScores:
    """The scores of a folder, if they are complete and of this pool; 403 or 422 otherwise.

    Reads the footers of all parts and the ids of the first, but no images.
    """
    for file in path.glob("*"):
        if not confinement.holds_path(file):
            raise RequestError(403, f"{file}: is a link that leads out of --pool-root; remove it")
    try:
        return _checked(ScoresFolder(path), pool)
    except ScoresError as error:
        raise RequestError(422, str(error)) from error


def _checked(folder: ScoresFolder, pool: Pool) -> PoolScores:
    if (folder.run() or {}).get("state") != "complete":
        folder.opened()  # raises, and says what is wrong
    try:
        run = _Run.model_validate(folder.run())
    except ValidationError as error:
        raise ScoresError(f"{folder.path}: run.json is not as lloss score writes it") from error
    folder.opened().check_whole()
    if run.pool_fingerprint != pool.fingerprint():
        raise _other(folder, pool, "its images are others")
    scored, skipped = folder.part_ids(0)
    ids = {*scored, *(id for id, _ in skipped)}
    if run.excluded:
        different = ids.difference(pool.ids())
    else:
        different = ids.symmetric_difference(islice(pool.ids(), run.part_size))
    if different:
        raise _other(folder, pool, f"{min(different)!r} is not in both")
    images, count = run.scored + run.skipped, pool.count() if pool.counted else None
    if count is not None and (count < images or (count > images and not run.excluded)):
        raise _other(folder, pool, f"{counted(count, 'image')}, the scores are of {images}")
    return PoolScores(folder.path, run.model_sha256, run.scored, run.skipped)


def _other(folder: ScoresFolder, pool: Pool, why: str) -> ScoresError:
    return ScoresError(
        f"{folder.path}: are not the scores of {pool.uri} as it is now ({why}); score it again"
    )
