from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from lloss.diversity import k_center
from lloss.errors import SelectionError, SettingsError
from lloss.sampling import draw_hash, draw_ids
from lloss.selection import Selection, SelectionSettings, select
from lloss.sources import BatchRows, Piece, Rows, TableScores


class _Chunks:
    """A source in pieces of record batches, both cut at random, some of them empty."""

    def __init__(self, table: pa.Table, seed: int) -> None:
        self.table, self.seed = table.combine_chunks(), seed

    def pieces(self) -> Iterator[Piece]:
        random = np.random.default_rng(self.seed)
        cuts = np.sort(random.integers(0, len(self.table) + 1, 9)).tolist()
        whole = pa.RecordBatch.from_arrays(
            [_one(self.table[name]) for name in self.table.column_names], schema=self.table.schema
        )
        bounds = list(zip([0, *cuts], [*cuts, len(self.table)], strict=True))
        batches = [whole.slice(start, end - start) for start, end in bounds]
        for piece in range(0, len(batches), 3):
            yield partial(_rows, batches[piece : piece + 3])


def _rows(batches: Sequence[pa.RecordBatch]) -> Iterator[Rows]:
    yield from map(BatchRows, batches)


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _table(scores: Any, ids: Sequence[str] | None = None, vectors: Any = None) -> pa.Table:
    ids = [f"{row:04d}.jpg" for row in range(len(scores))] if ids is None else ids
    columns: dict[str, Any] = {"id": pa.array(ids, pa.string()), "loss": scores}
    if vectors is not None:
        flat = np.asarray(vectors, np.float32)
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat.ravel(), flat.shape[1])
    return pa.table(columns)


