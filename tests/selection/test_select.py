from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from lloss.errors import ScoresError, SelectionError, SettingsError
from lloss.scores.score_source import BatchRows, Piece, Rows, TableScores
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import Selection, SelectionSettings, select
from lloss.selection.hashing import draw_hashes, draw_ids
from lloss.selection.kcenter import k_center


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


@pytest.mark.parametrize(
    "settings", [{}, {"order": "lowest"}, {"strategy": "random"}, {"subset": 9}]
)
def test_infinite_scores_are_counted_and_never_selected(settings: dict[str, Any]) -> None:
    scores = [1.0, math.inf, -math.inf, 1e300, math.nan, math.inf]
    chosen = _top(_table(scores, list("abcdef")), ["f"], k=2, **settings)
    assert sorted(chosen.ids) == ["a", "d"]
    counts = (chosen.infinite, chosen.nan, chosen.excluded, chosen.eligible, chosen.pool)
    assert counts == (2, 1, 1, 2, 6)
    assert "2 with an infinite score left out" in chosen.notes()
    with pytest.raises(SelectionError, match=r"2 images are left.*3 have an infinite score"):
        _top(_table(scores, list("abcdef")), k=3, **settings)


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
    hashes = dict(zip(ids, draw_hashes(pa.array(ids), 9).tolist(), strict=True))
    drawn = sorted(ids, key=lambda id: (hashes[id], id))[:40]
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
    hashes = draw_hashes(pa.array(ids), 4).tolist()
    assert set(chosen.ids) == {id for id, hash in zip(ids, hashes, strict=True) if hash < 2**62}
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


def test_a_selection_is_a_table_with_ranks() -> None:
    table = _top(_table([1.0, 3.0, 2.0], ["a", "b", "c"]), k=2).table()
    assert table.to_pydict() == {"id": ["b", "c"], "score": [3.0, 2.0], "rank": [1, 2]}
    assert table.schema.types == [pa.string(), pa.float64(), pa.int64()]


@pytest.mark.parametrize(
    ("by", "order", "first"),
    [
        ("loss", "", "b"),
        ("entropy", "", "b"),
        ("confidence", "", "a"),
        ("margin", "", "a"),
        ("loss", "lowest", "a"),
        ("margin", "highest", "b"),
        ("prediction", "highest", "b"),
        ("prediction", "lowest", "a"),
        ("days", "lowest", "a"),
    ],
)
@pytest.mark.parametrize("strategy", ["top", "diverse"])
def test_a_column_is_taken_from_the_end_that_is_worth_labeling(
    by: str, order: str, first: str, strategy: str
) -> None:
    values = pa.array([1, 2]) if by == "days" else pa.array([1.0, 2.0], pa.float32())
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([0.0, 1.0], pa.float32()), 1)
    table = pa.table({"id": ["a", "b"], by: values, "embedding": vectors})
    chosen = _top(table, k=1, by=by, order=order, strategy=strategy)
    assert chosen.ids == [first]
    assert chosen.scores.tolist() == [{"a": 1.0, "b": 2.0}[first]]  # as it stands there
    said = chosen.table().schema.metadata
    expected = order or {"loss": "highest", "entropy": "highest"}.get(by, "lowest")
    assert (said[b"by"].decode(), said[b"order"].decode()) == (by, expected)


@pytest.mark.parametrize("by", ["prediction", "days", "Loss"])
def test_a_column_of_no_known_direction_needs_one(by: str) -> None:
    values = pa.array([1, 2]) if by == "days" else pa.array([1.0, 2.0])
    table = pa.table({"id": ["a", "b"], by: values})
    with pytest.raises(SettingsError, match=f"by '{by}'.*--highest or --lowest"):
        _top(table, k=1, by=by)
    assert len(_top(table, k=1, by=by, strategy="random")) == 1  # which asks for none


def test_whole_numbers_are_ranked_exactly_or_refused() -> None:
    table = pa.table({"id": ["a", "b", "c"], "n": pa.array([2**53, 2**53 - 1, None])})
    chosen = _top(table, k=2, by="n", order="lowest")
    assert chosen.ids == ["b", "a"] and chosen.nan == 1
    table = pa.table({"id": ["a", "b"], "n": pa.array([2**53, 2**53 + 1])})
    with pytest.raises(SettingsError, match=r"'n' holds whole numbers beyond 2\*\*53"):
        _top(table, k=1, by="n", order="highest")


def test_diverse_spreads_over_the_best_of_the_direction() -> None:
    random = np.random.default_rng(2)
    vectors = random.normal(size=(100, 6)).astype(np.float32)
    table = _table(random.random(100), vectors=vectors)
    best = [id for _, id in sorted((-score, id) for score, id in _sorted(table))][:40]
    picks = k_center(vectors[[int(id[:4]) for id in best]], 10)
    chosen = _top(table, k=10, strategy="diverse", order="lowest")
    assert chosen.ids == [best[pick] for pick in picks]


