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
from lloss.selection.strategies import STRATEGIES
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
    with pytest.raises(SelectionError, match=r"k = 17, but 16 images are left .*24 are excluded"):
        chosen(name, table, LABELED, k=17)
    with pytest.raises(SelectionError, match="k = 1, but 0 images are left"):
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
    for column in ("loss", *strategy.scalars, *strategy.vectors):
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
