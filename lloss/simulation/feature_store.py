"""Features of images on disk, computed once: interrupted, shared between simulations, extended.

A folder per network holds blocks, ``block-00000.npy`` (float32 [rows, width]) with their keys in
``block-00000.json``. A row's key is the image's content and the variant, so that an image that
changes under its name is computed again. Blocks appear whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lloss.files import atomic_write, locked, sweep, write_text
from lloss.simulation.results import SimulationError

BLOCK = 2048

Compute = Callable[[Sequence[int]], Iterator[NDArray[np.float32]]]
"""Yields the features of some views, in their order, a batch at a time."""


class FeatureStore:
    """The features of one network, by key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blocks: list[Path] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._opened: dict[int, NDArray[np.float32]] = {}
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

    def fill(self, keys: Sequence[str], compute: Compute, done: Callable[[int], object]) -> None:
        """Compute what is missing, a block at a time; ``done`` gets the rows of each batch."""
        with locked(self.folder):  # another simulation may share the folder
            sweep(self.folder)
            self._look()
            missing = self.missing(keys)
            for start in range(0, len(missing), BLOCK):
                places = missing[start : start + BLOCK]
                parts = []
                for part in compute(places):
                    parts.append(part)
                    done(len(part))
                self._write([keys[place] for place in places], np.concatenate(parts))

    def rows(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Read the features of these keys, float32 [N, width]."""
        places = np.array([self._places[key] for key in keys], np.int64).reshape(-1, 2)
        width = self._block(int(places[0, 0])).shape[1] if len(places) else 0
        out = np.empty((len(keys), width), np.float32)
        for block in np.unique(places[:, 0]):
            here = np.flatnonzero(places[:, 0] == block)
            out[here] = self._block(int(block))[places[here, 1]]
        return out

    def _write(self, keys: Sequence[str], features: NDArray[np.float32]) -> None:
        number = 1 + max((int(path.stem.partition("-")[2]) for path in self._blocks), default=-1)
        index = self.folder / f"block-{number:05d}.json"
        with atomic_write(index.with_suffix(".npy")) as aside, aside.open("wb") as file:
            np.save(file, features)
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

    def _block(self, number: int) -> NDArray[np.float32]:
        if number not in self._opened:
            path = self._blocks[number].with_suffix(".npy")
            try:
                self._opened[number] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise _damaged(path) from error
        return self._opened[number]


def _damaged(path: Path) -> SimulationError:
    return SimulationError(f"{path}: is damaged; remove the folder {path.parent} to compute again")