def _tied(count: int, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    ids = [f"img {n}" for n in random.permutation(count)]
    return _table(random.integers(0, 9, count) / 8, ids)


def _top(table: pa.Table, exclude: Sequence[str] = (), **settings: Any) -> Selection:
    return select(TableScores(table), SelectionSettings(**settings), exclude)


def _sorted(table: pa.Table) -> list[tuple[float, str]]:
    rows = zip(table["loss"].to_pylist(), table["id"].to_pylist(), strict=True)
    return sorted((-score, id) for score, id in rows if score is not None and score == score)


@pytest.mark.parametrize("k", [1, 7, 50, 200])
def test_top_takes_the_highest_scores_and_breaks_ties_by_id(k: int) -> None:
    table = _tied(200)
    chosen = _top(table, k=k)
    expected = _sorted(table)[:k]
    assert chosen.ids == [id for _, id in expected]
    assert chosen.scores.tolist() == [-score for score, _ in expected]
    assert (len(chosen), chosen.pool, chosen.eligible) == (k, 200, 200)


def test_ids_are_ordered_by_their_bytes_in_utf8() -> None:
    ids = ["b", "a", "B", "é", "10", "9", "\U0001f431", "\uffff"]
    assert _top(_table([0.5] * 8, ids), k=8).ids == sorted(ids, key=str.encode)


def test_negative_zero_ties_with_zero() -> None:
    table = _table([-0.0, 0.0, -0.0, 0.0], ["d", "c", "b", "a"])
    assert _top(table, k=4).ids == ["a", "b", "c", "d"]
    assert _top(table, k=2).ids == ["a", "b"]


def test_infinite_scores_have_their_place() -> None:
    table = _table([1.0, math.inf, -math.inf, 1e300], ["a", "b", "c", "d"])
    assert _top(table, k=4).ids == ["b", "d", "a", "c"]


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_images_without_a_score_are_counted_and_never_selected(kind: str) -> None:
    values = np.array([1.0, np.nan, 3.0, 0.0, np.nan, 2.0], kind)
    nulls = np.array([False, False, False, True, False, False])
    table = _table(pa.array(values, mask=nulls), list("abcdef"))
    chosen = _top(table, k=3)
    assert chosen.ids == ["c", "f", "a"]
    assert (chosen.nan, chosen.eligible, chosen.pool) == (3, 3, 6)
    with pytest.raises(SelectionError, match=r"k = 4, but 3 images are left.*3 have no score"):
        _top(table, k=4)


@pytest.mark.parametrize("strategy", ["top", "diverse", "random"])
def test_excluded_images_are_counted_and_never_selected(strategy: Any) -> None:
    table = _table(np.arange(10.0), list("abcdefghij"), np.eye(10))
    chosen = _top(table, ["j", "h", "unknown"], k=8, strategy=strategy)
    assert sorted(chosen.ids) == list("abcdefgi")
    assert (chosen.excluded, chosen.eligible, chosen.pool) == (2, 8, 10)


def test_an_excluded_image_without_a_score_is_counted_once() -> None:
    chosen = _top(_table([math.nan, 1.0], ["a", "b"]), ["a"], k=1)
    assert (chosen.excluded, chosen.nan, chosen.eligible) == (1, 0, 1)


def test_a_k_larger_than_what_is_left_is_an_error_that_names_both() -> None:
    with pytest.raises(SelectionError, match=r"k = 9, but 4 images are left .*1 are excluded"):
        _top(_table(np.arange(5.0), list("abcde")), ["a"], k=9)


def test_at_most_takes_what_is_left() -> None:
    chosen = _top(_table(np.arange(5.0), list("abcde")), ["a"], k=9, at_most=True)
    assert chosen.ids == ["e", "d", "c", "b"]


def test_nothing_left_is_an_error_even_with_at_most() -> None:
    for table, exclude in ((_table([1.0], ["a"]), ["a"]), (_table(pa.array([], pa.float64())), [])):
        with pytest.raises(SelectionError, match=r"0 images are left.*score more images"):
            _top(table, exclude, k=1, at_most=True)


@pytest.mark.parametrize("strategy", ["top", "diverse", "random"])
@pytest.mark.parametrize("subset", [0, 60, 0.4])
def test_the_batching_of_the_source_changes_nothing(strategy: Any, subset: float) -> None:
    random = np.random.default_rng(0)
    table = _table(random.integers(0, 9, 300) / 8.0, vectors=random.normal(size=(300, 5)))
    settings = SelectionSettings(k=10, strategy=strategy, subset=subset, seed=3)
    whole = select(TableScores(table), settings, ["0007.jpg"])
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(300) if seed else np.arange(300)
        found = select(_Chunks(table.take(order), seed), settings, ["0007.jpg"])
        assert found.ids == whole.ids
        assert found.scores.tobytes() == whole.scores.tobytes()
        assert (found.excluded, found.eligible) == (whole.excluded, whole.eligible)


def test_a_pool_far_larger_than_what_is_held_is_ordered_exactly() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 2000, 300_000) / 8.0
    scores[random.integers(0, 300_000, 500)] = np.nan
    names = np.char.mod("%06d", random.permutation(300_000))
    table = pa.Table.from_batches(_table(scores, names.tolist()).to_batches(max_chunksize=9_999))
    chosen = _top(table, k=5000)
    order = np.lexsort((names, -scores))[:5000]  # NaN sorts last
    assert chosen.ids == names[order].tolist()
    assert chosen.nan == int(np.isnan(scores).sum())
    assert chosen.eligible + chosen.nan == chosen.pool == 300_000


@pytest.mark.parametrize("count", [150, 80_000])
def test_a_sub_pool_of_a_number_is_the_images_of_the_smallest_hashes(count: int) -> None:
    scores = np.random.default_rng(0).permutation(count).astype(float)
    table = pa.Table.from_batches(_table(scores).to_batches(max_chunksize=7_777))
    chosen = _top(table, k=5, subset=40, seed=9)
    ids = table["id"].to_pylist()
    drawn = sorted(ids, key=lambda id: (draw_hash(id, 9), id))[:40]
    score = dict(zip(ids, scores.tolist(), strict=True))
    assert chosen.ids == sorted(drawn, key=lambda id: -score[id])[:5]
    assert (chosen.eligible, chosen.pool) == (40, count)


