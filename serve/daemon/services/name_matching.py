"""The images that names in a request mean, which need not be exact ids."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.pool_registry import PoolRegistry

from lloss.data.id_matching import Matches
from lloss.scores.scores_folder import ScoresFolder


@dataclass(frozen=True)
class Exclusion:
    """Images to leave out: given by id, by another name, or ``unknown`` (no scored image)."""

    ids: frozenset[str] = frozenset()
    unknown: int = 0
    by_name: int = 0


def match_exclusion(folder: ScoresFolder, names: Collection[str]) -> Exclusion:
    """Match names to scored images. Raises RequestError: 422 a name may mean several images."""
    ids = scored_ids(folder, set(names))
    others = set(names) - ids
    if not others:
        return Exclusion(frozenset(ids))
    matches = Matches(folder.ids, others)
    meant = [_meant(matches, name, "nothing was handed out") for name in sorted(others)]
    unknown = meant.count(None)
    return Exclusion(frozenset(ids.union(filter(None, meant))), unknown, len(meant) - unknown)


def match_images(
    pools: PoolRegistry, pool: str, names: Iterable[str], present: Collection[str]
) -> dict[str, str]:
    """The names by the ids of the images that they mean.

    ``present`` are the names that are ids; the pool is walked only for others. A name that matches
    no image, or several, is refused, and two that match the same one.
    """
    matched = {name: name for name in names if name in present}
    others = [name for name in names if name not in present]
    if not others:
        return matched
    matches = Matches(pools.get(pool).open().ids, others)
    unknown = []
    for name in others:
        id = _meant(matches, name, "none was marked")
        if id is None:
            unknown.append(name)
        elif id in matched:
            both = f"{matched[id]!r} and {name!r} are labels of the image {id!r}"
            raise RequestError(422, f"{both}; keep one of them; none was marked")
        else:
            matched[id] = name
    if unknown:
        raise unknown_ids(pool, unknown, matches.near(unknown[0]))
    return matched


def _meant(matches: Matches, name: str, effect: str) -> str | None:
    ids = matches.of(name)
    if len(ids) > 1:
        raise RequestError(422, f"the id {name[:200]!r} {matches.why(name)}; {effect}")
    return ids[0] if ids else None


def unknown_ids(pool: str, ids: Sequence[str], near: str = "") -> RequestError:
    """The error for ids that are not in a pool; ``near`` is what the first may have meant."""
    others = f" and {len(ids) - 1} more are" if len(ids) > 1 else " is"
    hint = f"; {near[:200]}" if near else ""
    return RequestError(
        422, f"the id {ids[0][:200]!r}{others} not in the pool {pool!r}; none was marked{hint}"
    )


def scored_ids(folder: ScoresFolder, ids: set[str]) -> set[str]:
    """The ids that a folder contains, scored or skipped."""
    found = {id for id, _ in folder.skipped() if id in ids} if ids else set()
    if others := list(ids - found):
        for batch in folder.scan(["id"], others):
            found.update(batch["id"].to_pylist())
    return found
