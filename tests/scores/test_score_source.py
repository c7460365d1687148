from __future__ import annotations

import pyarrow as pa
import pytest

from lloss.errors import ScoresError
from lloss.scores.score_source import TableScores


def test_a_table_is_read_again_whole_or_by_ids() -> None:
    table = pa.table({"id": ["a", "b"], "loss": [1.0, 2.0]})
    source = TableScores(pa.concat_tables([table, table]))
    for _ in range(2):
        rows = [batch.to_pydict() for batch in source.scan(["loss"])]
        assert rows == [{"loss": [1.0, 2.0]}] * 2
    assert sum(len(batch) for batch in source.scan(["id"], ["b", "z"])) == 2
    with pytest.raises(ScoresError, match=r"no column 'entropy' \(they have id, loss\)"):
        next(source.scan(["entropy"]))
