"""Picks that cover the best candidates."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lloss.errors import ScoresError, SelectionError, SettingsError
from lloss.selection.kcenter import k_center

from ..score_tables import best_ids, score_table, select_from


def test_picks_spread_over_clusters_where_top_does_not() -> None:
    random = np.random.default_rng(0)
    cluster = np.arange(64) % 4
    vectors = np.array([[0, 0], [100, 0], [0, 100], [100, 100]])[cluster]
    vectors = vectors + random.normal(size=(64, 2))
    scores = np.where(cluster == 0, 2.0, 1.0) + random.random(64) * 0.5
    table = score_table(scores, vectors=vectors)
    for strategy, expected in {"top": {0}, "diverse": {0, 1, 2, 3}}.items():
        chosen = select_from(table, k=8, strategy=strategy)
        assert {cluster[int(id[:4])] for id in chosen.ids} == expected
    assert sorted(select_from(table, k=64, strategy="diverse").ids) == sorted(best_ids(table))


@pytest.mark.parametrize("order", ["highest", "lowest"])
def test_picks_equal_k_center_over_the_candidates_in_the_order_of_their_scores(order: str) -> None:
    random = np.random.default_rng(1)
    vectors = random.normal(size=(100, 6)).astype(np.float32)
    scores = random.random(100)
    table = score_table(scores, vectors=vectors)
    best = best_ids(table)[:: 1 if order == "highest" else -1][:40]
    picks = [best[pick] for pick in k_center(vectors[[int(id[:4]) for id in best]], 10)]
    chosen = select_from(table, k=10, strategy="diverse", order=order)
    assert chosen.ids == picks
    assert chosen.scores.tolist() == [scores[int(id[:4])] for id in picks]


def test_features_of_the_pretrained_network_come_before_those_of_the_trained_one() -> None:
    random = np.random.default_rng(1)
    frozen, trained = random.normal(size=(2, 60, 6)).astype(np.float32)
    plain = score_table(random.random(60), vectors=trained)
    fixed = pa.FixedSizeListArray.from_arrays(frozen.ravel(), 6)
    both = plain.append_column("pretrained_embedding", fixed)
    best = best_ids(plain)[:20]

    def picks(vectors: np.ndarray) -> list[str]:
        return [best[pick] for pick in k_center(vectors[[int(id[:4]) for id in best]], 5)]

    chosen = select_from(both, k=5, strategy="diverse")
    assert chosen.ids == picks(frozen) and chosen.spread_by == "pretrained_embedding"
    chosen = select_from(both, k=5, strategy="diverse", embedding="embedding")
    assert chosen.ids == picks(trained) and chosen.spread_by == "embedding"
    assert select_from(plain, k=5, strategy="diverse").spread_by == "embedding"
    assert select_from(both, k=5, strategy="top").spread_by == ""
    with pytest.raises(ScoresError, match="no column 'pretrained_embedding'"):
        select_from(plain, k=5, strategy="diverse", embedding="pretrained_embedding")
    with pytest.raises(SelectionError, match="column 'loss' holds double, not vectors"):
        select_from(plain, k=5, strategy="diverse", embedding="loss")
    with pytest.raises(SelectionError, match="column 'id' holds string, not vectors"):
        select_from(plain, k=5, strategy="diverse", embedding="id")
    with pytest.raises(SettingsError, match="embedding 'embedding': top measures no likeness"):
        select_from(plain, k=5, strategy="top", embedding="embedding")


def test_embeddings_without_a_usual_distance_are_left_out_and_counted() -> None:
    random = np.random.default_rng(3)
    vectors = random.normal(size=(40, 4)).astype(np.float32)
    vectors[39, 0], vectors[30], vectors[31, 2] = np.nan, np.inf, 1e30
    usable = [row for row in range(39, -1, -1) if row not in (39, 30, 31)]
    picks = k_center(vectors[usable], 10)
    chosen = select_from(score_table(np.arange(40.0), vectors=vectors), k=10, strategy="diverse")
    assert chosen.ids == [f"{usable[pick]:04d}.jpg" for pick in picks]
    assert chosen.unusable() == ["3 with a NaN, infinite or extreme embedding left out"]


def test_too_few_embeddings_with_a_distance_are_refused() -> None:
    vectors = np.full((8, 2), np.nan, np.float32)
    vectors[0] = 1
    table = score_table(np.arange(8.0), vectors=vectors)
    with pytest.raises(SelectionError, match=r"7 of 8 candidates.*--strategy top"):
        select_from(table, k=2, strategy="diverse")
    chosen = select_from(table, k=2, strategy="diverse", at_most=True)
    assert chosen.ids == ["0000.jpg"] and chosen.unspread == 7
