"""Selections equal a sort of all rows, and count what they leave out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lloss.errors import ScoresError, SelectionError, SettingsError
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import SelectionSettings, select
from lloss.selection.hashing import draw_ids
from lloss.selection.selection import COMPARED_MOST

from .score_tables import best_ids, score_table, select_from, tied_table


def write_parts(folder: Path, table: pa.Table, random: np.random.Generator) -> ScoresFolder:
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
    table = score_table(scores, [f"{n:x}" for n in random.permutation(count)])
    folder = write_parts(tmp_path, table, random)
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
            with pytest.raises(SelectionError, match="no images are left"):
                select(folder, settings, exclude)
            continue
        chosen = select(folder, settings, exclude)
        assert list(zip(sign * chosen.scores, chosen.ids, strict=True)) == expected[:k]
        assert (chosen.pool, chosen.eligible) == (count, len(expected))
        assert (chosen.excluded, chosen.unscored) == (count - len(left), len(left) - len(expected))


@pytest.mark.parametrize("rising", [False, True])
def test_a_pool_far_larger_than_the_rows_held_is_ordered_exactly(rising: bool) -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 2000, 100_000) / 8.0
    scores = np.sort(scores) if rising else scores
    names = np.char.mod("%06d", random.permutation(100_000))
    batches = score_table(scores, names.tolist()).to_batches(max_chunksize=3_333)
    chosen = select_from(pa.Table.from_batches(batches), k=2000)
    assert chosen.ids == names[np.lexsort((names, -scores))[:2000]].tolist()


def test_ids_are_ordered_by_their_bytes_in_utf8_and_zeros_tie() -> None:
    ids = ["b", "a", "B", "é", "10", "9", "\U0001f431", "\uffff"]
    assert select_from(score_table([0.0, -0.0] * 4, ids), k=8).ids == sorted(ids, key=str.encode)


@pytest.mark.parametrize(
    "settings", [{}, {"order": "lowest"}, {"strategy": "random"}, {"subset": 9}]
)
def test_unusable_and_excluded_images_are_counted_once_and_never_selected(
    settings: dict[str, Any],
) -> None:
    scores = pa.array([1.0, math.inf, -math.inf, 1e300, math.nan, math.nan, None])
    table = score_table(scores, list("abcdefg"))
    chosen = select_from(table, ["f", "unknown"], k=2, **settings)
    assert sorted(chosen.ids) == ["a", "d"]
    counts = (chosen.unscored, chosen.excluded, chosen.eligible, chosen.pool)
    assert counts == (4, 1, 2, 7)
    assert chosen.unusable() == ["4 without a finite score"]
    what = "k = 3, but 2 images are left .*1 excluded, 4 without a finite score"
    with pytest.raises(SelectionError, match=what):
        select_from(table, ["f"], k=3, **settings)
    assert len(select_from(table, ["f"], k=3, at_most=True, **settings)) == 2


@pytest.mark.parametrize("exclude", [["a"], ["a", "b"]])
def test_nothing_left_is_an_error_even_with_at_most(exclude: list[str]) -> None:
    table = score_table(pa.array([1.0] * (len(exclude)), pa.float64()), exclude)
    for rows in (table, table.slice(0, 0)):
        with pytest.raises(SelectionError, match=r"no images are left.*score more images"):
            select_from(rows, exclude, k=1, at_most=True)


@pytest.mark.parametrize("strategy", ["top", "diverse", "random"])
@pytest.mark.parametrize("subset", [0, 60])
@pytest.mark.parametrize("threads", [1, 8])
def test_neither_order_nor_batches_nor_threads_change_a_selection(
    tmp_path: Path, strategy: str, subset: int, threads: int
) -> None:
    random = np.random.default_rng(threads)
    table = score_table(random.integers(0, 9, 300) / 8.0, vectors=random.normal(size=(300, 5)))
    settings = SelectionSettings(k=10, strategy=strategy, subset=subset, seed=3)
    exclude = ["0007.jpg", "0100.jpg"]
    whole = select_from(table, exclude, **vars(settings))
    before = pa.cpu_count()
    try:
        pa.set_cpu_count(threads)
        folder = write_parts(tmp_path, table.take(random.permutation(300)), random)
        chosen = select(folder, settings, exclude)
    finally:
        pa.set_cpu_count(before)
    assert chosen.ids == whole.ids
    assert chosen.scores.tobytes() == whole.scores.tobytes()
    assert (chosen.excluded, chosen.eligible) == (whole.excluded, whole.eligible)


@pytest.mark.parametrize("count", [150, 20_000])
def test_a_sub_pool_of_a_number_is_the_images_of_the_smallest_hashes(count: int) -> None:
    table = score_table(np.random.default_rng(0).permutation(count).astype(float))
    table = pa.Table.from_batches(table.to_batches(max_chunksize=1_777))
    chosen = select_from(table, k=5, subset=40, seed=9)
    drawn = set(draw_ids(table["id"].to_pylist(), 40, 9))
    assert chosen.ids == [id for id in best_ids(table) if id in drawn][:5]
    assert (chosen.eligible, chosen.pool) == (40, count)


def test_the_size_of_a_sub_pool() -> None:
    table = tied_table(50)
    larger = select_from(table, k=5, subset=1000)
    assert larger.ids == best_ids(table)[:5] and larger.eligible == 50
    with pytest.raises(SelectionError, match=r"k = 20, but 10 images.*sub-pool is 10"):
        select_from(table, k=20, subset=10)


def test_random_ignores_the_scores_and_follows_the_seed() -> None:
    tables = tied_table(200, 1), tied_table(200, 2)
    draws = [select_from(table, k=20, strategy="random", seed=5).ids for table in tables]
    assert draws[0] == draws[1] == draw_ids(tables[0]["id"].to_pylist(), 20, 5)
    assert select_from(tables[0], k=20, strategy="random", seed=6).ids != draws[0]


def test_a_selection_is_a_table_with_ranks() -> None:
    table = select_from(score_table([1.0, 3.0, 2.0], ["a", "b", "c"]), k=2).table()
    assert table.to_pydict() == {
        "id": ["b", "c"], "score": [3.0, 2.0], "rank": [1, 2], "reason": ["highest loss"] * 2,
    }  # fmt: skip
    assert table.schema.types == [pa.string(), pa.float64(), pa.int64(), pa.string()]


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
        ("days", "lowest", "a"),
    ],
)
@pytest.mark.parametrize("strategy", ["top", "diverse"])
def test_a_column_is_taken_from_the_end_that_is_worth_labeling(
    by: str, order: str, first: str, strategy: str
) -> None:
    values = pa.array([1.0, 2.0], pa.float32())
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([0.0, 1.0], pa.float32()), 1)
    table = pa.table({"id": ["a", "b"], by: values, "embedding": vectors})
    chosen = select_from(table, k=1, by=by, order=order, strategy=strategy)
    assert chosen.ids == [first]
    assert chosen.scores.tolist() == [{"a": 1.0, "b": 2.0}[first]]
    metadata = chosen.table().schema.metadata
    expected = order or {"loss": "highest", "entropy": "highest"}.get(by, "lowest")
    assert (metadata[b"by"].decode(), metadata[b"order"].decode()) == (by, expected)


@pytest.mark.parametrize("by", ["prediction", "Loss"])
def test_a_column_of_no_known_direction_needs_one(by: str) -> None:
    table = pa.table({"id": ["a", "b"], by: [1.0, 2.0]})
    with pytest.raises(SettingsError, match=f"by '{by}'.*--highest or --lowest"):
        select_from(table, k=1, by=by)
    assert len(select_from(table, k=1, by=by, strategy="random")) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", 0),
        ("strategy", "best"),
        ("order", "first"),
        ("by", "id"),
        ("subset", -1),
        ("subset", 1.5),
        ("subset", math.nan),
        ("subset", math.inf),
        ("k", 2.5),
        ("k", True),
        ("k", "3"),
        ("seed", 0.5),
    ],
)
def test_an_unusable_setting_is_refused_with_its_value(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"{name}.*{value}"):
        SelectionSettings(**{"k": 1, name: value})


@pytest.mark.parametrize(("strategy", "k"), [("top", 2), ("random", 9), ("herding", 2)])
def test_an_id_of_two_rows_is_refused(strategy: str, k: int) -> None:
    table = score_table(np.arange(9) / 8, [*"bcdefgh", "a", "a"], np.eye(9))
    with pytest.raises(SelectionError, match="more than one row of 'a'"):
        select_from(table, k=k, strategy=strategy)


def _columns(ids: Sequence[str | None], **columns: Any) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.string()), **columns})


@pytest.mark.parametrize(
    ("table", "by", "error", "message"),
    [
        (_columns(["a"], loss=[1.0]), "entropy", ScoresError,
         r"no column 'entropy' \(\w+ ha\w+ id, loss\)"),
        (_columns(["a"], loss=["b"]), "loss", SettingsError, "'loss' holds no floating"),
        (_columns(["a"], loss=[1]), "loss", SettingsError, "'loss' holds no floating"),
        (_columns(["a", None], loss=[1.0, 2.0]), "loss", SelectionError, "1 row has no id"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("on_disk", [False, True])
def test_scores_that_cannot_be_used_are_one_line(
    tmp_path: Path, table: pa.Table, by: str, error: type[Exception], message: str, on_disk: bool
) -> None:
    with pytest.raises(error, match=message) as raised:
        if on_disk:
            folder = write_parts(tmp_path, table, np.random.default_rng(1))
            select(folder, SelectionSettings(k=1, by=by))
        else:
            select_from(table, k=1, by=by)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("strategy", ["random", "coverage"])
def test_a_strategy_without_scores_needs_no_column_of_them(strategy: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 4))
    table = score_table(np.zeros(20), vectors=vectors).drop_columns(["loss"])
    chosen = select_from(table, k=5, strategy=strategy)
    assert len(set(chosen.ids)) == 5 and np.isnan(chosen.scores).all()


def test_images_are_compared_unless_they_cannot_be_or_a_strategy_is_given() -> None:
    random = np.random.default_rng(0)
    compared = score_table(random.random(30), vectors=random.normal(size=(30, 4)))
    alone = compared.drop_columns(["embedding"])
    settings = SelectionSettings(k=5)

    chosen = select_from(compared, k=5)
    assert chosen.settings.strategy == "herding" and settings.assumption(chosen) == ""
    assert chosen.ids == select_from(compared, k=5, strategy="herding").ids
    highest = select_from(alone, k=5)
    assert highest.settings.strategy == "top" and highest.ids == best_ids(alone)[:5]
    assert settings.assumption(highest) == (
        "the scores have no embeddings to compare images by: these are the highest, however alike"
    )
    assert replace(settings, strategy="top").assumption(highest) == ""
    ordered = select_from(compared, k=5, order="highest")
    assert ordered.ids == highest.ids
    assert replace(settings, order="highest").assumption(ordered) == ""
    fixed = alone.append_column("pretrained_embedding", compared["embedding"])
    assert select_from(fixed, k=5).spread_by == "pretrained_embedding"
    other = alone.append_column("clip", compared["embedding"])
    assert select_from(other, k=5).settings.strategy == "top"
    assert select_from(other, k=5, embedding="clip").ids == chosen.ids


def test_many_picks_are_compared_only_where_a_strategy_is_given() -> None:
    count = COMPARED_MOST + 1
    compared = score_table(np.arange(count + 5.0), vectors=np.ones((count + 5, 1)))
    chosen = select_from(compared, k=count)
    assert chosen.ids == best_ids(compared)[:count]
    assert SelectionSettings(k=count).assumption(chosen) == (
        "picks of more than 10,000 are compared only if strategy herding is given: these are the "
        "highest, however alike"
    )
    assert SelectionSettings(k=count, class_weight="balanced").resolved([]).strategy == "herding"
