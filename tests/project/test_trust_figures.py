from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lloss.project import trust_figures
from lloss.project.cycle_choice import lift_of_rounds
from lloss.project.pick_payoff import Payoff
from lloss.project.summary import Summary
from lloss.project.trust_figures import (
    Agreement,
    TrustFigures,
    cohen_kappa,
    compare_predictions,
    gain_of,
    remarks_on,
    settled,
    trust_lines,
)
from lloss.scores.scores_folder import ScoresFolder, scores_table
from lloss.selection import Selection, SelectionSettings
from lloss.statistics.learning_curve import CurvePoint, expected_gain

PAYOFF = Payoff(
    cycle=1, picks=40, unmeasured=2, loss=1.5, metric_name="accuracy", metric=0.5,
    images=50, random_loss=1.0,
    random_metric=0.7, source="held-out images", lift=1.5, interval=(1.1, 2.0),
)  # fmt: skip


def summary(cycle: int, accuracy: float | None = None, **also: Any) -> Summary:
    figures = None
    if accuracy is not None:
        interval = [accuracy - 0.05, accuracy + 0.05]
        figures = {"images": 200, "accuracy": accuracy, "intervals": {"accuracy": interval}}
    return Summary(
        cycle=cycle, labeled=100 * cycle, selected=100, scored=900, skipped=0, classes={},
        labels_sha256="", evaluation=figures, metric_name="accuracy", **also,
    )  # fmt: skip


def weighted(lift: float | None, by: str = "loss", picks: int = 40) -> dict[str, Any]:
    """What one cycle says: what it chose by, and the lift of the picks before it."""
    trust = {} if lift is None else {"payoff": {"lift": lift, "picks": picks}}
    return {"choice": {"strategy": "herding", "by": by, "reason": ""}, "trust": trust}


def test_the_lift_is_of_the_last_two_rounds_that_had_weights() -> None:
    done = [summary(1, **weighted(None)), summary(2, **weighted(2.0, picks=10))]
    found = lift_of_rounds(done, replace(PAYOFF, lift=1.0, picks=30))
    assert found == {"lift": pytest.approx((2.0 * 10 + 1.0 * 30) / 40), "picks": 40}
    assert lift_of_rounds(done, None) == {"lift": 2.0, "picks": 10}
    covered = [summary(1, **weighted(None)), summary(2, **weighted(0.5, by=""))]
    assert lift_of_rounds(covered, PAYOFF) == {"lift": 0.5, "picks": 40}  # of cycle 1
    both = [*covered, summary(3, **weighted(3.0, by=""))]
    assert lift_of_rounds(both, PAYOFF) == {}  # two rounds of coverage: weights are tried again
    assert lift_of_rounds([], None) == {}
    earlier = [replace(summary(1), choice=None)]
    assert lift_of_rounds(earlier, PAYOFF)["lift"] == 1.5  # which always had weights


def test_the_gain_is_that_of_the_measured_cycles() -> None:
    cycles = [summary(1, 0.5), summary(2), summary(3, 0.6), summary(4, 0.64)]
    points = [
        CurvePoint(100 * n, v, (v - 0.05, v + 0.05)) for n, v in ((1, 0.5), (3, 0.6), (4, 0.64))
    ]
    assert gain_of(cycles, 100) == expected_gain(points, 100)
    assert gain_of(cycles[:3], 100) is None and gain_of([*cycles, summary(5)], 100) is None


@pytest.mark.parametrize(
    ("kappas", "now", "expected"),
    [([0.99, 0.995], 0.99, True), ([0.5, 0.99], 0.99, False), ([None, 1.0], 1.0, False),
     ([1.0], 1.0, False), ([1.0, 1.0], 0.98, False)],
)  # fmt: skip
def test_predictions_have_settled_after_three_cycles(
    kappas: list[float | None], now: float, expected: bool
) -> None:
    cycles = [summary(n, trust={"agreement": k and {"kappa": k}}) for n, k in enumerate(kappas, 1)]
    assert settled(cycles, Agreement(100, 0.99, now)) == expected
    assert not settled(cycles, None)


