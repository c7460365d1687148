"""What a strategy chooses from: the rows of the first pass, with their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.scores.score_source import ScoreSource
from lloss.selection.eligible_rows import CLASS, GROUP
from lloss.selection.hashing import draw_ids
from lloss.selection.selection import SelectionSettings
from lloss.selection.strategies import Candidates, get_strategy
from lloss.selection.strategies.strategy import EMBEDDING, finite_rows
from lloss.selection.unit_vectors import count_directions
from lloss.selection.vectors import read_vectors, usual_embedding

LABELED_MOST = 50_000
"""Labeled images that a selection takes into account: of more, so many are drawn by their ids."""

Vectors = Mapping[str, NDArray[Any]]


class CandidateReader:
    """Reads the vectors of candidates and of labeled images, where these decide anything.

    Attributes:
        embedding: the column that likeness is measured in; "" where none is read.
        distinct: candidates whose embeddings differ from each other's; 0 where none is read.
        unusable: candidates left out because their vectors cannot be worked with.
        labeled: vectors of the labeled images that are taken into account, by column.
        labeled_count: how many they are.
    """

    def __init__(self, source: ScoreSource, settings: SelectionSettings) -> None:
        self._source, self._settings = source, settings
        self._strategy = get_strategy(settings.strategy)
        likeness = (EMBEDDING,) if settings.min_distance else ()
        self._names = tuple(dict.fromkeys([*self._strategy.vectors, *likeness]))
        self.embedding = ""
        self.distinct = self.unusable = self.labeled_count = 0
        self.labeled: Vectors = {}

    def candidates(
        self,
        kept: Mapping[str, pa.Table],
        sizes: Mapping[str, int],
        labeled: Sequence[str],
    ) -> dict[str, Candidates]:
        """Return the rows of each group, without those whose vectors are unusable.

        Vectors are not read where there are no more than K rows and near-duplicates do not matter.

        Args:
            kept: of the first pass.
            sizes: rows that each group has.
            labeled: ids of labeled images.
        """
        found = {group: self._without(rows, sizes[group]) for group, rows in kept.items()}
        self.unusable = self.labeled_count = 0
        self.labeled = {}
        more = sum(map(len, found.values())) > self._settings.k
        if not (self._settings.min_distance or (self._names and more)):
            return found
        used = self._strategy.labeled or self._settings.min_distance
        known = sorted(set(labeled)) if used else []  # whatever the order of the scores
        if len(known) > LABELED_MOST:
            known = draw_ids(known, LABELED_MOST, self._settings.seed)
        ids = [id for each in found.values() for id in each.ids]
        vectors = self._read([*ids, *known])
        self._set_labeled({name: values[len(ids) :] for name, values in vectors.items()})
        return self._with(found, {name: values[: len(ids)] for name, values in vectors.items()})

    def _without(self, rows: pa.Table, size: int) -> Candidates:
        """Candidates without vectors."""
        names = [name for name in rows.column_names if name not in ("id", GROUP, CLASS)]
        columns: dict[str, NDArray[Any]] = {name: rows[name].to_numpy() for name in names}
        bound = columns["key"][-1].item() if size > len(rows) else None
        settings = self._settings
        return Candidates(
            rows["id"].to_pylist(),
            columns,
            {},
            settings.seed,
            settings.by,
            settings.direction,
            bound,
        )

    def _read(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        columns = {name: name for name in self._names}
        if EMBEDDING in columns:
            self.embedding = self._settings.embedding or usual_embedding(self._source)
            columns[EMBEDDING] = self.embedding
        read = read_vectors(self._source, ids, list(dict.fromkeys(columns.values())))
        return {name: read[column] for name, column in columns.items()}

    def _set_labeled(self, vectors: Vectors) -> None:
        usable = self._usable(vectors)
        self.labeled_count = int(np.count_nonzero(usable))
        if self.labeled_count:
            self.labeled = {name: values[usable] for name, values in vectors.items()}

    def _with(self, found: Mapping[str, Candidates], vectors: Vectors) -> dict[str, Candidates]:
        """The candidates of each group with their vectors, which follow each other."""
        usable, start, complete = self._usable(vectors), 0, {}
        self.unusable = int(np.count_nonzero(~usable))
        if EMBEDDING in vectors:
            self.distinct = count_directions(vectors[EMBEDDING][usable])
        labeled = self.labeled if self._strategy.labeled else {}
        for group, each in found.items():
            rows = slice(start, start + len(each))
            own = {name: values[rows] for name, values in vectors.items()}
            one = replace(each, columns={**each.columns, **own}, labeled=labeled)
            left = np.flatnonzero(usable[rows])
            complete[group] = one if len(left) == len(each) else one.take(left)
            start = rows.stop
        return complete

    def _usable(self, vectors: Vectors) -> NDArray[np.bool_]:
        finite = np.logical_and.reduce([finite_rows(values) for values in vectors.values()])
        usable: NDArray[np.bool_] = finite
        return usable & self._strategy.usable(vectors) if self._strategy.vectors else usable
