"""Herding and coverage on tables of scores."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from lloss.errors import SettingsError
from lloss.selection.hashing import draw_hash
from lloss.selection.herding import herd, kernel_width
from lloss.selection.strategies import herding
from lloss.selection.unit_vectors import unit_integers
from lloss.selection.weights import ClassWeights, ScoreWeights

from ..score_tables import score_table, select_from


def _pool(count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64], pa.Table]:
    random = np.random.default_rng(seed)
    centers = random.normal(size=(10, 8))
    vectors = centers[random.integers(0, 10, count)] + 0.3 * random.normal(size=(count, 8))
    scores = random.gamma(1, size=count)
    return vectors.astype(np.float32), scores, score_table(scores, vectors=vectors)


def _key(id: str, weight: float, seed: int) -> float:
    return ((draw_hash(id, seed) >> 11) + 1) / 2**53 / weight


def _expected(
    vectors: NDArray[np.float32], weights: NDArray[np.float64], k: int, labeled: list[int]
) -> list[str]:
    """Rows in the order of their keys, without the labeled ones."""
    ids = [f"{row:04d}.jpg" for row in range(len(vectors))]
    keys = [_key(id, weight, 0) for id, weight in zip(ids, weights.tolist(), strict=True)]
    rows = [row for row in np.argsort(keys).tolist() if row not in labeled]
    units, known = unit_integers(vectors[rows]), unit_integers(vectors[labeled])
    picked, _ = herd(units, weights[rows], k, known, kernel_width(units))
    return [ids[rows[row]] for row in picked]


def test_herding_weighs_by_the_score_and_knows_the_labeled_images() -> None:
    vectors, scores, table = _pool(300)
    labeled = list(range(0, 300, 7))
    exclude = [f"{row:04d}.jpg" for row in labeled]
    left = np.delete(scores, labeled)
    chosen = select_from(table, [*exclude, "elsewhere.jpg"], k=20, strategy="herding")
    assert chosen.ids == _expected(vectors, ScoreWeights(left)(scores), 20, labeled)
    assert (chosen.labeled, chosen.excluded, chosen.spread_by) == (43, 43, "embedding")
    plain = select_from(table, exclude, k=20, strategy="coverage")
    assert plain.ids == _expected(vectors, np.ones(300), 20, labeled)
    assert plain.ids != chosen.ids
    lowest = select_from(table, exclude, k=20, strategy="herding", order="lowest")
    assert lowest.ids == _expected(vectors, ScoreWeights(-left)(-scores), 20, labeled)
    alone = select_from(table, k=20, strategy="herding")
    assert alone.labeled == 0 and alone.ids != chosen.ids


@pytest.mark.parametrize("strategy", ["herding", "coverage"])
def test_images_of_rare_predicted_classes_weigh_more(strategy: str) -> None:
    vectors, scores, table = _pool(300)
    classes = np.where(np.arange(300) % 10 == 0, 4.0, 1.0).astype(np.float32)
    table = table.append_column("prediction", pa.array(classes))
    labeled = list(range(0, 300, 7))
    exclude = [f"{row:04d}.jpg" for row in labeled]
    chosen = select_from(table, exclude, k=20, strategy=strategy, class_weight="balanced")
    left = np.delete(np.arange(300), labeled)
    weights = ClassWeights(classes[left].astype(np.float64))(classes.astype(np.float64))
    if strategy == "herding":
        weights *= ScoreWeights(scores[left])(scores)
    assert chosen.ids == _expected(vectors, weights, 20, labeled)
    assert chosen.remarks() == ["rare predicted classes weigh more"]
    plain = select_from(table, exclude, k=20, strategy=strategy)
    rare = {f"{row:04d}.jpg" for row in range(0, 300, 10)}
    assert len(rare & set(chosen.ids)) > len(rare & set(plain.ids))


def test_weights_of_classes_that_nothing_predicts_are_refused() -> None:
    table = _pool(50)[2]
    with pytest.raises(SettingsError, match="the scores have no column 'prediction'; only class"):
        select_from(table, k=2, strategy="herding", class_weight="balanced")
    named = table.append_column("prediction", pa.array(["cat"] * 50))
    with pytest.raises(SettingsError, match="class_weight: the column 'prediction' holds string"):
        select_from(named, k=2, strategy="herding", class_weight="balanced")
    with pytest.raises(SettingsError, match="top weighs no classes; choose herding or coverage"):
        select_from(table, k=2, strategy="top", class_weight="balanced")
    with pytest.raises(SettingsError, match="class_weight 'even': choose balanced"):
        select_from(table, k=2, strategy="herding", class_weight="even")
    with pytest.raises(SettingsError, match="equally many already; leave one of the two out"):
        both = {"class_weight": "balanced", "balance": "predicted"}
        select_from(table, k=2, strategy="herding", **both)


def test_reasons_say_what_a_pick_adds() -> None:
    table = _pool(200)[2]
    chosen = select_from(table, k=2, strategy="herding")
    share, score = chosen.reasons[0].removeprefix("adds ").split(" % coverage; loss ")
    assert float(score) == pytest.approx(chosen.scores[0], rel=0.01)
    assert 2 < float(share) < 50
    plain = select_from(table, k=2, strategy="coverage")
    assert plain.reasons[0].endswith(" % coverage")


@pytest.mark.parametrize("strategy", ["herding", "coverage"])
def test_a_large_pool_is_sampled_without_bias(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimated total weight is that of the pool, in the mean over seeds."""
    monkeypatch.setattr(herding, "BLOCK", 150)
    _, scores, table = _pool(2000, 1)
    weights = ScoreWeights(scores)(scores) if strategy == "herding" else np.ones(2000)
    totals: list[float] = []

    def watch(units: object, kept: NDArray[np.float64], k: int, *_: object) -> object:
        totals.append(float(kept.sum()))
        assert len(kept) == 150
        return np.arange(k), np.zeros(k)

    monkeypatch.setattr(herding, "herd", watch)
    for seed in range(60):
        select_from(table, k=5, strategy=strategy, seed=seed)
    error = np.std(totals) / np.sqrt(60)
    assert abs(np.mean(totals) - weights.sum()) < 4 * error + 1e-6
    assert error < 0.02 * weights.sum()


def test_coverage_needs_no_scores_at_all() -> None:
    _, _, table = _pool(100)
    chosen = select_from(table.drop_columns(["loss"]), k=5, strategy="coverage", by="")
    assert chosen.ids == select_from(table, k=5, strategy="coverage").ids
    assert np.isnan(chosen.scores).all() and chosen.unscored == 0
    rows = chosen.table().to_pylist()
    assert rows[0]["reason"].startswith("adds ")


@pytest.mark.parametrize(
    ("gain", "words"),
    [(1, "100 %"), (0.114, "11 %"), (0.0154, "1.5 %"), (1e-6, "under 0.01 %"), (0, "0 %")],
)
def test_gains_are_said_without_exponents(gain: float, words: str) -> None:
    assert herding._adds(gain) == f"adds {words} coverage"
