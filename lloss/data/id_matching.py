"""The rule by which a name means an image: training, ``--exclude``, hold-out and daemon share it.

Names and ids are compared as paths (see :func:`.path_parts`), part by part from the right.

1. An id that is the name itself is meant; or else the one id of the same parts (``./a.png``).
2. Otherwise a name may mean each id with which it agrees in all parts that both have:
   ``0000.png`` may be ``b1/0000.png``, ``data/cam1/0000.png`` may be ``cam1/0000.png``, and
   ``cam1/0000.png`` is never ``cam2/0000.png``. An image's suffix at the end is left out on both
   sides; ids with the name's own suffix come before others.
3. A name that may mean several ids means none.

Letters are compared exactly, case and Unicode form included.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from functools import cached_property

from lloss.pools.file_walk import has_image_suffix
from lloss.text.clean_names import stripped, visible
from lloss.text.image_paths import image_path, path_parts

_Path = tuple[str, ...]

_KEPT = 2  # Ids of one suffix that are kept for a name: two are enough to make it ambiguous


class Matches:
    """Finds the ids of a pool that a name means.

    ``ids`` gives the pool's ids; it is called again only to look for near misses. ``own_suffix`` is
    whether the suffix of a name is that of its image; a mask's is not.
    """

    def __init__(
        self, ids: Callable[[], Iterable[str]], names: Iterable[str], own_suffix: bool = True
    ) -> None:
        self._ids = ids
        self._names = set(names)
        self._own_suffix = own_suffix
        self._exact = set[str]()
        self._same: dict[str, list[str]] = {}  # a name in its one spelling, and ids of its parts
        self._longer: dict[_Path, list[str]] = {}  # a name's path, and ids that end in it
        self._shorter: dict[_Path, list[str]] = {}  # what a name ends in, and ids that are this
        for name in self._names:
            path = _path(name)
            self._same[image_path(name)] = []
            self._longer[path] = []
            self._shorter.update((path[:end], []) for end in range(1, len(path)))
        self._last = {path[0] for path in self._longer if path}
        for id in ids():
            self._add(id)

    def _add(self, id: str) -> None:
        if id in self._names:
            self._exact.add(id)
        if "\\" not in id and ":" not in id:
            end = id.rpartition("/")[2]
            stem = end.rpartition(".")[0] if has_image_suffix(end) else end
            # Most ids end here. An odd last part is looked at more closely.
            if stem.strip(".") and stem not in self._last:
                return
        path = _path(id)
        if (spelling := image_path(id)) in self._same:
            self._same[spelling].append(id)
        for count in range(1, len(path) + 1):
            if path[:count] in self._longer:
                _keep(self._longer[path[:count]], id)
        if path in self._shorter:
            _keep(self._shorter[path], id)

    def of(self, name: str) -> list[str]:
        """The ids that a name may mean: one where it means an image, two where it is in doubt."""
        if name in self._exact:
            return [name]
        same = self._same.get(image_path(name), [])
        if len(same) == 1:
            return same
        path = _path(name)
        found = [*self._longer.get(path, ())]
        for end in range(1, len(path)):
            found += self._shorter[path[:end]]
        suffix = _suffix(name)
        alike = [id for id in found if _suffix(id) == suffix] if self._own_suffix and suffix else []
        return (alike or found)[:2]

    def why(self, name: str) -> str:
        """Why a name means no one image, for a message that begins with the name."""
        found = self.of(name)
        if len(found) > 1:
            return f"may be {found[0]!r} or {found[1]!r}; write which"
        if near := self.near(name):
            return f"is not in the pool; {near}"
        example = next(iter(self._ids()), None)
        hint = f"its ids look like {example!r}" if example else "it is empty"
        return f"is not in the pool; {hint}"

    def near(self, name: str) -> str:
        """The id most like a name that means none, for a message; "" without one."""
        path = _path(_folded(name))
        id = self._near.get(path) or self._near.get(path[:1])
        if id is None:
            return ""
        return f"the nearest is {id!r}: compare folder, letter case, spaces and Unicode form"

    @cached_property
    def _near(self) -> dict[_Path, str]:
        """Ids by their folded paths and last parts, where a name without an image ends so."""
        lost = [_path(_folded(name)) for name in self._names if not self.of(name)]
        wanted = {path[0] for path in lost if path}
        near: dict[_Path, str] = {}
        for id in self._ids():
            path = _path(_folded(id))
            if path and path[0] in wanted:
                near.setdefault(path[:1], id)
                near[path] = id
        return near


def agree(name: str, id: str) -> bool:
    """Whether a name is an id, or agrees with it in all parts that both have."""
    one, other = _path(name), _path(id)
    shared = min(len(one), len(other))
    return name == id or (shared > 0 and one[:shared] == other[:shared])


def differs(name: str, id: str, own_suffix: bool = True) -> bool:
    """Whether a name that means an id has more or fewer parts, or another suffix of its own."""
    suffixes = {_suffix(name), _suffix(id)} if own_suffix and _suffix(name) else set[str]()
    return len(path_parts(name)) != len(path_parts(id)) or len(suffixes) > 1


def _keep(ids: list[str], id: str) -> None:
    suffix = _suffix(id)
    if sum(_suffix(one) == suffix for one in ids) < _KEPT:
        ids.append(id)


def _path(name: str) -> _Path:
    """The parts from the right, the last one's image suffix left out."""
    parts = path_parts(name)
    if parts and has_image_suffix(parts[-1]):
        parts[-1] = parts[-1].rpartition(".")[0]
    return tuple(reversed(parts))


def _suffix(name: str) -> str:
    parts = path_parts(name)
    return parts[-1].rpartition(".")[2].lower() if parts and has_image_suffix(parts[-1]) else ""


def _folded(text: str) -> str:
    return stripped(unicodedata.normalize("NFC", visible(text))).casefold()
