from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lloss.selection.automatic import Evidence, Ranking, automatic_choice

GOOD = Ranking(accuracy=0.7, interval=(0.6, 0.8), low=0.62)
POOR = Ranking(accuracy=0.55, interval=(0.45, 0.65), low=0.47)
BOTH = Evidence(labeled=500, images=100, head=GOOD, entropy=GOOD, advantage=(0.01, (-0.03, 0.05)))


def test_nothing_measured_means_coverage() -> None:
    choice = automatic_choice(Evidence(labeled=60))
    assert (choice.strategy, choice.by) == ("coverage", "")
    assert "not measured yet" in choice.reason and "60 labels" in choice.reason


@pytest.mark.parametrize(
    ("head", "entropy", "advantage", "by"),
    [
        (GOOD, None, None, "loss"),
        (GOOD, POOR, (-0.15, (-0.2, -0.1)), "loss"),
        (GOOD, GOOD, (0.01, (-0.03, 0.05)), "loss"),
        (GOOD, GOOD, (0.05, (0.01, 0.09)), "entropy"),
        (GOOD, GOOD, (0.05, (float("nan"), float("nan"))), "loss"),
        (POOR, GOOD, (0.02, (-0.1, 0.14)), "entropy"),
        (None, GOOD, None, "entropy"),
        (POOR, POOR, (0.0, (-0.1, 0.1)), ""),
        (POOR, None, None, ""),
    ],
)
def test_the_loss_decides_unless_entropy_is_clearly_better(
    head: Ranking | None, entropy: Ranking | None, advantage: object, by: str
) -> None:
    evidence = replace(BOTH, head=head, entropy=entropy, advantage=advantage)  # type: ignore[arg-type]
    choice = automatic_choice(evidence, "power")
    assert choice.by == by and choice.strategy == ("power" if by else "coverage")
    assert choice.reason


@pytest.mark.parametrize(
    ("lift", "picks", "trusted"),
    [(0.9, 30, False), (1.0, 20, False), (0.5, 19, True), (1.2, 99, True)],
)
def test_picks_that_did_not_pay_close_the_gate(lift: float, picks: int, trusted: bool) -> None:
    choice = automatic_choice(replace(BOTH, lift=lift, picks=picks))
    assert bool(choice.by) == trusted
    assert trusted or f"lift {lift:.2f}" in choice.reason


def test_a_score_that_ranks_is_measured_above_chance_and_noise_is_not() -> None:
    random = np.random.default_rng(0)
    loss = random.gamma(1, 1, 200)
    evidence = Evidence.measured(900, loss, loss + random.normal(0, 0.5, 200), random.random(200))
    assert evidence.images == 200 and evidence.head and evidence.entropy and evidence.advantage
    assert evidence.head.above_chance and not evidence.entropy.above_chance
    assert evidence.advantage[1][1] < 0
    assert automatic_choice(evidence).by == "loss"
    worse = Evidence.measured(900, loss, random.random(200), loss)
    assert automatic_choice(worse).by == "entropy"


def test_the_gate_uses_the_lower_end_of_the_90_percent_interval() -> None:
    head = replace(GOOD, interval=(0.49, 0.75), low=0.505)
    assert automatic_choice(Evidence(labeled=200, images=50, head=head)).by == "loss"
    random = np.random.default_rng(0)
    loss = random.random(50)
    ranking = Evidence.measured(200, loss, loss + random.normal(0, 1, 50)).head
    assert ranking and ranking.interval[0] < ranking.low < ranking.accuracy


def test_below_the_least_number_of_labels_images_are_drawn_at_random() -> None:
    evidence = replace(BOTH, labeled=999, least=1000)
    choice = automatic_choice(evidence)
    assert (choice.strategy, choice.by) == ("random", "")
    assert "fewer than 1,000 labels" in choice.reason and "there are 999" in choice.reason
    assert automatic_choice(replace(evidence, labeled=1000)) == automatic_choice(BOTH)


def test_equal_losses_rank_nothing() -> None:
    evidence = Evidence.measured(200, np.ones(50), np.arange(50.0), np.arange(50.0))
    choice = automatic_choice(evidence)
    assert choice.strategy == "coverage" and "the same loss" in choice.reason
