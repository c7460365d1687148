"""Images that a request wants left out of a choice."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
from lloss.serve.daemon.errors import RequestError

from lloss.data.id_matching import Matches
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection.excluded_ids import ExcludedIds
from lloss.selection.hashing import draw_hashes


@dataclass(frozen=True)
class LeftOut:
    """What names of images to leave out came to.

    Attributes:
        ids: of the images.
        unknown: names that mean no scored image.
        by_name: names that mean one and are not its id.
    """

    ids: frozenset[str] = frozenset()
    unknown: int = 0
    by_name: int = 0


def left_out(folder: ScoresFolder, names: Collection[str]) -> LeftOut:
    """Look names up among scores as labels are looked up in a pool.

    Only where some are not ids, the ids of the folder are gone through once more.

    Raises:
        RequestError: 422 a name may mean several images.
    """
    if not names:
        return LeftOut()
    asked = set(names)
    found = scored_of(folder, asked)
    others = asked - found
    if not others:
        return LeftOut(frozenset(found))
    matches = Matches(folder.ids, others)
    meant = set[str]()
    unknown = 0
    for name in sorted(others):
        ids = matches.of(name)
        if len(ids) > 1:
            raise RequestError(
                422, f"exclude: the id {name[:200]!r} {matches.why(name)}; nothing was handed out"
            )
        meant.update(ids)
        unknown += not ids
    return LeftOut(frozenset(found | meant), unknown, len(others) - unknown)


def scored_of(folder: ScoresFolder, ids: set[str]) -> set[str]:
    """Those of some ids that a folder holds, scored or skipped."""
    found = {id for id, _ in folder.skipped() if id in ids}
    wanted = ExcludedIds(ids - found, 0)
    for batch in folder.scan(["id"]):
        if len(found) == len(ids):
            break
        column = batch["id"]
        held = wanted.mask(column, draw_hashes(column, 0))
        found.update(column.filter(pa.array(held)).to_pylist())
    return found
