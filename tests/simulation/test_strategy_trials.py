from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lloss.simulation import strategy_trials
from lloss.simulation.strategy_trials import (
    ENTROPY,
    RANDOM,
    Experiment,
    Method,
    scores_of,
    simulate,
)
from lloss.tasks.train_settings import TrainSettings
from lloss.training.trainer import Trainer
from lloss.training.training_data import TrainingData

MakeData = Callable[..., TrainingData]

LEARNED = Method("learned", {})
DIVERSE = Method("diverse", {}, "diverse", subset=0.7)


def _experiment(make_data: MakeData, cycles: int = 3) -> Experiment:
    return Experiment(make_data(48), make_data(20, seed=1), initial=12, k=5, cycles=cycles)


class _Seen:
    """Every trainer that a simulation made, its first weights and its images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trainers: list[Trainer] = []
        self.first: list[dict[str, Tensor]] = []
        monkeypatch.setattr(strategy_trials, "Trainer", self._make)

    def _make(self, *args: Any, **options: Any) -> Trainer:
        trainer = Trainer(*args, **options)
        self.trainers.append(trainer)
        self.first.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
        return trainer

    def labeled(self) -> list[set[bytes]]:
        return [{image.tobytes() for image in made.data.images} for made in self.trainers]


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("method", [LEARNED, DIVERSE, RANDOM, ENTROPY], ids=lambda s: s.name)
def test_each_cycle_adds_k_images_and_trains_from_scratch(
    tiny: TrainSettings, make_data: MakeData, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    seen = _Seen(monkeypatch)
    results = simulate(_experiment(make_data), tiny, method)
    assert [result.cycle for result in results] == [0, 1, 2]
    assert [result.labeled for result in results] == [12, 17, 22]
    assert [len(images) for images in seen.labeled()] == [12, 17, 22]
    one, two, three = seen.labeled()
    assert one < two < three
    assert all(_same(first, seen.first[0]) for first in seen.first)
    assert all(made.finished for made in seen.trainers)
    assert not _same(seen.trainers[0].model.state_dict(), seen.first[0])
    with_head = method in (LEARNED, DIVERSE)
    assert [made.model.head is not None for made in seen.trainers] == [with_head] * 3
    assert [result.head is not None for result in results] == [with_head] * 3
    assert all(0 <= result.metric <= 1 for result in results)


@pytest.mark.parametrize("method", [DIVERSE, RANDOM], ids=lambda s: s.name)
def test_a_trial_repeats_whatever_the_global_seeds_are(
    tiny: TrainSettings, make_data: MakeData, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    seen = _Seen(monkeypatch)
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        runs.append(simulate(_experiment(make_data), tiny, method, trial=3))
    assert seen.labeled()[:3] == seen.labeled()[3:]
    assert runs[0] == runs[1]
    ends = [seen.trainers[last].model.state_dict() for last in (2, 5)]
    assert _same(ends[0], ends[1])


def test_the_pool_is_scored_between_cycles_and_not_after_the_last(
    tiny: TrainSettings, make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[tuple[bool, int]] = []

    def counting(trainer: Trainer, images: Any) -> Any:
        scored.append((trainer.finished, len(images)))
        return scores_of(trainer, images)

    monkeypatch.setattr(strategy_trials, "scores_of", counting)
    simulate(_experiment(make_data), tiny, LEARNED)
    assert scored == [(True, 36), (True, 31)]  # by the trained network, the unlabeled rest alone


def test_the_images_added_are_those_the_trained_head_scores_highest(
    tiny: TrainSettings, make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _Seen(monkeypatch)
    experiment = _experiment(make_data, 2)
    simulate(experiment, tiny, LEARNED)
    before, after = seen.labeled()
    rest = [image for image in experiment.pool.images if image.tobytes() not in before]
    scores = scores_of(seen.trainers[0], np.stack(rest))["loss"]
    best = sorted(range(len(rest)), key=lambda row: -scores[row])[:5]
    assert after - before == {rest[row].tobytes() for row in best}


def test_diverse_spreads_by_features_of_before_training_where_they_are_kept(
    tiny: TrainSettings, make_data: MakeData, tmp_path: Path
) -> None:
    data = make_data(24)
    torch.save(Trainer(tiny, data, "cpu").model.network.state_dict(), tmp_path / "w.pt")
    keep = {"weights": str(tmp_path / "w.pt"), "keep_embedding": "pretrained", "lr": 0.5}
    trainer = Trainer(replace(tiny, **keep), data, "cpu")
    before = scores_of(trainer, data.images)
    assert np.array_equal(before["embedding"], before["pretrained_embedding"])
    while not trainer.finished:
        trainer.advance()
    after = scores_of(trainer, data.images)
    assert np.array_equal(after["pretrained_embedding"], before["embedding"])
    assert not np.allclose(after["embedding"], before["embedding"], atol=0.1)
