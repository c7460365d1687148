"""Merge the shards of a scoring run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lloss.errors import ScoresError
from lloss.files import atomic_write, sweep
from lloss.scores.scores_folder import POOL_IDS, ScoresFolder
from lloss.scores.shard_spec import Shard

_OWN = ("shard", "scored", "skipped", POOL_IDS)
"""Keys of a shard's run that differ between shards."""
_MAY_DIFFER = ("passed_over", "model")
"""Keys that may differ; the merged run has the first shard's. All others must be equal."""


def merge_shards(shards: Sequence[Path], out: Path) -> dict[str, int]:
    """Make one scores folder of all shards: byte for byte what an unsharded run would have made.

    Parts are hard links where the file system has them. Interrupted, it can be run again.

    Args:
        shards: the folders, in any order.
        out: a new folder, or one that an interrupted merge left.

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
    sweep(out)
    before = target.run()
    if before == {**common, **counts}:
        return counts
    if before != merging and out.exists() and any(out.iterdir()):
        raise ScoresError(f"{out}: is not empty; choose another -o")
    target.write_run(merging)
    parts = {n: folder.part_path(n) for folder in folders for n in folder.part_numbers()}
    for number in sorted(parts):
        _link_or_copy(parts[number], target.part_path(number))
    target.check_unique()
    target.write_skipped()
    target.write_run({**common, **counts})
    return counts


def _finished_run(folder: ScoresFolder) -> dict[str, Any]:
    run = folder.run()
    if run is None:
        raise ScoresError(f"{folder.path}: no scores here; give the folders of all shards")
    if run.get("state") != "complete":
        raise ScoresError(
            f"{folder.path}: shard {folder.shard()} is not finished; "
            "run its lloss score again to continue"
        )
    return run


def _check_same(folders: Sequence[ScoresFolder], runs: Sequence[dict[str, Any]]) -> None:
    first = runs[0]
    for folder, run in zip(folders, runs):
        for key in {**first, **run}:
            if key not in (*_OWN, *_MAY_DIFFER) and first.get(key) != run.get(key):
                raise ScoresError(
                    f"{folder.path}: was scored with {key} = {run.get(key)!r}, but "
                    f"{folders[0].path} with {first.get(key)!r}; only shards of one run merge"
                )
        pools = first.get(POOL_IDS), run.get(POOL_IDS)  # not noted by earlier versions
        if None not in pools and pools[0] != pools[1]:
            raise ScoresError(
                f"{folder.path}: the pool held other images than when {folders[0].path} was "
                "scored; score all shards again, into new folders, and leave the pool as it is"
            )


def _check_complete(folders: Sequence[ScoresFolder]) -> None:
    paths: dict[Shard, Path] = {}
    for folder in folders:
        shard = folder.shard()
        if shard in paths:
            raise ScoresError(f"{paths[shard]} and {folder.path}: both hold shard {shard}")
        paths[shard] = folder.path
    count, *others = sorted({shard.count for shard in paths})
    if others:
        raise ScoresError(f"shards of {' and of '.join(map(str, [count, *others]))} do not merge")
    wanted = [Shard(index, count) for index in range(1, count + 1)]
    missing = ", ".join(str(shard) for shard in wanted if shard not in paths)
    if missing:
        raise ScoresError(f"shard {missing} is missing: give the folders of all {count}")


def _link_or_copy(source: Path, target: Path) -> None:
    with atomic_write(target) as aside:
        try:
            os.link(source, aside)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, aside)
