"""What a strategy chooses from: the rows of the first pass, with their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.errors import SelectionError
from lloss.scores.score_source import ScoreSource
from lloss.selection.hashing import draw_ids
from lloss.selection.selection import SelectionSettings
from lloss.selection.strategies import Candidates, get_strategy
from lloss.selection.strategies.strategy import EMBEDDING
from lloss.selection.vectors import read_vectors, usual_embedding

LABELED_MOST = 50_000
"""Labeled images that a selection takes into account: of more, so many are drawn by their ids."""


class CandidateReader:
    """Reads the vectors of candidates and of labeled images, where more than K candidates are left.

    Attributes:
        embedding: the column that likeness is measured in; "" where none is read.
        unusable: candidates left out because their vectors cannot be worked with.
        labeled: labeled images that are taken into account.
    """

    def __init__(
        self, source: ScoreSource, settings: SelectionSettings, labeled: Sequence[str]
    ) -> None:
        self._source, self._settings = source, settings
        self._strategy = get_strategy(settings.strategy)
        self._labeled = labeled if self._strategy.labeled else ()
        self.embedding = ""
        self.unusable = self.labeled = 0

    def candidates(self, rows: pa.Table, more: bool) -> Candidates:
        """Return these rows, without those whose vectors are unusable.

        Args:
            rows: of the first pass.
            more: whether it left others out.

        Raises:
            SelectionError: too few can be used.
        """
        ids = rows["id"].to_pylist()
        names = [name for name in rows.column_names if name != "id"]
        columns: dict[str, NDArray[Any]] = {name: rows[name].to_numpy() for name in names}
        settings, vectors = self._settings, self._strategy.vectors
        read = bool(vectors) and len(ids) > settings.k
        labeled = self._read(ids, columns) if read else {}
        bound = columns["key"][-1].item() if more else None
        found = Candidates(
            ids, columns, labeled, settings.seed, settings.by, settings.direction, bound
        )
        return self._usable(found) if read else found

    def _read(
        self, ids: list[str], columns: dict[str, NDArray[Any]]
    ) -> dict[str, NDArray[np.float32]]:
        """Add the vectors of the candidates; return those of labeled images."""
        known = sorted(set(self._labeled))  # whatever the order of the scores
        if len(known) > LABELED_MOST:
            known = draw_ids(known, LABELED_MOST, self._settings.seed)
        names = {name: self._column(name) for name in self._strategy.vectors}
        read = read_vectors(self._source, [*ids, *known], list(dict.fromkeys(names.values())))
        columns |= {name: read[column][: len(ids)] for name, column in names.items()}
        labeled = {name: read[column][len(ids) :] for name, column in names.items()}
        if known:
            usable = self._strategy.usable(labeled)
            labeled = {name: values[usable] for name, values in labeled.items()}
            self.labeled = int(np.count_nonzero(usable))
        return labeled if self.labeled else {}

    def _column(self, name: str) -> str:
        if name != EMBEDDING:
            return name
        self.embedding = self._settings.embedding or usual_embedding(self._source)
        return self.embedding

    def _usable(self, candidates: Candidates) -> Candidates:
        settings = self._settings
        usable = np.flatnonzero(self._strategy.usable(candidates.columns))
        self.unusable = len(candidates) - len(usable)
        if len(usable) < settings.k and not (settings.at_most and len(usable)):
            raise SelectionError(
                f"{self.unusable} of the {len(candidates)} candidates have an infinite or extreme "
                f"embedding, and k = {settings.k} cannot be spread over the others; choose "
                "--strategy top"
            )
        return candidates.take(usable) if self.unusable else candidates
