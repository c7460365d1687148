"""The active-learning loop on fully labeled data, to compare methods.

Everything is in memory and nothing is exported; training, scores and selection are those of
``lloss next``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lloss.data.labeled_set import LabeledSet
from lloss.manifest import EMBEDDING, PRETRAINED_EMBEDDING
from lloss.pools import Item
from lloss.scores.score_source import TableScores
from lloss.scores.scores_folder import scores_table
from lloss.selection import SelectionSettings, select
from lloss.selection.hashing import draw_ids
from lloss.statistics.ranking_metrics import RankingFigures
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.decisions import decide
from lloss.training.evaluation import measure
from lloss.training.trainer import Trainer, predict
from lloss.training.training_data import TrainingData


@dataclass(frozen=True)
class Method:
    """How to train, and by what to select."""

    name: str  # for tables and plots
    train: dict[str, object]  # changes to the training settings; a baseline trains without the head
    how: str = "top"  # `top`, `diverse` or `random`
    by: str = "loss"  # `loss` or `entropy`
    subset: float = 0  # share of the rest to choose from; 0 for all


RANDOM = Method("random", {"head": False}, "random", "entropy")
ENTROPY = Method("entropy", {"head": False}, "top", "entropy")


@dataclass(frozen=True)
class CycleResult:
    """One cycle: the size of the labeled set, the metric on the test set, the head's figures."""

    cycle: int
    labeled: int
    metric: float
    head: RankingFigures | None
    entropy: RankingFigures


@dataclass(frozen=True)
class Experiment:
    """Fully labeled data and a budget."""

    pool: TrainingData  # the images to choose from
    test: TrainingData  # the images to measure on
    initial: int  # size of the first labeled set, drawn at random by the trial's seed
    k: int  # images added a cycle
    cycles: int  # trainings in all, the first on the initial set
    first: tuple[int, ...] = ()  # rows of the first labeled set, for all trials, instead of a draw


def simulate(
    experiment: Experiment,
    settings: TrainSettings,
    method: Method,
    trial: int = 0,
    progress: Callable[[CycleResult], None] = lambda _: None,
) -> list[CycleResult]:
    """Run one trial. All methods of a trial start from the same labeled set."""
    settings = replace(settings, **method.train, seed=settings.seed + trial)  # type: ignore[arg-type]
    names = [str(row) for row in range(len(experiment.pool.images))]
    labeled = list(map(str, experiment.first)) or draw_ids(names, experiment.initial, settings.seed)
    results = []
    for cycle in range(experiment.cycles):
        rows = np.array(sorted(map(int, labeled)))
        data = experiment.pool.take(rows)
        trainer = Trainer(_decided(settings, data), data)
        while not trainer.finished:
            trainer.advance()
        found = measure(trainer.model, trainer.settings, experiment.test)
        results.append(CycleResult(cycle, len(labeled), found.metric, found.head, found.entropy))
        progress(results[-1])
        if cycle + 1 < experiment.cycles:  # the pool is not scored after the last training
            labeled += _pick(trainer, experiment, method, labeled, cycle)
    return results


def _decided(settings: TrainSettings, data: TrainingData) -> TrainSettings:
    rows = range(len(data.images))
    items = [Item(str(row), partial(data.images.__getitem__, row)) for row in rows]
    labeled = LabeledSet(items, list(data.targets), "labeled images")
    return decide(get_task(settings.task), settings, labeled).settings


def _pick(
    trainer: Trainer, experiment: Experiment, method: Method, labeled: list[str], cycle: int
) -> list[str]:
    seed = trainer.settings.seed * 1000 + cycle
    taken = set(labeled)
    rest = [row for row in range(len(experiment.pool.images)) if str(row) not in taken]
    if method.how == "random":
        return draw_ids(map(str, rest), experiment.k, seed)
    columns = scores_of(trainer, experiment.pool.images[rest])
    table = scores_table([str(row) for row in rest], columns)
    how = SelectionSettings(
        k=experiment.k,
        strategy=method.how,
        by=method.by,
        subset=round(method.subset * len(rest)),
        seed=seed,
    )
    return select(TableScores(table), how).ids


def scores_of(trainer: Trainer, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Compute what the exported graph would give for these images: loss, entropy, embeddings."""
    parts: dict[str, list[NDArray[np.float32]]] = {}
    for _, forward in predict(trainer.model, trainer.settings, images):
        entropy = trainer.model.objective.outputs(forward.output)["entropy"]
        found = {"entropy": entropy, EMBEDDING: forward.embedding, "loss": forward.loss}
        for name, value in found.items():
            if value is not None:
                parts.setdefault(name, []).append(value.float().cpu().numpy())
    if trainer.model.pretrained is not None:
        forwards = predict(trainer.model.pretrained, trainer.settings, images)
        parts[PRETRAINED_EMBEDDING] = [f.embedding.cpu().numpy() for _, f in forwards]
    return {name: np.concatenate(part) for name, part in parts.items()}
