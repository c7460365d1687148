"""Scores with a further column, from a table about the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from lloss.scores.score_source import ScoreSource


@dataclass(frozen=True, slots=True)
class JoinedScores:
    """Scores with one more column of text, in place of one of the same name.

    Attributes:
        source: the scores.
        name: of the column.
        values: by the image's id; an image without one has a null.
    """

    source: ScoreSource
    name: str
    values: Mapping[str, str]

    def columns(self) -> Sequence[str]:
        """Name the columns."""
        return list(dict.fromkeys([*self.source.columns(), self.name]))

    def scan(
        self, columns: Sequence[str], ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read columns; of the one joined, the image's value."""
        if self.name not in columns:
            yield from self.source.scan(columns, ids)
            return
        others = [name for name in columns if name != self.name]
        for batch in self.source.scan(list(dict.fromkeys(["id", *others])), ids):
            values = map(self.values.get, batch["id"].to_pylist())
            arrays = {name: batch[name] for name in others}
            arrays[self.name] = pa.array(values, pa.string())
            yield pa.record_batch([arrays[name] for name in columns], names=list(columns))
