from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lloss.selection import Selection, SelectionSettings
from lloss.statistics.confidence_intervals import wilson
from lloss.training.cautions import cautions, how_picked, measured, ranked
from lloss.training.ranking_evidence import evidence_of


def figures(
    images: int = 200,
    metric: float = 0.8,
    ranking: float | None = 0.8,
    spearman: float | None = 0.7,
    ends: tuple[float | None, float | None] = (0.7, 0.9),
) -> dict[str, Any]:
    """As evaluation.json holds them."""
    scores = {"ranking_accuracy": ranking, "spearman": spearman, "lift": 2.0}
    return {
        "images": images,
        "unseen": 0,
        "accuracy": metric,
        "mean_loss": 0.5,
        "head": scores,
        "entropy": scores,
        "intervals": {
            "accuracy": list(wilson(metric * images, images)),
            "head": {"ranking_accuracy": list(ends)},
            "entropy": {"ranking_accuracy": list(ends)},
        },
    }


def selection(strategy: str = "top", subset: int = 0, pool: int = 100) -> Selection:
    settings = SelectionSettings(k=2, strategy=strategy, subset=subset)
    return Selection(["a.png", "b.png"], np.array([3.0, 2.0]), pool, 0, 0, pool, settings)


def test_good_figures_give_no_warning() -> None:
    assert cautions(figures(), "accuracy") == []
    assert ranked(figures()) is True


def test_six_images_are_too_few_and_what_is_needed_is_said() -> None:
    (line,) = cautions(figures(6, 0.5), "accuracy")
    assert line == (
        "6 held-out images are too few to measure on: accuracy may be anything from 19% to 81%; "
        "hold out 100 or more (more labels, a larger holdout, or a test set)"
    )


def test_few_labels_are_few_by_cross_validation_too() -> None:
    (line,) = cautions({**figures(6, 0.5), "folds": 3}, "accuracy")
    assert line.startswith("6 labeled images are too few to measure on: accuracy may be")
    assert "; measure on 100 or more (more labels" in line


def test_a_line_has_what_was_measured_alone() -> None:
    found = figures(60, 0.8)
    line = measured(found, "accuracy")
    assert line.startswith("accuracy 0.8") and "60 images); the head orders" in line
    assert "(entropy 80%, 70% to 90%; chance 50%)" in line
    alone = measured({**found, "accuracy": None, "entropy": None}, "accuracy")
    assert alone.startswith("the head orders") and alone.endswith("(chance 50%)")
    assert "head" not in measured({**found, "head": None}, "accuracy")


def test_a_head_that_may_be_chance_is_named_and_ranks_nothing() -> None:
    for ranking, ends in ((0.55, (0.45, 0.65)), (0.3, (0.2, 0.4)), (0.5, (0.5, 0.5))):
        found = figures(ranking=ranking, ends=ends)
        (line,) = cautions(found, "accuracy")
        says = "is not shown to" if ranking > 0.5 else "does not"
        assert line.startswith(f"the predicted loss {says} rank better than chance: it orders")
        assert f"{ranking:.0%} of the pairs" in line.replace("50.0%", "50%").replace(".0%", "%")
        assert ranked(found) is False


def test_a_ranking_that_the_choice_trusts_is_not_doubted() -> None:
    found = {**figures(ranking=0.59, ends=(0.49, 0.68)), "comparison": {"head_low": 0.51}}
    assert ranked(found) is True and cautions(found, "accuracy") == []
    found["comparison"] = {"head_low": 0.499}
    assert ranked(found) is False and len(cautions(found, "accuracy")) == 1


def test_losses_that_cannot_rank_are_named() -> None:
    tied = figures(ranking=0.5, spearman=None, ends=(0.5, 0.5))
    same = figures(ranking=None, spearman=None, ends=(0, 1))
    for found in (tied, same):
        (line,) = cautions(found, "accuracy")
        assert line.startswith("all true or all predicted losses of") and ranked(found) is False


def test_without_a_head_or_a_measurement_nothing_is_claimed() -> None:
    assert ranked(None) is None
    assert ranked({**figures(), "head": None}) is None
    assert cautions({**figures(), "head": None}, "accuracy") == []


def test_the_line_of_the_terminal_has_an_interval_to_each_figure() -> None:
    assert measured(figures(6, 0.5), "accuracy") == (
        "accuracy 0.50 (95 % interval 0.19 to 0.81, 6 images); the head orders 80% of pairs right, "
        "95 % interval 70% to 90% (entropy 80%, 70% to 90%; chance 50%)"
    )


def test_picks_are_called_ranked_only_where_they_are() -> None:
    top, diverse = selection(), selection("diverse", 50)
    assert how_picked(top, "", True) == how_picked(top, "", None) == "The highest predicted losses."
    assert how_picked(top, "", False) == (
        "The highest predicted losses. They are not shown to rank images better than chance."
    )
    assert how_picked(diverse, "", True) == (
        "Spread by k-center greedy over the 8 highest predicted losses of 50 random images, in the "
        "order picked."
    )
    small = how_picked(selection("diverse", pool=5), "", True)
    assert small.startswith("Spread by k-center greedy over the 5 highest predicted losses, in")
    frozen = dataclasses.replace(diverse, spread_by="pretrained_embedding")
    assert how_picked(frozen, "", True).startswith(
        "Spread by k-center greedy on features of the network before training over the 8 highest"
    )
    assert how_picked(selection("power"), "all 12 are equal", None) == (
        "2 at random, higher scores more likely, by highest predicted losses; but all 12 are equal."
    )
    for each in (top, diverse):
        how = how_picked(each, "all 12 are equal", False)
        assert how.startswith("Picked in the order of ids") and how.endswith(": all 12 are equal.")


def test_near_duplicates_of_training_images_are_named() -> None:
    found = {**figures(), "near_copies": 31, "near_copies_of": 200}
    assert cautions(found, "accuracy") == [
        "31 of 200 images to measure on are near-duplicates of images that were trained on: on new "
        "scenes accuracy is lower than measured"
    ]
    for few in (0, 9):
        assert cautions({**found, "near_copies": few}, "accuracy") == []


def test_images_of_few_scenes_show_no_ranking() -> None:
    found = {**figures(), "apart": 6}
    (line,) = [line for line in cautions(found, "accuracy") if "near-duplicates" in line]
    assert "are only 6: too few to show how well" in line
    assert ranked(found) is None and ranked({**found, "apart": 20}) is not None
    assert evidence_of(found, 60, has_entropy=True).head is None
    assert evidence_of({**found, "apart": 20}, 60, has_entropy=True).head is not None
