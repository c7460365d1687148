"""The images that names in a request mean: of labels, and of images to exclude."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.pool_registry import Pools

from lloss.data.id_matching import Matches
from lloss.scores.scores_folder import ScoresFolder


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
    for batch in folder.scan(["id"]):
        if len(found) == len(ids):
            break
        found |= ids.intersection(batch["id"].to_pylist())
    return found


def meant(
    pools: Pools, pool: str, names: Iterable[str], present: Collection[str]
) -> dict[str, str]:
    """The names by the ids of the images that they mean.

    Args:
        pools: of the daemon.
        pool: its name.
        names: ids, or what :class:`lloss.data.id_matching.Matches` takes for them.
        present: those that are ids of the pool; only for others it is gone through.

    Raises:
        RequestError: 422 a name means no image, or several, or two mean the same one.
    """
    names = list(names)
    others = [name for name in names if name not in present]
    if not others:
        return dict(zip(names, names))
    matches = pools.matches(pool, others)
    means: dict[str, str] = {}
    lost = []
    for name in names:
        ids = [name] if name in present else matches.of(name)
        if len(ids) > 1:
            raise RequestError(422, f"the id {name!r} {matches.why(name)}; none was marked")
        lost += [] if ids else [name]
        for id in ids:
            if id in means:
                both = f"{means[id]!r} and {name!r} are labels of the image {id!r}"
                raise RequestError(422, f"{both}; keep one of them; none was marked")
            means[id] = name
    if lost:
        raise unknown(pool, lost, matches.near(lost[0]))
    return means


def unknown(pool: str, ids: Sequence[str], near: str = "") -> RequestError:
    """The error of ids that are not in a pool.

    Args:
        pool: its name.
        ids: they.
        near: what the first one may have meant.
    """
    others = f" and {len(ids) - 1} more are" if len(ids) > 1 else " is"
    shown = ids[0] if len(ids[0]) <= 200 else f"{ids[0][:199]}…"
    hint = f"; {near}" if near and len(near) <= 200 else ""
    return RequestError(
        422, f"the id {shown!r}{others} not in the pool {pool!r}; none was marked{hint}"
    )
