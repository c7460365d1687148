"""Scores that ``lloss score`` made, adopted for a pool of the daemon."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.store.records import PoolScores

from lloss.errors import ScoresError
from lloss.pools import Pool
from lloss.pools.confinement import Confinement
from lloss.scores.scores_folder import ScoresFolder

_SAMPLE = 100
"""Ids that are looked up in the pool if only some of its images were scored."""


def adopted_scores(path: Path, pool: Pool, confinement: Confinement) -> PoolScores:
    """The scores of a folder, if they are complete and of this pool; 403 or 422 otherwise.

    Reads the footers of all parts and the ids of the first, but no images.
    """
    try:
        return _checked(ScoresFolder(path), pool, confinement)
    except ScoresError as error:
        raise RequestError(422, str(error)) from error


def _checked(folder: ScoresFolder, pool: Pool, confinement: Confinement) -> PoolScores:
    for file in folder.path.glob("*"):
        if not confinement.holds_path(file):
            raise RequestError(403, f"{file}: is a link that leads out of --pool-root; remove it")
    run = folder.run() or {}
    model = run.get("model_sha256")
    numbers = [run.get(name) for name in ("scored", "skipped", "excluded", "part_size")]
    if run.get("state") != "complete":
        folder.opened()  # raises, and says what is wrong
    valid = all(type(number) is int and number >= 0 for number in numbers)
    if not (isinstance(model, str) and valid and numbers[-1]):
        raise ScoresError(f"{folder.path}: run.json is not as lloss score writes it")
    scored, skipped, excluded, part_size = map(int, map(str, numbers))
    folder.opened().check_whole()
    if run.get("pool_fingerprint") != pool.fingerprint():
        raise _other(folder, pool, "its images are others")
    _check_ids(folder, pool, excluded, part_size)
    if pool.counted:
        count = pool.count()
        if count < scored + skipped or (not excluded and count != scored + skipped):
            raise _other(folder, pool, f"{count} images, the scores are of {scored + skipped}")
    return PoolScores(folder.path, model, scored, skipped)


def _check_ids(folder: ScoresFolder, pool: Pool, excluded: int, part_size: int) -> None:
    """Compare the first part's ids with the pool's first, or look some up if any were excluded."""
    scored, skipped = folder.part_ids(0)
    ids = [*scored, *(id for id, _ in skipped)]
    if excluded:
        sample = set(ids[:_SAMPLE])
        different = sample - {id for id in pool.ids() if id in sample}
    else:
        different = set(ids) ^ set(islice(pool.ids(), part_size))
    if different:
        raise _other(folder, pool, f"{min(different)!r} is not in both")


def _other(folder: ScoresFolder, pool: Pool, why: str) -> ScoresError:
    return ScoresError(
        f"{folder.path}: are not the scores of {pool.uri} as it is now ({why}); score it again"
    )
