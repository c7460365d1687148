"""Intervals of images that are not independent: against draws by hand, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.statistics.clusters import among, clusters_of, design_effect, share_interval, sums_by
from lloss.statistics.confidence_intervals import bootstrap, wilson
from lloss.statistics.loss_unit import LEAST, fit_unit
from lloss.statistics.ranking_comparison import compare_rankings
from lloss.statistics.ranking_metrics import (
    accuracy_interval,
    pair_counts,
    ranking_figures,
    ranking_intervals,
)

Drawn = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _video(seed: int, scenes: int, frames: int = 4, noise: float = 0.2, rho: float = 0.5) -> Drawn:
    """Frames of scenes, mixed: their scenes, scores and losses, correlated by rho."""
    random = np.random.default_rng(seed)
    scene = random.permutation(np.arange(scenes).repeat(frames))

    def values() -> NDArray[np.float64]:
        own = noise * random.normal(size=len(scene))
        common: NDArray[np.float64] = random.normal(size=scenes)[scene] + own
        return common / math.sqrt(1 + noise**2)

    hard, other = values(), values()
    return scene, rho * hard + math.sqrt(1 - rho**2) * other, np.exp(hard)


def _draws_by_hand(scene: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each draw of whole scenes, as `bootstrap` draws them."""
    scenes = int(scene.max()) + 1
    drawn = np.random.default_rng([scenes, 95]).integers(scenes, size=(1000, scenes))
    return [np.concatenate([np.flatnonzero(scene == each) for each in draw]) for draw in drawn]


def test_images_of_their_own_are_no_clusters() -> None:
    assert clusters_of(["b", "a", "c"]) is None and clusters_of([]) is None
    numbers = clusters_of(["b", "a", "b"])
    assert numbers is not None and numbers.tolist() == [1, 0, 1]
    assert among(numbers, np.array([0, 1])) is None  # of each scene one is left
    left = among(numbers, np.array([True, False, True]))
    assert left is not None and left.tolist() == [0, 0]
    assert sums_by(numbers, np.array([1.0, 2.0, 4.0])).tolist() == [2.0, 5.0]


def test_without_clusters_figures_are_those_of_images_to_the_last_bit() -> None:
    """The formulas of independent images, written out."""
    random = np.random.default_rng(0)
    loss, score = random.random(60), random.random(60)
    drawn = np.random.default_rng([60, 95]).integers(60, size=(1000, 60))
    weights = np.stack([np.bincount(rows, minlength=60) for rows in drawn]).astype(float)
    found = bootstrap(60, lambda w: {"": w @ loss / w.sum(1)})[""]
    assert found == tuple(np.quantile(weights @ loss / 60, ((1 - 0.95) / 2, (1 + 0.95) / 2)))
    falling = loss[np.argsort(-score)]
    sums = weights * falling
    top = np.minimum(weights, (6 - (weights.cumsum(1) - weights)).clip(0, None))
    lifts = (top * falling).sum(1) / 6 / (sums.sum(1) / 60)
    assert ranking_intervals(score, loss)["lift"] == pytest.approx(
        tuple(np.quantile(lifts, (0.025, 0.975))), rel=1e-12
    )
    right = loss > 0.3
    assert share_interval(float(right.sum()), right) == wilson(right.sum(), 60)
    assert design_effect(loss, None) == 1.0


def test_scenes_are_drawn_whole() -> None:
    """Lift, mean and difference of ranking accuracies, from the images of each draw by hand."""
    scene, score, loss = _video(1, scenes=25)
    other = np.random.default_rng(2).normal(size=len(loss)) + score
    lifts, means, ahead = [], [], []
    for rows in _draws_by_hand(scene):
        lifts.append(ranking_figures(score[rows], loss[rows]).lift)
        means.append(loss[rows].mean())
        accuracies = [np.divide(*pair_counts(each[rows], loss[rows])) for each in (score, other)]
        ahead.append(accuracies[0] - accuracies[1])
    between = [tuple(np.quantile(each, (0.025, 0.975))) for each in (lifts, means, ahead)]
    assert ranking_intervals(score, loss, clusters=scene)["lift"] == pytest.approx(between[0])
    mean = bootstrap(len(loss), lambda w: {"": w @ loss / w.sum(1)}, scene)[""]
    assert mean == pytest.approx(between[1])
    found = compare_rankings(score, other, loss, clusters=scene)
    assert found.interval == pytest.approx(between[2])
    assert found.value == compare_rankings(score, other, loss).value