def test_a_sub_pool_holds_no_excluded_and_no_unscored_image() -> None:
    scores = np.where(np.arange(100) % 3 == 0, np.nan, 1.0)
    exclude = [f"{row:04d}.jpg" for row in range(0, 100, 2)]
    chosen = _top(_table(scores), exclude, k=30, subset=30)
    rows = [int(id[:4]) for id in chosen.ids]
    assert len(rows) == chosen.eligible == 30
    assert all(row % 2 and row % 3 for row in rows)


def test_a_sub_pool_larger_than_the_pool_is_the_pool() -> None:
    table = _tied(50)
    assert _top(table, k=5, subset=1000).ids == _top(table, k=5).ids
    assert _top(table, k=5, subset=1000).eligible == 50


def test_a_sub_pool_of_a_share_is_the_hashes_below_it() -> None:
    table = _tied(2000)
    chosen = _top(table, k=2000, subset=0.25, seed=4, at_most=True)
    ids = table["id"].to_pylist()
    assert set(chosen.ids) == {id for id in ids if draw_hash(id, 4) < 2**62}
    assert 400 < chosen.eligible == len(chosen) < 600


def test_a_sub_pool_of_one_is_one_image() -> None:
    """A share is below 1; the numbers from 1 on are numbers of images."""
    assert _top(_tied(50), k=1, subset=1).eligible == 1


def test_a_k_larger_than_the_sub_pool_is_an_error_that_names_it() -> None:
    with pytest.raises(SelectionError, match=r"k = 20, but 10 images.*sub-pool is 10"):
        _top(_tied(50), k=20, subset=10)


def test_random_ignores_the_scores_and_follows_the_seed() -> None:
    one, other = _tied(200, 1), _tied(200, 2)
    ids = sorted(one["id"].to_pylist())
    draws = [_top(table, k=20, strategy="random", seed=5).ids for table in (one, other)]
    assert draws[0] == draws[1] == draw_ids(ids, 20, 5)
    assert _top(one, k=20, strategy="random", seed=6).ids != draws[0]


def test_draws_are_uniform_over_images_and_independent_between_seeds() -> None:
    ids = [str(row) for row in range(20_000)]
    one = np.array([draw_hash(id, 0) for id in ids]) / 2.0**64
    other = np.array([draw_hash(id, 1) for id in ids]) / 2.0**64
    assert abs(np.histogram(one, 10, (0, 1))[0] - 2000).max() < 250
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


def test_a_draw_is_the_same_in_every_release() -> None:
    """Selections are promised to repeat; whoever changes this number breaks that promise."""
    assert draw_hash("a/b.jpg", 0) == 8810039071766670580
    assert draw_hash("ü", 12345678901234567890) == 15050561137743936179


def _clusters() -> tuple[pa.Table, NDArray[np.int64]]:
    """Four clusters; all the highest scores lie in the first of them."""
    random = np.random.default_rng(0)
    cluster = np.arange(64) % 4
    centers = np.array([[0, 0], [100, 0], [0, 100], [100, 100]])
    vectors = centers[cluster] + random.normal(size=(64, 2))
    scores = np.where(cluster == 0, 2.0, 1.0) + random.random(64) * 0.5
    return _table(scores, vectors=vectors), cluster


def test_diverse_picks_lie_among_the_best_candidates_and_start_with_the_best() -> None:
    table, _ = _clusters()
    chosen = _top(table, k=8, strategy="diverse")
    best = [id for _, id in _sorted(table)]
    assert chosen.ids[0] == best[0]
    assert len(set(chosen.ids)) == 8
    assert set(chosen.ids) <= set(best[:32])
    score = {id: -score for score, id in _sorted(table)}
    assert chosen.scores.tolist() == [score[id] for id in chosen.ids]


def test_diverse_picks_spread_over_the_clusters_where_top_does_not() -> None:
    table, cluster = _clusters()
    met = {
        strategy: {cluster[int(id[:4])] for id in _top(table, k=8, strategy=strategy).ids}
        for strategy in ("top", "diverse")
    }
    assert met == {"top": {0}, "diverse": {0, 1, 2, 3}}


