"""What holds for every strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lloss.errors import ScoresError, SelectionError, SettingsError
from lloss.scores.score_source import TableScores
from lloss.scores.scores_folder import scores_table
from lloss.selection import Selection, SelectionSettings, select
from lloss.selection.strategies import STRATEGIES, Candidates
from lloss.selection.strategies.strategy import EMBEDDING

DRAWING = {"random", "power", "herding", "badge", "loss-badge", "typiclust", "random-k-center"}
"""Whose picks a seed changes; of the others it may only where a large pool is sampled."""

LABELED = [f"{row:04d}.jpg" for row in range(24)]

every_strategy = pytest.mark.parametrize("name", sorted(STRATEGIES))


def pool(name: str, count: int = 400, seed: int = 0, **columns: Any) -> pa.Table:
    """Scores with all that a strategy reads; losses tie often."""
    random, strategy = np.random.default_rng(seed), STRATEGIES[name]
    values: dict[str, Any] = {"loss": random.integers(0, 40, count) / 8 - 2}
    values |= {scalar: random.random(count) for scalar in strategy.scalars}
    values |= {vector: random.normal(size=(count, 6)) for vector in strategy.vectors}
    if "probabilities" in values:
        values["probabilities"] = random.dirichlet(np.ones(5), count)
    return scores_table([f"{row:04d}.jpg" for row in range(count)], values | columns)


def chosen(name: str, table: pa.Table, exclude: Sequence[str] = (), **settings: Any) -> Selection:
    """Select from a table; K = 20 by default."""
    given = {"k": 20, "seed": 3, **settings}
    return select(TableScores(table), SelectionSettings(strategy=name, **given), exclude)


@every_strategy
def test_it_picks_k_different_images_of_those_allowed(name: str) -> None:
    losses = np.random.default_rng(1).normal(size=400)
    losses[50:60], losses[60:70] = np.nan, np.inf
    selection = chosen(name, pool(name, loss=losses), LABELED)
    refused = {*LABELED, *(f"{row:04d}.jpg" for row in range(50, 70))}
    assert len(set(selection.ids)) == 20 and not refused & set(selection.ids)
    assert selection.scores.tolist() == [
        losses.astype(np.float32)[int(id[:4])] for id in selection.ids
    ]
    assert (selection.excluded, selection.unscored, selection.eligible) == (24, 20, 356)
    assert len(selection.reasons) == 20
    assert all(reason and not set(reason) & set(",\r\n") for reason in selection.reasons)


@every_strategy
@pytest.mark.parametrize("labeled", [[], LABELED])
def test_neither_the_order_of_rows_nor_batches_decide(name: str, labeled: list[str]) -> None:
    table = pool(name)
    whole = chosen(name, table, labeled)
    shuffled = table.take(np.random.default_rng(2).permutation(400))
    batches = pa.Table.from_batches(shuffled.to_batches(max_chunksize=37))
    again = chosen(name, batches, labeled)
    assert again.ids == whole.ids and list(again.reasons) == list(whole.reasons)
    assert again.scores.tobytes() == whole.scores.tobytes()


@every_strategy
def test_sums_in_another_order_give_the_same_picks(name: str) -> None:
    """As another BLAS, or another number of threads, would add."""
    random = np.random.default_rng(4)
    columns = {vector: random.normal(size=(400, 64)) for vector in STRATEGIES[name].vectors}
    if "probabilities" in columns:
        columns["probabilities"] = random.dirichlet(np.ones(5), 400)
    before = chosen(name, pool(name, **columns), LABELED, k=60)
    for _ in range(2):
        order = random.permutation(64)
        columns |= {vector: columns[vector][:, order] for vector in columns if vector == EMBEDDING}
        assert chosen(name, pool(name, **columns), LABELED, k=60).ids == before.ids


@every_strategy
def test_a_seed_changes_only_what_is_drawn(name: str) -> None:
    table = pool(name)
    seeds = [chosen(name, table, LABELED, seed=seed).ids for seed in (1, 1, 2)]
    assert seeds[0] == seeds[1]
    assert (seeds[0] != seeds[2]) == (name in DRAWING - {"herding"})


@every_strategy
def test_all_that_are_left(name: str) -> None:
    table = pool(name, 40)
    everything = {f"{row:04d}.jpg" for row in range(40)}
    assert set(chosen(name, table, k=40).ids) == everything
    assert set(chosen(name, table, LABELED, k=16).ids) == everything - set(LABELED)
    assert set(chosen(name, table, LABELED, k=99, at_most=True).ids) == everything - set(LABELED)
    with pytest.raises(SelectionError, match=r"k = 17, but 16 images are left .*24 excluded"):
        chosen(name, table, LABELED, k=17)
    with pytest.raises(SelectionError, match="k = 1, but no images are left"):
        chosen(name, table.slice(0, 24), LABELED, k=1)


@every_strategy
def test_a_pool_of_one_image(name: str) -> None:
    assert chosen(name, pool(name, 1), k=1).ids == ["0000.jpg"]
    assert chosen(name, pool(name, 2), ["0001.jpg"], k=1).ids == ["0000.jpg"]


@every_strategy
def test_equal_images_and_equal_scores(name: str) -> None:
    vectors = STRATEGIES[name].vectors
    copies = {vector: np.repeat(np.eye(5)[:, :4] + 0.1, 80, 0) for vector in vectors}
    same = {vector: np.full((400, 4), 0.25) for vector in vectors}
    nothing = {vector: np.zeros((400, 4)) for vector in vectors}
    for columns in ({}, copies, same, nothing):
        table = pool(name, loss=np.full(400, -0.5), **columns)
        for k in (5, 30, 376):
            assert len(set(chosen(name, table, LABELED, k=k).ids) - set(LABELED)) == k


@every_strategy
def test_the_score_column_need_not_exist_where_it_does_not_count(name: str) -> None:
    table = pool(name).drop_columns(["loss"])
    if STRATEGIES[name].uses_scores:
        with pytest.raises(SettingsError, match="needs a column of scores"):
            chosen(name, table, by="")
    else:
        selection = chosen(name, table, LABELED, by="")
        assert len(set(selection.ids)) == 20 and np.isnan(selection.scores).all()


@every_strategy
def test_a_missing_column_is_named_in_one_line(name: str) -> None:
    strategy = STRATEGIES[name]
    scores = ["loss"] if strategy.uses_scores else []  # else it decides nothing
    for column in (*scores, *strategy.scalars, *strategy.vectors):
        with pytest.raises(ScoresError, match=f"no column '{column}'") as error:
            chosen(name, pool(name).drop_columns([column]), LABELED)
        assert "\n" not in str(error.value)


@every_strategy
def test_vectors_that_are_not_finite_are_never_picked_but_counted(name: str) -> None:
    strategy, random = STRATEGIES[name], np.random.default_rng(5)
    columns: dict[str, Any] = {vector: random.random((400, 4)) for vector in strategy.vectors}
    for vector in strategy.vectors[-1:]:
        columns[vector][30:35, 2] = [np.nan, np.inf, -np.inf, np.nan, np.inf]
        columns[vector][3] = np.nan  # a labeled one
        columns["loss"] = np.where(np.arange(400) < 60, 1.0, 0.5)  # among the best
        selection = chosen(name, pool(name, **columns), LABELED)
        assert not {f"{row:04d}.jpg" for row in range(30, 35)} & set(selection.ids)
        whole = strategy.limit(20) is None or (strategy.limit(20) or 0) >= 376
        assert selection.unspread == 5 if whole else selection.unspread <= 5
        assert selection.labeled == (23 if strategy.labeled else 0)


@every_strategy
def test_images_with_vectors_are_found_among_many_without(name: str) -> None:
    """More than a first pass keeps."""
    random, usable = np.random.default_rng(10), np.arange(5000) % 400 == 7
    strategy = STRATEGIES[name]
    columns: dict[str, Any] = {vector: random.random((5000, 4)) for vector in strategy.vectors}
    for vectors in columns.values():
        vectors[~usable] = np.nan
    picks = chosen(name, pool(name, 5000, **columns), k=13)
    assert len(set(picks.ids)) == 13
    if strategy.vectors:
        assert sorted(picks.ids) == [f"{row:04d}.jpg" for row in np.flatnonzero(usable)]


@every_strategy
def test_all_candidates_can_be_chosen_where_the_first_pass_left_others_out(name: str) -> None:
    strategy, random = STRATEGIES[name], np.random.default_rng(11)
    columns: dict[str, Any] = {vector: random.random((6, 4)) for vector in strategy.vectors}
    columns |= {each: random.random(6) for each in ("score", "weight", *strategy.scalars)}
    columns["key"] = np.arange(1.0, 7.0)
    candidates = Candidates(list("abcdef"), columns, {}, 1, "loss", "highest", 6.0)
    for k in (1, 5, 6):
        picks = strategy.choose(candidates, k)
        assert len(set(picks.rows.tolist())) == len(picks.reasons) == k
        assert set(picks.rows.tolist()) <= set(range(6))


def _copies(name: str, images: int, times: int) -> pa.Table:
    """A pool of so many images, each with near-copies; those of an image have the same score."""
    random = np.random.default_rng(6)
    vectors = dict.fromkeys((EMBEDDING, *STRATEGIES[name].vectors))
    columns: dict[str, Any] = {}
    for vector in vectors:
        one = random.normal(size=(images, 8))
        columns[vector] = np.repeat(one, times, 0) + random.normal(0, 1e-3, (images * times, 8))
    if "probabilities" in vectors:
        columns["probabilities"] = np.repeat(random.dirichlet(np.ones(5), images), times, 0)
    columns["loss"] = np.repeat(random.normal(size=images), times)
    return pool(name, images * times, **columns)


@every_strategy
def test_near_duplicates_of_picks_and_labeled_images_are_passed_over(name: str) -> None:
    table = _copies(name, 40, 8)
    labeled = ["0000.jpg", "0011.jpg", "0012.jpg"]  # of the first two images
    for k in (10, 38):
        picks = chosen(name, table, labeled, k=k, min_distance=0.01)
        images = {int(id[:4]) // 8 for id in picks.ids}
        assert len(images) == len(picks) == k and not images & {0, 1}
        assert picks.spread_by == "embedding"
    with pytest.raises(SelectionError, match=r"k = 39, but 38 images .* at least 0.01 from"):
        chosen(name, table, labeled, k=39, min_distance=0.01)
    fewer = chosen(name, table, labeled, k=39, min_distance=0.01, at_most=True)
    assert sorted(fewer.ids) == sorted(picks.ids) or len(fewer) == 38
    assert fewer.duplicates == fewer.eligible - 38


@every_strategy
def test_a_distance_below_all_changes_nothing(name: str) -> None:
    table = pool(name, **{EMBEDDING: np.random.default_rng(7).normal(size=(400, 6))})
    plain, same = (chosen(name, table, LABELED, min_distance=d) for d in (0, 1e-9))
    assert same.ids == plain.ids and same.duplicates == 0
    assert list(same.reasons) == list(plain.reasons)


@every_strategy
def test_picks_are_spread_over_groups(name: str) -> None:
    cameras = np.random.default_rng(8).choice(["a", "b", "c", "d"], 400, p=[0.9, 0.06, 0.03, 0.01])
    table = pool(name).append_column("camera", pa.array(cameras))
    picks = chosen(name, table, LABELED, balance="camera", k=60)
    of = dict(zip(table["id"].to_pylist(), cameras.tolist(), strict=True))
    left = [camera for id, camera in of.items() if id not in LABELED]
    sizes = {camera: left.count(camera) for camera in "abcd"}
    counts = {camera: sum(of[id] == camera for id in picks.ids) for camera in "abcd"}
    assert picks.groups == {camera: (counts[camera], sizes[camera]) for camera in "abcd"}
    assert sum(counts.values()) == len(set(picks.ids)) == 60
    filled = [counts[camera] for camera in "abcd" if counts[camera] < sizes[camera]]
    assert max(filled) - min(filled) <= 1 and counts["d"] == sizes["d"] < min(filled)
    shuffled = table.take(np.random.default_rng(9).permutation(400))
    batches = pa.Table.from_batches(shuffled.to_batches(max_chunksize=37))
    assert chosen(name, batches, LABELED, balance="camera", k=60).ids == picks.ids


@every_strategy
def test_groups_without_enough_different_images_leave_their_share_to_others(name: str) -> None:
    table = _copies(name, 40, 8)
    groups = np.where(np.arange(320) < 80, "few", "many")  # 10 images and 30
    table = table.append_column("site", pa.array(groups))
    picks = chosen(name, table, k=30, min_distance=0.01, balance="site")
    images = [int(id[:4]) // 8 for id in picks.ids]
    assert len(set(images)) == 30
    assert sum(image < 10 for image in images) == 10
    assert picks.groups == {"few": (10, 80), "many": (20, 240)}


@every_strategy
def test_settings_are_not_part_of_a_strategy(name: str) -> None:
    """One object serves all selections, at the same time."""
    table, settings = pool(name), SelectionSettings(strategy=name, k=7, seed=1)
    first = select(TableScores(table), settings, LABELED).ids
    select(TableScores(pool(name, 90, seed=9)), replace(settings, k=30, seed=4))
    assert select(TableScores(table), settings, LABELED).ids == first


@every_strategy
def test_its_title_is_half_a_line(name: str) -> None:
    strategy = STRATEGIES[name]
    assert strategy.name == name and 0 < len(strategy.title) < 75
    assert not strategy.title.endswith(".") and strategy.__doc__