def test_ranking_accuracy_is_as_wide_as_draws_of_scenes_are_spread() -> None:
    scene, score, loss = _video(3, scenes=80)
    drawn = [np.divide(*pair_counts(score[rows], loss[rows])) for rows in _draws_by_hand(scene)]
    low, high = accuracy_interval(score, loss, clusters=scene)
    assert (high - low) / (2 * 1.96) == pytest.approx(np.std(drawn), rel=0.25)
    alone = accuracy_interval(score, loss)
    assert high - low > 1.6 * (alone[1] - alone[0])  # 4 alike frames: 2


def test_equal_copies_count_as_one() -> None:
    random = np.random.default_rng(4)
    score, loss = random.normal(size=(2, 50))
    right = (loss > 0).astype(float)
    scene = np.arange(50).repeat(3)
    once = share_interval(right.sum(), right)
    thrice = share_interval(3 * right.sum(), right.repeat(3), scene)
    assert thrice == pytest.approx(once, abs=0.002)
    once = accuracy_interval(score, loss)
    thrice = accuracy_interval(score.repeat(3), loss.repeat(3), clusters=scene)
    assert thrice == pytest.approx(once, abs=0.005)
    perfect = accuracy_interval(loss.repeat(3), loss.repeat(3), clusters=scene)
    assert perfect[0] == pytest.approx(accuracy_interval(loss, loss)[0], abs=0.005)
    assert share_interval(150, np.ones(150), scene) == pytest.approx(wilson(50, 50))


def test_folds_are_compared_within_and_count_scenes() -> None:
    scene, score, loss = _video(5, scenes=60)
    folds = scene % 5
    shifted = score + 100 * folds  # another model each
    within = accuracy_interval(shifted, loss, folds, clusters=scene)
    assert within == accuracy_interval(score, loss, folds, clusters=scene)
    alone = accuracy_interval(score, loss, folds)
    assert within[1] - within[0] > 1.6 * (alone[1] - alone[0])


def test_intervals_hold_the_truth_where_frames_are_alike() -> None:
    """Of 100 videos of 40 scenes: with clusters in 90 or more, without in far fewer."""
    truth = 0.5 + math.asin(0.5) / math.pi  # of a pair of scenes
    held = np.zeros((2, 2), int)
    for seed in range(100):
        scene, score, loss = _video(seed, scenes=40)
        right = loss < 1
        for column, clusters in enumerate((scene, None)):
            low, high = accuracy_interval(score, loss, clusters=clusters)
            held[0, column] += low <= truth <= high
            low, high = share_interval(right.sum(), right, clusters)
            held[1, column] += low <= 0.5 <= high
    assert (held[:, 0] >= 90).all() and (held[:, 1] <= 80).all(), held


def test_the_unit_counts_scenes() -> None:
    scene, score, loss = _video(6, scenes=300, noise=0.0)
    first = np.unique(scene, return_index=True)[1]
    once, all_frames = fit_unit(score[first], loss[first], "nats"), fit_unit(score, loss, "nats")
    unit = fit_unit(score, loss, "nats", clusters=scene)
    assert (unit.a, unit.b, unit.images) == (all_frames.a, all_frames.b, 1200)
    assert unit.errors == pytest.approx(once.errors, rel=0.02)
    assert all_frames.errors == pytest.approx([each / 2 for each in once.errors or ()], rel=0.02)
    bins = zip(unit.calibration, once.calibration, all_frames.calibration)
    for each, single, independent in bins:
        assert each.error > 1.5 * independent.error and each.error < 1.5 * single.error


def test_fewer_scenes_than_images_are_needed_give_no_unit() -> None:
    scene, score, loss = _video(7, scenes=LEAST - 1, frames=10)
    unit = fit_unit(score, loss, "nats", clusters=scene)
    assert unit.name == "" and str(unit) == (
        "in no unit (but for near-duplicates, 190 unseen images are of 19 scenes: too few for one, "
        "20 are needed)"
    )
    scene, score, loss = _video(7, scenes=LEAST, frames=10)
    assert fit_unit(score, loss, "nats", clusters=scene).name == "nats"