def test_diverse_leaves_out_and_counts_embeddings_without_a_usual_distance() -> None:
    random = np.random.default_rng(3)
    vectors = random.normal(size=(40, 4)).astype(np.float32)
    table = _table(np.arange(40.0), vectors=vectors)
    broken = vectors.copy()
    broken[39, 0], broken[30], broken[31, 2] = np.nan, np.inf, 1e30
    left = [row for row in range(39, -1, -1) if row not in (39, 30, 31)]
    picks = k_center(vectors[left], 10)
    chosen = _top(_table(np.arange(40.0), vectors=broken), k=10, strategy="diverse")
    assert chosen.ids == [f"{left[pick]:04d}.jpg" for pick in picks]
    assert chosen.unspread == 3 and _top(table, k=10, strategy="diverse").unspread == 0
    assert "3 with an infinite or extreme embedding left out" in chosen.notes()


def test_diverse_refuses_when_too_few_embeddings_have_a_distance() -> None:
    vectors = np.full((8, 2), np.nan, np.float32)
    vectors[0] = 1
    table = _table(np.arange(8.0), vectors=vectors)
    with pytest.raises(SelectionError, match=r"7 of the 8 candidates.*--strategy top"):
        _top(table, k=2, strategy="diverse")
    chosen = _top(table, k=2, strategy="diverse", at_most=True)
    assert chosen.ids == ["0000.jpg"] and chosen.unspread == 7


@pytest.mark.parametrize(
    "vectors",
    [
        pa.array([[1.0, 2.0], [1.0], [1.0, 2.0, 3.0]]),  # six numbers, as of three vectors of two
        pa.array(["a", "b", "c"]),
        pa.array([["a"], ["b"], ["c"]]),
    ],
)
def test_embeddings_that_are_no_vectors_are_refused(vectors: pa.Array) -> None:
    table = pa.table({"id": ["a", "b", "c"], "loss": [1.0, 2.0, 3.0], "embedding": vectors})
    with pytest.raises(SelectionError, match="choose --strategy top"):
        _top(table, k=2, strategy="diverse")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", 0),
        ("k", -1),
        ("strategy", "best"),
        ("order", "first"),
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


def _parts(folder: Path, table: pa.Table, random: np.random.Generator) -> ScoresFolder:
    """The rows in parts of random sizes, each in small row groups."""
    cuts = np.sort(random.integers(0, len(table) + 1, 4)).tolist()
    for number, (start, end) in enumerate(pairwise([0, *cuts, len(table)])):
        rows = table.slice(start, end - start)
        size = int(random.integers(1, 80))
        pq.write_table(rows, folder / f"part-{number:05d}.parquet", row_group_size=size)
    return ScoresFolder(folder)