def test_lines_say_every_figure_and_nothing_that_is_not_known() -> None:
    assert trust_lines(TrustFigures(), [summary(1, 0.5)]) == []
    cycles = [summary(n, 0.7 + n / 10000) for n in (1, 2, 3)]
    figures = TrustFigures(
        payoff=PAYOFF,
        agreement=Agreement(1234, 0.95, 0.93),
        gain=gain_of(cycles, 100),
        monitored=10,
    )
    text = "\n".join(trust_lines(figures, cycles))
    assert "40 labeled picks of cycle 1 had 1.5 loss" in text and "50 held-out images 1" in text
    assert "lift 1.50 (95 % interval 1.10 to 2.00)" in text
    assert "2 of new classes have no loss" in text
    assert "accuracy 0.50 on the picks and 0.70 beside" in text
    assert "95.0% of the predictions on 1,234 unlabeled images" in text and "kappa 0.93" in text
    assert "100 more labels are expected to change accuracy by 0.0 points" in text
    assert "10 of 100 picks are drawn at random" in text
    assert "settled" not in text


def test_groups_of_predictions_have_the_names_of_their_classes() -> None:
    settings = SelectionSettings(k=3, balance="predicted")
    groups = {"0": (2, 8), "1": (1, 9), "(none)": (0, 1)}
    found = Selection(["a", "b", "c"], np.zeros(3), 18, 0, 0, 18, settings, groups=groups)
    (line,) = remarks_on(found, ["cat", "dog"])
    shares = "2 of 8 in 'cat'; 1 of 9 in 'dog'; 0 of 1 in (none)"
    assert line.endswith(f"balanced by predicted: {shares}")


def test_a_flat_curve_says_that_more_labels_hardly_pay() -> None:
    def line(reach: float) -> str:
        cycles = []
        for n in range(1, 7):
            one = summary(n, 0.9)
            figures = {
                **(one.evaluation or {}),
                "intervals": {"accuracy": [0.9 - reach, 0.9 + reach]},
            }
            cycles.append(replace(one, evaluation=figures))
        return "\n".join(trust_lines(TrustFigures(gain=gain_of(cycles, 100)), cycles))

    assert "labeling more hardly pays" in line(0.005)
    assert "labeling more hardly pays" not in line(0.1)


def scored(folder: Path, ids: list[str], predictions: list[int]) -> Path:
    scores = ScoresFolder(folder / "scores")
    scores.path.mkdir(parents=True)
    columns = {"prediction": np.array(predictions, np.float32)}
    scores.write_part(0, scores_table(ids, columns), [])
    return folder


def test_predictions_are_compared_by_class_name_on_unlabeled_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = {"now": ("a", "b", "c"), "before": ("b", "c")}
    monkeypatch.setattr(
        trust_figures,
        "read_manifest",
        lambda path: SimpleNamespace(classes=classes[path.parent.name]),
    )
    ids = [f"{n:03d}" for n in range(80)]
    now = scored(tmp_path / "now", ids, [1 + n % 2 for n in range(80)])
    then = [n % 2 if n < 60 else 0 for n in range(70)]
    before = scored(tmp_path / "before", ids[:70], then)
    found = compare_predictions(now, before, ids[:5])
    assert found is not None and found.images == 65
    assert found.share == pytest.approx(60 / 65) and found.kappa < found.share
    monkeypatch.setattr(trust_figures, "COMPARED", 50)
    assert compare_predictions(now, before) is None  # of 50 drawn ones fewer are in both
    assert compare_predictions(now, tmp_path / "gone") is None


def test_kappa_is_the_written_out_formula() -> None:
    random = np.random.default_rng(0)
    one = random.choice(["a", "b", "c"], 200).tolist()
    other = [x if random.random() < 0.7 else "a" for x in one]
    agreed = sum(x == y for x, y in zip(one, other)) / 200
    chance = sum(Counter(one)[c] * Counter(other)[c] for c in "abc") / 200**2
    assert cohen_kappa(one, other) == pytest.approx((agreed - chance) / (1 - chance))


def test_kappa_of_independent_models_is_near_0_and_of_equal_ones_1() -> None:
    random = np.random.default_rng(0)
    one, other = (random.choice(["a", "b"], 5000, p=[0.9, 0.1]).tolist() for _ in range(2))
    assert abs(cohen_kappa(one, other)) < 0.05
    assert cohen_kappa(one, one) == 1 and cohen_kappa(["a"] * 5, ["a"] * 5) == 1
    assert cohen_kappa(["a", "b"], ["b", "a"]) == -1
    assert math.isnan(cohen_kappa([], []))
