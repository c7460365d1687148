from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pytest

from lloss.scores.score_source import TableScores
from lloss.selection import SelectionSettings, select
from lloss.selection.ties import tie_note

from .score_tables import score_table, select_from


class _Scores(TableScores):
    """Scores at hand that can be gone through in batches of two."""

    def scan(
        self, columns: Sequence[str], ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        yield from self.table.select(columns).to_batches(max_chunksize=2)


def _scores(values: list[float | None]) -> _Scores:
    ids = [f"{n}.png" for n in range(len(values))]
    return _Scores(pa.table({"id": ids, "loss": pa.array(values, pa.float32())}))


@pytest.mark.parametrize(
    ("values", "k", "said"),
    [
        ([1.0] * 7, 3, "all 3 selected images have the same loss, as 7 of 7 in the scores have"),
        ([0.5, 1.0, 1.0, 1.0, 0.2], 2, "all 2 selected images have the same loss, as 3 of 5 "),
        ([0.5, 1.0, 1.0, 2.0, 0.2], 2, ""),
        ([1.0, 1.0, 1.0, 2.0, 0.2], 3, "2 of 3 selected images have the same loss, as 3 of 5 "),
        ([0.5, 1.0, 1.0, 2.0, 0.2], 3, ""),
        ([1.0, 1.0], 1, ""),
        ([None, 1.0, 1.0, float("nan")], 2, "as 2 of 4"),
    ],
)
def test_a_selection_of_equal_scores_is_no_ranking(
    values: list[float | None], k: int, said: str
) -> None:
    source = _scores(values)
    note = tie_note(source, select(source, SelectionSettings(k=k)))
    assert bool(note) == bool(said) and said in note
    assert not note or note.endswith("the order of ids decided, this is not a ranking")


def test_the_last_of_the_lowest_scores_may_tie_too() -> None:
    source = _scores([1.0, 1.0, 1.0, 0.5, 2.0])
    lowest = select(source, SelectionSettings(k=3, order="lowest"))
    assert "2 of 3 selected images have the same loss, as 3 of 5" in tie_note(source, lowest)
    source = _scores([1.0, 1.0, 3.0, 0.5, 2.0])
    assert tie_note(source, select(source, SelectionSettings(k=3, order="lowest"))) == ""
    drawn = select(_scores([1.0] * 5), SelectionSettings(k=3, strategy="random"))
    assert tie_note(source, drawn) == ""


def test_equal_scores_are_equal_weights() -> None:
    table = pa.table({"id": list("abcdef"), "loss": pa.array([1.0] * 6)})
    source = TableScores(table)
    drawn = select(source, SelectionSettings(k=3, strategy="power"))
    assert tie_note(source, drawn) == (
        "warning: all 3 selected images have the same loss, as 6 of 6 in the scores have: "
        "it weighs them all the same"
    )


@pytest.mark.parametrize("strategy", ["herding", "coverage", "core-set", "diverse"])
def test_a_network_that_gives_images_the_same_features_is_warned_of(strategy: str) -> None:
    random = np.random.default_rng(0)
    apart = random.normal(size=(40, 8))
    noise = 1 + 1e-7 * random.normal(size=(40, 8))  # of another order of sums
    few = np.where(np.arange(40)[:, None] < 37, apart[:1] * noise, apart)
    scores = random.random(40)

    def warned(vectors: np.ndarray) -> str:
        table = score_table(scores, vectors=vectors)
        return select_from(table, k=10, strategy=strategy).collapse()

    assert warned(few).startswith("the 40 images compared have only 4 distinct embeddings: unless")
    assert warned(np.zeros((40, 8))).startswith("the 40 images compared have only 1 distinct embed")
    assert warned(apart) == ""
    copies = np.repeat(apart[:20], 2, axis=0)
    assert warned(copies) == ""
    unread = select_from(score_table(scores, vectors=few), k=10, strategy="top")
    assert unread.collapse() == "" and unread.distinct == 0
