from __future__ import annotations

import numpy as np
import pytest

from lloss.simulation import learner
from lloss.simulation.learner import class_figures, ranking, shown_figures


def test_rankings_are_measured_on_images_spread_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "RANKED", 4)
    score = np.array([0, 9, 1, 9, 2, 9, 3], np.float32)  # every other image: in order
    assert ranking(score, np.arange(7.0)) == {"ranking_accuracy": 1, "spearman": pytest.approx(1)}


def test_class_figures_are_recalls_and_their_mean() -> None:
    predicted, true = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 1])
    assert class_figures(predicted, true, ["a", "b", "c"]) == {
        "accuracy": 0.8, "macro accuracy": 0.875, "recall of a": 1, "recall of b": 0.75,
    }  # fmt: skip


def test_a_row_shows_the_metric_first_the_worst_class_and_the_watched_one() -> None:
    figures = {"accuracy": 0.8, "macro accuracy": 0.7, "recall of a": 0.9, "recall of b": 0.5}
    shown = shown_figures(figures, "macro accuracy", "a", {"a": 3})
    assert list(shown.items()) == [
        ("macro accuracy", 0.7), ("accuracy", 0.8), ("worst class", 0.5), ("recall of a", 0.9),
        ("count of a", 3.0),
    ]  # fmt: skip
