"""What a trial of ``auto`` knows of its last picks, by a model whose losses are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.selection.automatic import Evidence
from lloss.simulation.experiment import Budget, Experiment, Trial
from lloss.simulation.learner import Columns, Measured
from lloss.simulation.methods import Method, parse_methods
from lloss.simulation.results import CycleRow, Picks
from lloss.simulation.scenarios import Source, TrialPool, parse_scenarios
from lloss.simulation.trial import MONITORED, TrialRun
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.training_data import seed_of

IMAGES, K = 500, 25


class Given:
    """A learner and its model: predicted losses, and others that images turn out to have."""

    def __init__(self, agrees: float) -> None:
        random = np.random.default_rng(1)
        self.predicted = random.gamma(2, 1, IMAGES).astype(np.float32)
        self.true = np.exp(agrees * np.log(self.predicted)).astype(np.float32)
        self.vectors = random.normal(size=(IMAGES, 8)).astype(np.float32)
        self.asked: list[list[int]] = []
        self.measured = 0

    def open(self, pool: TrialPool) -> None:
        self.pool = pool

    def train(
        self, rows: NDArray[np.int64], labels: Sequence[Any], method: Method, seed: int
    ) -> Given:
        return self

    def measure(self) -> Measured:
        return Measured({"accuracy": 0.5}, None, None)

    def columns(self, wanted: Sequence[str]) -> Columns:
        return {"loss": self.predicted, "entropy": self.predicted, "embedding": self.vectors}

    def outputs(self) -> NDArray[np.float32]:
        raise AssertionError

    def evidence(self) -> Evidence:
        self.measured += 1
        ranks = np.arange(100.0)  # on held-out images the loss ranks, whatever picks turn out to be
        return Evidence.measured(100, ranks, ranks)

    def losses(self, rows: NDArray[np.int64], labels: Sequence[Any]) -> NDArray[np.float32]:
        self.asked.append(rows.tolist())
        assert [self.pool.labels[row] for row in rows] == list(labels)
        return self.true[rows]


def _run(
    given: Given, method: str = "auto", scenario: str = "balanced", done: Sequence[Picks] = ()
) -> list[tuple[CycleRow, Picks | None]]:
    names = tuple("abcd")
    ids, labels = [str(n) for n in range(IMAGES)], [names[n % 4] for n in range(IMAGES)]
    source = Source(ids, labels, np.arange(IMAGES) % 4, names, "accuracy", names)
    (how,), (which,) = parse_methods(method), parse_scenarios(scenario)
    settings = TrainSettings(model="resnet10-cifar-narrow", size=8, weights="none")
    experiment = Experiment(source, settings, [which], [how], Budget(20, K, 6), 1, 0, 0, "frozen")
    return list(TrialRun(experiment, given, Trial(which, how, 0)).cycles(done))


def _chosen(cycles: Sequence[tuple[CycleRow, Picks | None]]) -> list[str]:
    return [row.choice.split(":")[0] for row, picks in cycles if picks]


def test_picks_that_turn_out_easy_end_the_weights_for_two_rounds() -> None:
    cycles = _run(Given(agrees=-1))
    by_loss = "herding by loss"
    assert _chosen(cycles) == [by_loss, "coverage", "coverage", by_loss, "coverage"]
    assert "picks had no more loss than random images (lift 0." in cycles[1][0].choice
    lifts = [picks.lift for _, picks in cycles if picks]
    assert lifts[0] is not None and lifts[0][0] < 1 and lifts[0][1] == K
    assert [lift is None for lift in lifts] == [False, True, True, False, True]


def test_picks_that_turn_out_hard_go_on_as_they_were() -> None:
    assert _chosen(_run(Given(agrees=1))) == ["herding by loss"] * 5


def test_the_lift_is_that_of_the_picks_beside_unlabeled_images_drawn_at_random() -> None:
    given = Given(agrees=1)
    (row, picks), *_ = _run(given)
    assert picks is not None
    picked, random = given.asked[:2]
    assert picked == [int(id) for id in picks.ids]
    assert len(set(random)) == MONITORED
    experiment_seed = seed_of(0, 0)
    order = np.random.default_rng([experiment_seed, 4]).permutation(IMAGES)
    assert not set(order[:20].tolist()) & set(random)  # labels of the first set
    lift = given.true[picked].mean() / given.true[random].mean()
    assert picks.lift == (pytest.approx(lift), K) and row.picks["lift"] == pytest.approx(lift)


def test_junk_and_classes_that_no_label_shows_have_no_loss() -> None:
    given = Given(agrees=1)
    (_, picks), *_ = _run(given, scenario="junk:30%")
    pool = given.pool
    first = np.random.default_rng([seed_of(0, 0), 4]).permutation(IMAGES)[:20]
    known = {pool.labels[row] for row in first if not pool.junk[row]}
    assert known == {"b", "c", "d"}
    assert picks is not None and picks.lift is not None
    rows = [pool.ids.index(id) for id in picks.ids]
    assert any(pool.junk[row] for row in rows)
    measured = [row for row in rows if not pool.junk[row] and pool.labels[row] in known]
    assert picks.lift[1] == len(measured) and given.asked[0] == measured


@pytest.mark.parametrize("agrees", [-1, 1])
def test_a_trial_that_goes_on_knows_the_lift_of_the_rounds_before(agrees: int) -> None:
    whole = _run(Given(agrees))
    for count in range(1, 5):
        done = [picks for _, picks in whole[:count] if picks]
        rest = _run(Given(agrees), done=done)
        assert [picks for _, picks in rest] == [picks for _, picks in whole[count:]]
        assert _chosen(rest) == _chosen(whole)[count:]


@pytest.mark.parametrize("method", ["random", "herding", "entropy"])
def test_other_methods_measure_nothing_of_their_picks(method: str) -> None:
    given = Given(agrees=-1)
    for row, picks in _run(given, method):
        assert "lift" not in row.picks
        assert picks is None or (picks.lift is None and '"lift"' not in picks.line())
    assert not given.asked


def test_nothing_is_measured_below_the_labels_from_which_the_task_chooses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(get_task("classification")), "chooses_from", 60)
    given = Given(agrees=1)
    cycles = _run(given, scenario="junk:30%")
    labeled = np.random.default_rng([seed_of(0, 0), 4]).permutation(IMAGES)[:20].tolist()
    trained = []
    for _, picks in cycles:
        trained.append(int(np.count_nonzero(~given.pool.junk[labeled])))
        labeled += [given.pool.ids.index(id) for id in picks.ids] if picks else []
    few = [count for count in trained if count < 60]
    assert 2 <= len(few) < 5 and given.measured == 5 - len(few)  # the sixth cycle picks nothing
    assert _chosen(cycles) == ["random"] * len(few) + ["herding by loss"] * given.measured
    for (row, _), count in zip(cycles, few):
        assert f"fewer than 60 labels (there are {count})" in row.choice
