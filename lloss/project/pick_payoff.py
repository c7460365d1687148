"""Whether the picks of a cycle were worth their labels, known once they are labeled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LlossError
from lloss.manifest import read_manifest
from lloss.project.cycle_model import MODEL
from lloss.project.picks_file import read_picks
from lloss.project.summary import Summary
from lloss.scores.scores_folder import ScoresFolder
from lloss.statistics.confidence_intervals import Interval, Z, in_words
from lloss.statistics.lift import LEAST, lift_of, standard_error
from lloss.training.cautions import interval_of
from lloss.training.checkpoint import load_checkpoint
from lloss.training.evaluation import Evaluation, evaluate_checkpoint


@dataclass(frozen=True, kw_only=True)
class Payoff:
    """The picks of a cycle under the model that picked them, beside random images.

    Attributes:
        cycle: whose picks.
        picks: of these, images that were measured: labeled, and of classes that the model has.
        unmeasured: labeled picks of other classes, which have no loss.
        loss: mean true loss of the picks.
        metric_name: of the task's metric.
        metric: its value on them; None if it is undefined.
        images: random images beside them, of classes that the model has.
        random_loss: their mean true loss.
        random_metric: the metric on them; None if it is not known.
        source: what these images are, in words.
        lift: ``loss / random_loss``.
        interval: its 95 % interval, None if it is unknown.
    """

    cycle: int
    picks: int
    unmeasured: int
    loss: float
    metric_name: str
    metric: float | None
    images: int
    random_loss: float
    random_metric: float | None
    source: str
    lift: float
    interval: Interval | None

    def __str__(self) -> str:
        lost = f"; {self.unmeasured} of new classes have no loss" if self.unmeasured else ""
        metrics = ""
        if self.metric is not None and self.random_metric is not None:
            metrics = (
                f"; {self.metric_name} {self.metric:.2f} on the picks and "
                f"{self.random_metric:.2f} beside"
            )
        return (
            f"the {self.picks} labeled picks of cycle {self.cycle} had {self.loss:.3g} loss under "
            f"the model that picked them, {self.images} {self.source} {self.random_loss:.3g}: lift "
            f"{in_words(self.lift, self.interval)}{metrics}{lost}"
        )


def measure_payoff(
    folder: Path, before: Summary, labeled: LabeledSet, problems: Problems
) -> Payoff | None:
    """Measure the picks of the cycle in ``folder`` that are labeled now.

    They are compared with the random images that it drew to monitor, or else with its held-out
    images, or else with what it predicted for the unlabeled ones, if in the unit of the loss. None
    where too few of one of the two are labeled. A file of that cycle that is gone or
    damaged is noted.
    """
    try:
        found = read_picks(folder)
        own = {*found.chosen, *found.random}
        picks, random = (_labeled(labeled, ids) for ids in (found.chosen, found.random))
        if len(picks) < LEAST:
            return None
        checkpoint = load_checkpoint(folder)
        quiet = Problems(skip=True)
        measured = evaluate_checkpoint(checkpoint, picks, quiet)
        beside = None
        if len(random) >= LEAST:
            beside = evaluate_checkpoint(checkpoint, random, quiet)
        predicted = _Reference.of_pool(folder, {i.id for i in labeled.items if i.id not in own})
    except (OSError, LlossError) as error:
        problems.note(f"{folder}: the loss of its labeled picks cannot be measured: {error}")
        return None
    if beside is not None and len(beside.true_loss) >= LEAST:
        return _compared(before, measured, _Reference.of(beside))
    reference = _Reference.of_held_out(before) or predicted
    return None if reference is None else _compared(before, measured, reference)


@dataclass(frozen=True)
class _Reference:
    """Random images under the model."""

    images: int
    loss: float
    error: float  # standard error of it
    metric: float | None
    source: str

    @classmethod
    def of(cls, measured: Evaluation) -> _Reference:
        losses = measured.true_loss
        return cls(
            len(losses),
            float(losses.mean()),
            standard_error(losses),
            measured.metric,
            "random images",
        )

    @classmethod
    def of_held_out(cls, before: Summary) -> _Reference | None:
        figures = before.evaluation
        if not figures or figures.get("mean_loss") is None:
            return None
        images = int(figures["images"]) - int(figures.get("unseen", 0))  # that have a loss
        if images < LEAST:
            return None
        within = interval_of(figures, "mean_loss")
        error = (within[1] - within[0]) / (2 * Z) if within else math.nan
        loss, metric = float(figures["mean_loss"]), before.metric.value
        return cls(images, loss, error, metric, "held-out images")

    @classmethod
    def of_pool(cls, folder: Path, labeled: set[str]) -> _Reference | None:
        """What was predicted for the images that were unlabeled then."""
        unit = read_manifest(folder / MODEL).unit
        if unit is None or not unit.name:
            return None
        losses = ScoresFolder(folder / "scores").column("loss", without=labeled)
        losses = losses[np.isfinite(losses)]
        if len(losses) < LEAST:
            return None
        mean, source = float(losses.mean(dtype=np.float64)), "unlabeled images, as predicted,"
        return cls(len(losses), mean, standard_error(losses), None, source)


def _compared(before: Summary, picks: Evaluation, random: _Reference) -> Payoff | None:
    losses = picks.true_loss
    lift = lift_of(losses, random.loss, random.error)
    if lift is None:
        return None
    return Payoff(
        cycle=before.cycle,
        picks=len(losses),
        unmeasured=picks.unseen,
        loss=float(losses.mean()),
        metric_name=picks.metric_name,
        metric=picks.metric if math.isfinite(picks.metric) else None,
        images=random.images,
        random_loss=random.loss,
        random_metric=random.metric,
        source=random.source,
        lift=lift.value,
        interval=lift.interval,
    )


def _labeled(labeled: LabeledSet, ids: list[str]) -> LabeledSet:
    wanted = set(ids)
    return labeled.take(row for row, item in enumerate(labeled.items) if item.id in wanted)
