"""Vectors of scores, read for some ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lloss.errors import SelectionError
from lloss.scores.score_source import TableScores
from lloss.scores.scores_folder import ScoresFolder, scores_table
from lloss.selection.vectors import read_vectors

from .score_tables import select_from


@pytest.mark.parametrize(
    "vectors",
    [
        pa.array([[1.0, 2.0], [1.0], [1.0, 2.0, 3.0]]),  # six numbers, as of three vectors of two
        pa.chunked_array([[[1.0, 2.0]], [[1.0], [1.0]]]),
        pa.array(["a", "b", "c"]),
        pa.array([["a"], ["b"], ["c"]]),
        pa.array([[1.0, 2.0], None, [1.0, 3.0]]),
    ],
)
def test_embeddings_that_are_not_vectors_are_refused(vectors: pa.Array) -> None:
    table = pa.table({"id": ["a", "b", "c"], "loss": [1.0, 2.0, 3.0], "embedding": vectors})
    with pytest.raises(SelectionError, match="choose --strategy top"):
        select_from(table, k=2, strategy="diverse")


@pytest.mark.parametrize("on_disk", [False, True])
def test_vectors_come_in_the_order_of_their_ids_and_missing_ones_are_nan(
    tmp_path: Path, on_disk: bool
) -> None:
    vectors = np.arange(24, dtype=np.float32).reshape(8, 3)
    ids = list("abcdefgh")
    table = scores_table(ids, {"embedding": vectors})
    source: TableScores | ScoresFolder = TableScores(
        pa.concat_tables([table.slice(0, 5), table.slice(5)])
    )
    if on_disk:
        source = ScoresFolder(tmp_path)
        for part in range(2):
            source.write_part(part, table.slice(4 * part, 4), [])
    embeddings = read_vectors(source, list("hafexb"), ["embedding"])["embedding"]
    assert embeddings.dtype == np.float32
    assert np.array_equal(embeddings[[0, 1, 2, 3, 5]], vectors[[7, 0, 5, 4, 1]])
    assert np.isnan(embeddings[4]).all()
