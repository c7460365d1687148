"""Which images of a pool the names mean that labels come with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.pool_registry import Pools


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
