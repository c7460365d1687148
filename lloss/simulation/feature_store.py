"""Features of images on disk, computed once: interrupted, shared between simulations, extended.

A folder per network holds blocks, ``block-00000.npy`` (float32 or float16 [rows, width]) with their
keys in ``block-00000.json``. A row's key is the image's content and the variant, so that an image
that changes under its name is computed again. Blocks appear whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from lloss.files import atomic_write, locked, sweep, write_text
from lloss.simulation.results import SimulationError
from lloss.text.progress import progress

BLOCK, BLOCK_BYTES = 2048, 64 << 20
"""Rows of a block, or bytes if these are reached before: what an interruption loses at most."""

Compute = Callable[[Sequence[int]], Iterator[NDArray[Any]]]
"""Yields the features of some places of the keys, in their order, a batch at a time."""


class FeatureStore:
    """The features of one network, by key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blocks: list[Path] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._opened: dict[int, NDArray[Any]] = {}
        self._look()

    def _look(self) -> None:
        for index in sorted(self.folder.glob("block-*.json")):
            if index not in self._blocks:
                self._add(index)

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Return the places in ``keys`` of the first of each that has no features yet."""
        seen, places = set(self._places), []
        for place, key in enumerate(keys):
            if key not in seen:
                seen.add(key)
                places.append(place)
        return places

    def fill(self, keys: Sequence[str], compute: Compute) -> None:
        """Compute what is missing, with its progress."""
        if not self.missing(keys):
            return
        with locked(self.folder):  # another simulation may share the folder
            sweep(self.folder)
            self._look()
            self._compute(keys, self.missing(keys), compute)

    def _compute(self, keys: Sequence[str], missing: Sequence[int], compute: Compute) -> None:
        parts: list[NDArray[Any]] = []
        written = rows = 0
        with progress(desc="features", total=len(missing), unit="images", leave=False) as bar:
            for part in compute(missing):
                parts.append(part)
                rows += len(part)
                if rows >= BLOCK or sum(each.nbytes for each in parts) >= BLOCK_BYTES:
                    self._write([keys[place] for place in missing[written : written + rows]], parts)
                    parts, written, rows = [], written + rows, 0
                bar.update(len(part))
        if parts:
            self._write([keys[place] for place in missing[written:]], parts)

    def rows(self, keys: Sequence[str]) -> NDArray[Any]:
        """Read the features of these keys, at least one: [N, width]."""
        places = np.array([self._places[key] for key in keys], np.int64)
        first = self._block(int(places[0, 0]))
        out = np.empty((len(keys), first.shape[1]), first.dtype)
        for block in np.unique(places[:, 0]):
            here = np.flatnonzero(places[:, 0] == block)
            out[here] = self._block(int(block))[places[here, 1]]
        return out

    def _write(self, keys: Sequence[str], parts: Sequence[NDArray[Any]]) -> None:
        number = 1 + max((int(path.stem.partition("-")[2]) for path in self._blocks), default=-1)
        index = self.folder / f"block-{number:05d}.json"
        with atomic_write(index.with_suffix(".npy")) as aside, aside.open("wb") as file:
            # Not into the file itself: numpy would say of a full disk that it wrote too few numbers
            np.save(cast(BinaryIO, SimpleNamespace(write=file.write)), np.concatenate(parts))
        write_text(index, json.dumps(keys) + "\n")  # last: a block without it does not count
        self._add(index)

    def _add(self, index: Path) -> None:
        try:
            keys = json.loads(index.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _damaged(index) from error
        for row, key in enumerate(keys):
            self._places[key] = len(self._blocks), row
        self._blocks.append(index)

    def _block(self, number: int) -> NDArray[Any]:
        if number not in self._opened:
            path = self._blocks[number].with_suffix(".npy")
            try:
                self._opened[number] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise _damaged(path) from error
        return self._opened[number]


def _damaged(path: Path) -> SimulationError:
    return SimulationError(f"{path}: is damaged; remove the folder {path.parent} to compute again")
