"""Which images of a pool labels mean that were made with other paths or suffixes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from lloss.annotations.problems import Problems
from lloss.annotations.reading import BrokenError, leaving_out
from lloss.pools import Pool
from lloss.pools.walk import has_image_suffix

Label = TypeVar("Label")


class Matches:
    """The ids of a pool that each of some keys may mean.

    A key means the id that it is; where there is none, the ids that end in the same file name, or
    else in the same name without the suffix. The pool is gone through once.
    """

    def __init__(self, pool: Pool, keys: Iterable[str]) -> None:
        self.pool = pool
        self._exact = set[str]()
        wanted = set(keys)
        self._names: dict[str, list[str]] = {_name(key): [] for key in wanted}
        self._stems: dict[str, list[str]] = {_stem(name): [] for name in self._names}
        for id in pool.ids():
            if id in wanted:
                self._exact.add(id)
            name = _name(id)
            if name in self._names:
                self._names[name].append(id)
            stem = _stem(name)
            if stem in self._stems:
                self._stems[stem].append(id)

    def of(self, key: str) -> list[str]:
        """The ids that a key may mean; none or several when it means no one image."""
        if key in self._exact:
            return [key]
        name = _name(key)
        return self._names[name] or self._stems[_stem(name)]

    def one(self, key: str, where: str) -> str:
        """The id that a key means.

        Raises:
            BrokenError: the pool has none, or several that it may mean.
        """
        ids = self.of(key)
        if len(ids) > 1:
            raise BrokenError(where, f"may be {ids[0]!r} or {ids[1]!r} of the pool; write which")
        if not ids:
            example = next(self.pool.ids(), None)
            hint = f"its ids look like {example!r}" if example else "it is empty"
            raise BrokenError(where, f"is not in the pool {self.pool.uri}; {hint}")
        return ids[0]


def by_id(
    pool: Pool, labels: Mapping[str, Label], origin: str, problems: Problems
) -> dict[str, Label]:
    """Labels by the ids of the images that their keys mean, as :class:`Matches` has it.

    Args:
        pool: of the images.
        labels: by key.
        origin: of the labels, for messages.
        problems: labels of images that the pool lacks go there, and second labels of an image.
    """
    matches = Matches(pool, labels)
    found: dict[str, Label] = {}
    for key, label in labels.items():
        where = f"{origin}: {key!r}"
        with leaving_out(problems):
            id = matches.one(key, where)
            if id in found:
                raise BrokenError(where, f"is a second label of the image {id!r}")
            found[id] = label
    return found


def _name(id: str) -> str:
    return id.replace("\\", "/").rpartition("/")[2]


def _stem(name: str) -> str:
    return name.rpartition(".")[0] if has_image_suffix(name) else name
