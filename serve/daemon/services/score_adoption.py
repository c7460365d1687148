"""Scores that ``lloss score`` made, taken over for a pool of the daemon."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.store.records import PoolScores

from lloss.errors import ScoresError
from lloss.pools import Pool
from lloss.pools.confinement import Confinement
from lloss.scores.scores_folder import ScoresFolder

_LOOKED_AT = 100
"""Ids that are looked up in the pool where the scores are of a part of it alone."""


def adopted(path: Path, pool: Pool, within: Confinement) -> PoolScores:
    """The scores of a folder, if they are complete and of this very pool.

    The footers of all parts are read, and the ids of the first; the images are not.

    Args:
        path: of the folder.
        pool: opened.
        within: what its files must lie in, links followed.

    Raises:
        RequestError: 422 they are not, 403 a link in it leads elsewhere.
    """
    try:
        return _checked(ScoresFolder(path), pool, within)
    except ScoresError as error:
        raise RequestError(422, str(error)) from error


def _checked(folder: ScoresFolder, pool: Pool, within: Confinement) -> PoolScores:
    for file in folder.path.glob("*"):
        if not within.holds_path(file):
            raise RequestError(403, f"{file}: is a link that leads out of --pool-root; remove it")
    run = folder.run() or {}
    names = ("model_sha256", "pool_fingerprint", "scored", "skipped", "excluded", "part_size")
    model, fingerprint, *numbers = (run.get(name) for name in names)
    if run.get("state") != "complete":
        folder.opened()  # says what is wrong
    whole = all(type(number) is int and number >= 0 for number in numbers)
    if not (isinstance(model, str) and whole and numbers[-1]):
        raise ScoresError(f"{folder.path}: run.json is not as lloss score writes it")
    scored, skipped, excluded, part_size = map(int, map(str, numbers))
    folder.opened().check_whole()
    if fingerprint != pool.fingerprint():
        raise _other(folder, pool, "its images are others")
    _check_ids(folder, pool, excluded, part_size)
    if pool.counted:
        count = pool.count()
        if count < scored + skipped or (not excluded and count != scored + skipped):
            raise _other(folder, pool, f"{count} images, the scores are of {scored + skipped}")
    return PoolScores(folder.path, model, scored, skipped)


def _check_ids(folder: ScoresFolder, pool: Pool, excluded: int, part_size: int) -> None:
    rows, failed = folder.part_ids(0)
    held = [*rows, *(id for id, _ in failed)]
    if excluded:
        asked = set(held[:_LOOKED_AT])
        missing = asked - {id for id in pool.ids() if id in asked}
    else:
        missing = set(held) ^ set(islice(pool.ids(), part_size))
    if missing:
        raise _other(folder, pool, f"{min(missing)!r} is not in both")


def _other(folder: ScoresFolder, pool: Pool, what: str) -> ScoresError:
    return ScoresError(
        f"{folder.path}: are not the scores of {pool.uri} as it is now ({what}); score it again"
    )
