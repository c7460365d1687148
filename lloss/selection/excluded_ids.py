"""Ids that must not be selected, looked up for millions of rows."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lloss.selection.hashing import binary, draw_hashes

_SLOTS = 16
"""Slots of the filter for each id: one row in 16 that is not excluded passes it."""


class ExcludedIds:
    """A set of ids, asked by hash first and by bytes where the hash is known.

    Arrow's ``is_in`` builds its table anew for every batch, which costs more than the batch as
    soon as the set is the larger one.
    """

    def __init__(self, ids: Collection[str], seed: int) -> None:
        """Args: ids: the set. seed: of the hashes that :meth:`mask` will be given."""
        names = binary(list(ids))
        hashes = draw_hashes(names, seed)
        order = np.argsort(hashes)
        self._hashes = hashes[order]
        self._names = names.take(pa.array(order))
        size = 1 << max(_SLOTS * len(names), 1).bit_length()
        self._last = np.uint64(size - 1)
        self._seen = np.zeros(len(names), np.bool_)
        self._slots = np.zeros(size, np.bool_)
        self._slots[hashes & self._last] = True

    def __len__(self) -> int:
        return len(self._hashes)

    @property
    def absent(self) -> int:
        """How many of the ids no row had that was asked about so far."""
        return len(self) - int(np.count_nonzero(self._seen))

    def mask(self, ids: pa.Array, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which ids are excluded.

        Args:
            ids: string or large string, [N].
            hashes: theirs, by :func:`lloss.selection.hashing.draw_hashes`, uint64 [N].

        Returns:
            bool [N].
        """
        excluded = np.zeros(len(ids), np.bool_)
        if not len(self):
            return excluded
        rows = np.flatnonzero(self._slots[hashes & self._last])
        wanted = hashes[rows]
        places = np.minimum(np.searchsorted(self._hashes, wanted), len(self) - 1)
        same = self._hashes[places] == wanted
        rows, places = rows[same], places[same]
        names = ids.take(pa.array(rows)).cast(pa.large_binary())
        equal = pc.equal(names, self._names.take(pa.array(places))).to_numpy(zero_copy_only=False)
        excluded[rows[equal]] = True
        self._seen[places[equal]] = True
        # Another id of the same hash: about never, but then it decides by its bytes.
        for row, name in zip(rows[~equal], names.filter(pa.array(~equal)).to_pylist()):
            if name in self._set:
                excluded[row] = True
                self._seen |= pc.equal(self._names, name).to_numpy(zero_copy_only=False)
        return excluded

    @cached_property
    def _set(self) -> frozenset[bytes]:
        return frozenset(self._names.to_pylist())
