"""Merge the shards of a scoring run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lloss.errors import ScoresError
from lloss.scores.scores_folder import POOL_IDS, ScoresFolder, part_name
from lloss.scores.shard_spec import Shard

_OWN = ("shard", "scored", "skipped", POOL_IDS)
"""Keys of a shard's run that differ between shards."""
_MAY_DIFFER = ("passed_over", "model")
"""Keys that may differ; the merged run has the first shard's. All others must be equal."""


def merge_shards(shards: Sequence[Path | str], out: Path | str) -> dict[str, int]:
    """Make one scores folder of all shards: byte for byte what an unsharded run would have made.

    Parts are hard links where the file system has them; a store copies them itself. Interrupted, it
    can be run again.

    Args:
        shards: the folders or their URLs, in any order.
        out: a new folder or its URL, or one that an interrupted merge left.

    Returns:
        How many images are ``scored`` and ``skipped``.

    Raises:
        ScoresError: a shard is missing, doubled, not finished, or of another run than the others,
            or one of its parts is missing or damaged.
    """
    folders = [ScoresFolder(path) for path in shards]
    runs = [_finished_run(folder) for folder in folders]
    _check_same(folders, runs)
    _check_complete(folders)
    for folder in folders:
        folder.check_whole()
    common = {key: value for key, value in runs[0].items() if key not in _OWN}
    counts = {key: sum(int(run[key]) for run in runs) for key in ("scored", "skipped")}
    target, merging = ScoresFolder(out), {**common, "state": "merging"}
    target.files.clean()
    before = target.run()
    if before == {**common, **counts}:
        return counts
    if before != merging and target.files.names():
        raise ScoresError(f"{out}: is not empty; choose another -o")
    target.write_run(merging)
    parts = {n: folder.files for folder in folders for n in folder.part_numbers()}
    for number in sorted(parts):
        target.files.take(parts[number], part_name(number))
    target.check_unique()
    target.write_skipped()
    target.write_run({**common, **counts})
    return counts


def _finished_run(folder: ScoresFolder) -> dict[str, Any]:
    run = folder.run()
    if run is None:
        raise ScoresError(f"{folder}: no scores here; give the folders of all shards")
    if run.get("state") != "complete":
        raise ScoresError(
            f"{folder}: shard {folder.shard()} is not finished; "
            "run its lloss score again to continue"
        )
    return run


def _check_same(folders: Sequence[ScoresFolder], runs: Sequence[dict[str, Any]]) -> None:
    first = runs[0]
    for folder, run in zip(folders, runs):
        for key in {**first, **run}:
            if key not in (*_OWN, *_MAY_DIFFER) and first.get(key) != run.get(key):
                raise ScoresError(
                    f"{folder}: was scored with {key} = {run.get(key)!r}, but "
                    f"{folders[0]} with {first.get(key)!r}; only shards of one run merge"
                )
        pools = first.get(POOL_IDS), run.get(POOL_IDS)  # not noted by earlier versions
        if None not in pools and pools[0] != pools[1]:
            raise ScoresError(
                f"{folder}: the pool held other images than when {folders[0]} was "
                "scored; score all shards again, into new folders, and leave the pool as it is"
            )


def _check_complete(folders: Sequence[ScoresFolder]) -> None:
    paths: dict[Shard, str] = {}
    for folder in folders:
        shard = folder.shard()
        if shard in paths:
            raise ScoresError(f"{paths[shard]} and {folder}: both hold shard {shard}")
        paths[shard] = str(folder)
    count, *others = sorted({shard.count for shard in paths})
    if others:
        raise ScoresError(f"shards of {' and of '.join(map(str, [count, *others]))} do not merge")
    wanted = [Shard(index, count) for index in range(1, count + 1)]
    missing = ", ".join(str(shard) for shard in wanted if shard not in paths)
    if missing:
        raise ScoresError(f"shard {missing} is missing: give the folders of all {count}")
