from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lloss.annotations import ObjectLabel, Problems
from lloss.data.labeled_set import LabeledSet
from lloss.pools import Item
from lloss.simulation import strategy_trials
from lloss.simulation.strategy_trials import (
    CORESET,
    ENTROPY,
    RANDOM,
    Experiment,
    Strategy,
    scores_of,
    simulate,
)
from lloss.tasks.presets import resolve_settings
from lloss.tasks.train_settings import TrainSettings
from lloss.training.trainer import Trainer
from lloss.training.training_data import TrainingData, load_examples

MakeData = Callable[..., TrainingData]

LEARNED = Strategy("learned", {})
DIVERSE = Strategy("diverse", {}, "diverse", subset=0.7)


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


@pytest.mark.parametrize(
    "strategy", [LEARNED, DIVERSE, RANDOM, ENTROPY, CORESET], ids=lambda s: s.name
)
def test_each_cycle_adds_k_images_and_trains_from_scratch(
    tiny: TrainSettings, make_data: MakeData, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    seen = _Seen(monkeypatch)
    results = simulate(_experiment(make_data), tiny, strategy)
    assert [result.cycle for result in results] == [0, 1, 2]
    assert [result.labeled for result in results] == [12, 17, 22]
    assert [len(images) for images in seen.labeled()] == [12, 17, 22]
    one, two, three = seen.labeled()
    assert one < two < three
    assert all(_same(first, seen.first[0]) for first in seen.first)
    assert all(made.finished for made in seen.trainers)
    assert not _same(seen.trainers[0].model.state_dict(), seen.first[0])
    with_head = strategy in (LEARNED, DIVERSE)
    assert [made.model.head is not None for made in seen.trainers] == [with_head] * 3
    assert [result.head is not None for result in results] == [with_head] * 3
    assert all(0 <= result.metric <= 1 for result in results)


def test_all_strategies_of_a_trial_start_from_one_labeled_set(
    tiny: TrainSettings, make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _Seen(monkeypatch)
    for strategy in (LEARNED, RANDOM, ENTROPY):
        simulate(_experiment(make_data, 1), tiny, strategy)
    one, two, three = seen.labeled()
    assert one == two == three


@pytest.mark.parametrize("strategy", [DIVERSE, RANDOM], ids=lambda s: s.name)
def test_a_trial_repeats_whatever_the_global_seeds_are(
    tiny: TrainSettings, make_data: MakeData, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    seen = _Seen(monkeypatch)
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        runs.append(simulate(_experiment(make_data), tiny, strategy, trial=3))
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


def test_scores_are_those_the_graph_would_give(tiny: TrainSettings, make_data: MakeData) -> None:
    data = make_data(30)
    headed = scores_of(Trainer(tiny, data, "cpu"), data.images)
    bare = scores_of(Trainer(replace(tiny, head=False), data, "cpu"), data.images)
    assert {name: values.shape for name, values in headed.items()} == {
        "loss": (30,),
        "entropy": (30,),
        "embedding": (30, 128),
    }
    assert bare.keys() == {"entropy", "embedding"}
    assert np.array_equal(headed["entropy"], bare["entropy"])
    assert (headed["entropy"] >= 0).all()
    assert (headed["entropy"] <= np.log(3) + 1e-6).all()


@pytest.mark.parametrize("strategy", [LEARNED, CORESET], ids=lambda s: s.name)
def test_detection_has_the_same_baselines(strategy: Strategy) -> None:
    settings = resolve_settings(
        "default", task="detection", size=64, epochs=1, batch_size=4, hidden=8, amp="off"
    )
    labeled, test = _discs(12, 0), _discs(4, 1)
    pool, _ = load_examples(labeled, ("disc",), settings, Problems(), for_training=True)
    plain, _ = load_examples(labeled, ("disc",), settings, Problems())
    held_out, _ = load_examples(test, ("disc",), settings, Problems())
    assert pool.images.shape != plain.images.shape  # padding to crop
    experiment = Experiment(pool, held_out, 5, 3, 2, inputs=plain.images)
    results = simulate(experiment, settings, strategy)
    assert [result.labeled for result in results] == [5, 8]
    assert all(0 <= result.metric <= 1 for result in results)
    assert (results[0].head is None) == (strategy is not LEARNED)


def _discs(count: int, seed: int) -> LabeledSet:
    random = np.random.default_rng(seed)
    items, labels = [], []
    for row in range(count):
        pixels = random.integers(60, 110, (60, 80, 3)).astype(np.uint8)
        x, y = (int(v) for v in random.integers(0, 30, 2))
        pixels[y : y + 28, x : x + 28] = 230
        items.append(Item(str(row), lambda pixels=pixels: pixels))
        box = np.array([[x, y, x + 28, y + 28]], np.float32)
        labels.append(ObjectLabel(("disc",), box, np.zeros(1, bool), np.zeros(1, bool)))
    return LabeledSet(items, labels, "discs")