def test_diverse_takes_no_near_duplicate_while_others_are_left() -> None:
    vectors = np.repeat(np.eye(4) * 10, 4, 0)  # four copies of four images
    table = _table(np.arange(16.0), vectors=vectors)
    chosen = _top(table, k=4, strategy="diverse")
    assert sorted(int(id[:4]) // 4 for id in chosen.ids) == [0, 1, 2, 3]


def test_diverse_equals_k_center_over_the_candidates_in_the_order_of_their_scores() -> None:
    random = np.random.default_rng(1)
    vectors = random.normal(size=(100, 6)).astype(np.float32)
    table = _table(random.random(100), vectors=vectors)
    best = [id for _, id in _sorted(table)][:40]
    picks = k_center(vectors[[int(id[:4]) for id in best]], 10)
    assert _top(table, k=10, strategy="diverse").ids == [best[pick] for pick in picks]


def test_diverse_with_no_more_candidates_than_picks_takes_all() -> None:
    table, _ = _clusters()
    assert sorted(_top(table, k=64, strategy="diverse").ids) == sorted(table["id"].to_pylist())


def _exact_k_center(points: Sequence[Sequence[Fraction]], k: int) -> list[int]:
    picked = [0]
    while len(picked) < k:
        nearest = [
            min(sum((a - b) ** 2 for a, b in zip(p, points[q], strict=True)) for q in picked)
            for p in points
        ]
        left = [row for row in range(len(points)) if row not in picked]
        picked.append(max(left, key=lambda row: (nearest[row], -row)))
    return picked


@pytest.mark.parametrize("seed", range(4))
def test_k_center_equals_brute_force_in_exact_arithmetic(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(30, 5)).astype(np.float32)
    exact = [[Fraction(float(x)) for x in row] for row in points]
    assert k_center(points, 12).tolist() == _exact_k_center(exact, 12)


@pytest.mark.parametrize("seed", range(4))
def test_k_center_gives_ties_to_the_earlier_row(seed: int) -> None:
    points = np.random.default_rng(seed).integers(-1, 2, (40, 4))  # duplicates and equal distances
    exact = [[Fraction(int(x)) for x in row] for row in points]
    assert k_center(points.astype(np.float32), 40).tolist() == _exact_k_center(exact, 40)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_k_center_does_not_depend_on_the_order_or_scale_of_the_columns(scale: float) -> None:
    random = np.random.default_rng(0)
    points = random.integers(-2, 3, (200, 512)).astype(np.float64)
    picks = k_center(points, 50).tolist()
    for _ in range(3):
        assert k_center(points[:, random.permutation(512)] * scale, 50).tolist() == picks


def test_k_center_of_equal_rows_takes_them_in_order() -> None:
    assert k_center(np.ones((5, 3)), 4).tolist() == [0, 1, 2, 3]
    assert k_center(np.zeros((5, 1)), 5).tolist() == [0, 1, 2, 3, 4]


def test_k_center_survives_embeddings_that_are_no_numbers() -> None:
    points = np.random.default_rng(0).normal(size=(10, 3))
    points[3], points[5, 1] = np.nan, np.inf
    assert sorted(k_center(points, 10).tolist()) == list(range(10))


def test_a_selection_is_a_table_with_ranks() -> None:
    table = _top(_table([1.0, 3.0, 2.0], ["a", "b", "c"]), k=2).table()
    assert table.to_pydict() == {"id": ["b", "c"], "score": [3.0, 2.0], "rank": [1, 2]}
    assert table.schema.types == [pa.string(), pa.float64(), pa.int64()]


def test_another_column_can_be_the_score() -> None:
    table = _table([1.0, 2.0], ["a", "b"]).append_column("entropy", [[2.0, 1.0]])
    assert _top(table, k=1, by="entropy").ids == ["a"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", 0),
        ("k", -1),
        ("strategy", "best"),
        ("subset", -1),
        ("subset", 1.5),
        ("subset", 10.5),
        ("subset", math.nan),
        ("subset", math.inf),
    ],
)
def test_an_unusable_setting_is_refused_with_its_value(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"{name}.*{value}"):
        SelectionSettings(**{"k": 1, name: value})