@pytest.mark.parametrize("seed", range(12))
def test_random_tables_on_disk_equal_a_sort_of_all_rows(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 30 if seed < 4 else 2000))
    values = random.choice([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan], count)
    kind = random.choice(["float16", "float32", "float64"])
    scores = pa.array(values.astype(kind), mask=random.random(count) < 0.1)
    table = _table(scores, [f"{n:x}" for n in random.permutation(count)])
    folder = _parts(tmp_path, table, random)
    exclude = random.choice([*table["id"].to_pylist(), "unknown"], int(random.integers(0, 30)))
    rows = zip(scores.to_pylist(), table["id"].to_pylist(), strict=True)
    left = [(score, id) for score, id in rows if id not in exclude]
    scored = [(score, id) for score, id in left if score is not None and score == score]
    order = str(random.choice(["highest", "lowest"]))
    sign = -1.0 if order == "highest" else 1.0
    expected = sorted((sign * score, id) for score, id in scored if math.isfinite(score))
    for k in {1, max(len(expected) // 3, 1), max(len(expected), 1), count + 1}:
        settings = SelectionSettings(k=k, at_most=True, order=order)
        if not expected:
            with pytest.raises(SelectionError, match="0 images are left"):
                select(folder, settings, exclude)
            continue
        chosen = select(folder, settings, exclude)
        assert list(zip(sign * chosen.scores, chosen.ids, strict=True)) == expected[:k]
        assert (chosen.pool, chosen.eligible) == (count, len(expected))
        assert (chosen.excluded, chosen.nan) == (count - len(left), len(left) - len(scored))
        assert chosen.infinite == len(scored) - len(expected)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_the_number_of_threads_changes_no_byte(tmp_path: Path, threads: int) -> None:
    random = np.random.default_rng(0)
    folder = _parts(tmp_path, _tied(500), random)
    before = pa.cpu_count()
    try:
        pa.set_cpu_count(threads)
        for strategy in ("top", "random"):
            chosen = select(folder, SelectionSettings(k=40, strategy=strategy))
            whole = _top(_tied(500), k=40, strategy=strategy)
            assert chosen.ids == whole.ids
            assert chosen.scores.tobytes() == whole.scores.tobytes()
    finally:
        pa.set_cpu_count(before)


def test_rows_appended_to_a_pool_do_not_change_who_is_drawn() -> None:
    before, after = _tied(1000), _table(np.ones(500), [f"new {n}" for n in range(500)])
    both = pa.concat_tables([after, before])
    one = _top(before, k=1000, subset=0.3, at_most=True).ids
    two = _top(both, k=1500, subset=0.3, at_most=True).ids
    assert set(one) == {id for id in two if not id.startswith("new")}


class _Recorded:
    """A source that notes which columns of which rows are read."""

    def __init__(self, table: pa.Table, size: int) -> None:
        self.batches = table.to_batches(max_chunksize=size)
        self.read: list[tuple[str, int]] = []

    def pieces(self) -> Iterator[Piece]:
        for number in range(len(self.batches)):
            yield partial(self._rows, number)

    def _rows(self, number: int) -> Iterator[Rows]:
        yield _RecordedRows(self, number)


@dataclass(frozen=True)
class _RecordedRows:
    source: _Recorded
    number: int

    def read(self, *columns: str) -> list[pa.Array]:
        self.source.read += [(name, self.number) for name in columns]
        return BatchRows(self.source.batches[self.number]).read(*columns)


def test_ids_are_read_only_where_they_may_decide() -> None:
    scores = np.concatenate([np.full(1000, 2.0), np.ones(99_000)])
    source = _Recorded(_table(scores, [f"{n:06d}" for n in range(100_000)]), 1000)
    chosen = select(source, SelectionSettings(k=10))
    assert chosen.ids == [f"{n:06d}" for n in range(10)]
    assert {number for name, number in source.read if name == "loss"} == set(range(100))
    assert len([number for name, number in source.read if name == "id"]) < 20


def test_embeddings_are_read_only_where_candidates_lie() -> None:
    random = np.random.default_rng(0)
    scores = np.where(np.arange(10_000) // 100 % 20 == 7, 1.0, 0.0) + random.random(10_000)
    table = _table(scores, vectors=random.normal(size=(10_000, 3)))
    source = _Recorded(table, 100)
    chosen = select(source, SelectionSettings(k=20, strategy="diverse"))
    best = {int(id[:4]) // 100 for _, id in _sorted(table)[:80]}
    assert {number for name, number in source.read if name == "embedding"} == best
    assert chosen.ids == _top(table, k=20, strategy="diverse").ids


def test_a_damaged_part_stops_a_selection_with_one_line(tmp_path: Path) -> None:
    folder = _parts(tmp_path, _tied(100), np.random.default_rng(1))
    (tmp_path / "part-00002.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(ScoresError, match=r"cannot be read: .*part-00002\.parquet") as caught:
        select(folder, SelectionSettings(k=3))
    assert "\n" not in str(caught.value)


def test_a_column_that_is_missing_or_holds_no_numbers_is_one_line(tmp_path: Path) -> None:
    folder = _parts(tmp_path, _tied(100), np.random.default_rng(1))
    with pytest.raises(ScoresError, match=r"no column 'entropy' \(it has id, loss\)"):
        select(folder, SelectionSettings(k=3, by="entropy"))
    with pytest.raises(ScoresError, match=r"no column 'entropy' \(they have id, loss\)"):
        _top(_tied(10), k=3, by="entropy")
    with pytest.raises(SettingsError, match="by 'id': select by a column of numbers"):
        _top(_tied(10), k=3, by="id")


def test_a_row_without_an_id_is_refused() -> None:
    table = pa.table({"id": pa.array(["a", None]), "loss": [1.0, 2.0]})
    with pytest.raises(SelectionError, match="1 rows have no id"):
        _top(table, k=1)


@pytest.mark.parametrize("seed", range(3))
def test_scanning_and_reading_in_pieces_select_the_same(tmp_path: Path, seed: int) -> None:
    class InPieces:
        """The same folder, without what scans it."""

        def __init__(self, folder: ScoresFolder) -> None:
            self.pieces = folder.pieces

    folder = _parts(tmp_path, _tied(3000), np.random.default_rng(seed))
    for k, order in ((1, "highest"), (50, "lowest"), (50, "highest"), (2900, "lowest")):
        scanned = select(folder, SelectionSettings(k=k, order=order))
        read = select(InPieces(folder), SelectionSettings(k=k, order=order))
        assert scanned.ids == read.ids and np.array_equal(scanned.scores, read.scores)
        assert (scanned.pool, scanned.nan, scanned.eligible) == (read.pool, read.nan, read.eligible)
