"""Measure a training on its own labeled images: by more trainings, each without a part of them.

::

    RUN/
      folds/1-of-5/                checkpoint.pt of each, until all are done
      cross_validation.json        figures as of `Evaluation.as_dict`
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.data.near_copies import Groups, groups_among
from lloss.errors import DivergedError, LabelError, SettingsError
from lloss.files import write_json
from lloss.modeling.network import TappedNetwork
from lloss.pools import Item
from lloss.statistics.clusters import among
from lloss.statistics.confidence_intervals import Clusters
from lloss.tasks import get_task
from lloss.tasks.task import Task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.cautions import cautions, measured, ranked
from lloss.training.checkpoint import FILE, Checkpoint, load_checkpoint
from lloss.training.evaluation import Evaluation, Measurement
from lloss.training.fit_head import FOLDS, LEAST
from lloss.training.holdout import LABELS, MEASURABLE, of_groups, scenes_of
from lloss.training.pace import in_words
from lloss.training.ranking_evidence import CROSS_VALIDATION, read_cross_validation
from lloss.training.run_folder import METRICS, continue_run
from lloss.training.trainer import Trainer, device_of, predict
from lloss.training.training_data import TrainingData, load_examples, pixels_sha256

FOLDER = "folds"

AUTOMATIC, NONE = -1, 0
"""Values of the setting ``folds``."""

AFFORDABLE = 300.0
"""Seconds that a cross-validation may take, as the training foretells, if nobody asked for it."""


def check_folds(settings: TrainSettings, images: int, warm_start: bool) -> None:
    """Refuse a cross-validation that is asked for and cannot be made of so many images."""
    folds = settings.folds
    if folds in (AUTOMATIC, NONE) or settings.freeze:
        return
    if warm_start:
        raise SettingsError(f"folds = {folds}: {_SEEN}; leave one of the two out")
    if images < max(LEAST, 2 * folds):
        raise LabelError(
            f"folds = {folds}: {images} labeled images are too few: it takes {LEAST}, and two for "
            "each fold; label more, or leave folds out"
        )


_SEEN = "the weights of the warm start have seen the images that each fold leaves out"


@dataclass(frozen=True)
class Plan:
    """How many folds a finished training is measured by, and a line on it."""

    folds: int
    line: str


def plan(
    settings: TrainSettings, run: Path, images: int, warm_start: bool, unmeasured: bool = False
) -> Plan:
    """Decide on a cross-validation: what is asked for, else for few images if it is cheap.

    ``unmeasured`` says that nothing else measures the training, so that images may be many too.
    Trainings without a part of the images, of as many epochs, take that much less time each than
    the one in ``run``.
    """
    folds = FOLDS if settings.folds == AUTOMATIC else settings.folds
    seconds = (folds - 1) * _seconds(run / METRICS, images)
    how = f"{folds} more trainings, each without a part of the {images} images"
    enough = images >= LABELS and not unmeasured
    if settings.folds == NONE or (settings.folds == AUTOMATIC and enough):
        return Plan(0, "")
    if settings.folds != AUTOMATIC:
        return Plan(folds, f"cross-validation: {how}, about {in_words(seconds)}")
    if images < LEAST:
        why = f"{images} labeled images are too few to measure on, by cross-validation too"
    elif warm_start:
        why = f"no cross-validation, since {_SEEN}"
    elif seconds > AFFORDABLE:
        why = (
            f"cross-validation, {how}, takes about {in_words(seconds)} on this machine, more than "
            f"{in_words(AFFORDABLE)}; folds = {folds} (--resume --folds {folds}) makes it anywhere"
        )
    else:
        few = f"fewer than {LABELS} labeled images"
        if unmeasured:
            few = f"fewer than {MEASURABLE} images are held out"
        return Plan(
            folds,
            f"automatic: folds = {folds} ({few}; cross-validation measures on all {images} labeled "
            f"ones by {folds} more trainings, about {in_words(seconds)}; folds = 0 leaves it out)",
        )
    return Plan(0, f"not measured: {why}")


def _seconds(metrics: Path, images: int) -> float:
    """Seconds that a finished training took, by the pace of its epochs."""
    lines = metrics.read_text(encoding="utf-8").splitlines()
    paces = [float(json.loads(line).get("images_per_second", 0)) for line in lines]
    return sum(images / max(pace, 0.05) for pace in paces)


def draw_folds(
    task: Task,
    labeled: LabeledSet,
    folds: int,
    seed: int,
    groups: Callable[[Sequence[Item]], Groups] | None = None,
) -> NDArray[np.int64]:
    """Draw the fold of each labeled image, int64 [N], at most ``folds``: spread over the strata.

    Items of one image are in one fold, and so are near-duplicates, where ``groups`` looks for them:
    folds have equal numbers of groups.
    """
    strata: dict[str, str] = {}
    images = [task.image_of(item, label) for item, label in zip(labeled.items, labeled.labels)]
    if groups:
        images = of_groups(images, labeled.items, groups)
    for image, label in zip(images, labeled.labels):
        strata.setdefault(image, task.stratum(label))
    names = list(strata)
    shuffled = [names[place] for place in np.random.default_rng(seed).permutation(len(names))]
    spread = sorted(shuffled, key=strata.__getitem__)  # deal each stratum out
    fold_of = {name: place % folds for place, name in enumerate(spread)}
    return np.array([fold_of[image] for image in images], np.int64)


def other_folds(settings: TrainSettings, run: Path) -> Iterator[str]:
    """Yield a line where other folds are asked for than ``run`` was measured by."""
    made = (read_cross_validation(run) or {}).get("folds")
    if settings.folds not in (AUTOMATIC, NONE, made):
        yield (
            f"{run / CROSS_VALIDATION} has the figures of {made} folds, which stay; remove it to "
            f"measure by {settings.folds}"
        )


def remove_folds(run: Path) -> None:
    """Remove what an earlier training left in the folder."""
    (run / CROSS_VALIDATION).unlink(missing_ok=True)
    shutil.rmtree(run / FOLDER, ignore_errors=True)


@dataclass(frozen=True)
class CrossValidation:
    """What all folds of a run share.

    Attributes:
        run: its folder.
        whole: its finished checkpoint, of all images.
        labeled: these images and their labels [N].
        data: the same, decoded for training.
        device: as of :class:`.Trainer`.
        say: receives a line on each step.
    """

    run: Path
    whole: Checkpoint
    labeled: LabeledSet
    data: TrainingData
    device: str
    say: Callable[[str], None]

    def measure(self, folds: int) -> Checkpoint:
        """Train and measure what is not done yet, and return the run's checkpoint with a unit.

        A fold that diverges leaves the run unmeasured, with a line that says so. Raises
        ``InterruptedRunError`` on Ctrl-C; the same call goes on from there.
        """
        settings, on = self.whole.settings, device_of(self.device)
        plain, rows = load_examples(
            self.labeled, self.whole.classes, settings, Problems(skip=True), scratch=self.run
        )
        of, groups = self._drawn(folds)
        if not of.any():
            self.say("not measured: all labels are of one image, so that no part can be left out")
            return self.whole
        folds = int(of.max()) + 1
        labels = [self.labeled.labels[row] for row in rows]
        found, levels = Measurement(settings, plain, labels), np.zeros(len(rows))
        for fold in range(folds):
            try:
                checkpoint = self._trained(fold, folds, np.flatnonzero(of != fold))
            except DivergedError as error:
                self.say(f"not measured: in fold {fold + 1} of the cross-validation {error}")
                return self.whole
            model = checkpoint.network().to(on)
            held = np.flatnonzero(of[rows] == fold)
            found.add(model, held)
            levels[held] = _level(model, settings, plain, np.flatnonzero(of[rows] != fold))
        whole = self.whole.network().to(on)
        levels -= _level(whole, settings, plain, np.arange(len(rows)))
        scenes = among(self._scenes(groups), np.array(rows))
        evaluation = found.evaluation(folds=of[rows], levels=levels, clusters=scenes)
        notes = [*filter(None, [str(groups)]), *evaluation.notes]
        return self._written(dataclasses.replace(evaluation, notes=notes), groups)

    def _drawn(self, folds: int) -> tuple[NDArray[np.int64], Groups]:
        """Draw the fold of each labeled image, and return the groups that are in one."""
        settings, groups = self.whole.settings, list[Groups]()

        def grouped(items: Sequence[Item]) -> Groups:
            groups.append(groups_among(items))
            return groups[0]

        task = get_task(settings.task)
        return draw_folds(task, self.labeled, folds, settings.seed, grouped), groups[0]

    def _scenes(self, groups: Groups) -> Clusters:
        task, labeled = get_task(self.whole.settings.task), self.labeled
        return scenes_of([*map(task.image_of, labeled.items, labeled.labels)], groups)

    def _trained(self, fold: int, folds: int, rest: NDArray[np.int64]) -> Checkpoint:
        """Train on the rows ``rest``, or go on with that."""
        folder = self.run / FOLDER / f"{fold + 1}-of-{folds}"
        folder.mkdir(parents=True, exist_ok=True)
        before = load_checkpoint(folder) if (folder / FILE).exists() else None
        if before is not None and before.finished:
            return before
        self.say(f"fold {fold + 1} of {folds}")
        part = self.data.take(rest)
        trainer = Trainer(self.whole.settings, part, self.device)
        if before is not None:
            trainer.load_state(before.state)
        own = dataclasses.replace(
            self.whole, labeled=len(rest), images_sha256=pixels_sha256(part.images), state={}
        )
        done = continue_run(folder, trainer, own)
        # Without the optimizer, which takes twice the space of the weights
        kept = {**done.state, "optimizer": {}, "schedule": {}}
        dataclasses.replace(done, state=kept).save(folder / FILE)
        return done

    def _written(self, evaluation: Evaluation, groups: Groups) -> Checkpoint:
        figures: dict[str, Any] = {**evaluation.as_dict(), "apart": groups.apart}
        warnings = cautions(figures, evaluation.metric_name)
        figures |= {"ranked": ranked(figures), "warnings": warnings}
        self.say(in_line(figures, evaluation.metric_name))
        unit = evaluation.unit
        if unit is not None and not unit.name:
            self.say(f"the predicted loss is {unit}")
        for line in evaluation.notes:
            self.say(line)
        dataclasses.replace(self.whole, unit=unit).save(self.run / FILE)
        write_json(self.run / CROSS_VALIDATION, figures)  # last: it is complete
        shutil.rmtree(self.run / FOLDER, ignore_errors=True)
        return load_checkpoint(self.run)


def in_line(figures: dict[str, Any], metric: str) -> str:
    """Say what was measured on labeled images, by cross-validation or on a part of them."""
    folds = int(figures.get("folds", 1))
    how = f"labeled images by {folds}-fold cross-validation" if folds > 1 else "held-out images"
    return f"measure on {figures['images']} {how}: {measured(figures, metric)}"


def _level(
    model: TappedNetwork, settings: TrainSettings, data: TrainingData, rows: NDArray[np.int64]
) -> float:
    """Mean prediction of the images that a head was trained on: losses of pairs leave it open."""
    parts = [forward.loss for _, forward in predict(model, settings, data.images[rows])]
    values = [part.float().cpu().numpy() for part in parts if part is not None]
    return float(np.concatenate(values).mean(dtype=np.float64)) if values else 0.0
