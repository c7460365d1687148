"""Cross-validation of a training: against trainings by hand, interrupted, and when it is made."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.export.trained_network import unit_of_run

from lloss.annotations import Problems
from lloss.data.class_labels import open_labeled
from lloss.data.labeled_set import LabeledSet
from lloss.data.near_copies import Groups, groups_among
from lloss.errors import DivergedError, InterruptedRunError, LabelError, SettingsError
from lloss.simulation.image_variants import variant_of
from lloss.statistics.confidence_intervals import wilson
from lloss.statistics.ranking_metrics import accuracy_interval, ranking_figures
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training import cross_validation
from lloss.training.checkpoint import load_checkpoint
from lloss.training.cross_validation import FOLDER, draw_folds, plan
from lloss.training.ranking_evidence import (
    CROSS_VALIDATION,
    evidence_of,
    read_cross_validation,
)
from lloss.training.run import train
from lloss.training.run_folder import METRICS
from lloss.training.trained_prints import PRINTS
from lloss.training.trainer import Trainer, predict
from lloss.training.training_data import TrainingData

from ..data.test_near_copies import item_of, scene


@pytest.fixture
def folded(tiny: TrainSettings) -> TrainSettings:
    return dataclasses.replace(tiny, folds=3)


@pytest.fixture(scope="module")
def measured(photos: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run ``trained``, measured by three folds; not to be written to."""
    run = tmp_path_factory.mktemp("measured") / "run"
    shutil.copytree(trained, run)
    settings = dataclasses.replace(load_checkpoint(run).settings, taps=(), folds=3)
    train(open_labeled(str(photos)), settings, run, resume=True)
    return run


def test_figures_are_those_of_trainings_by_hand_without_each_part(
    labeled: LabeledSet, folded: TrainSettings, trained: Path, measured: Path
) -> None:
    task, data = get_task("classification"), _decoded(labeled, folded)
    folds = draw_folds(task, labeled.ordered(), 3, folded.seed)
    right, predicted, loss = np.zeros(60, bool), np.zeros(60), np.zeros(60)
    for fold in range(3):
        held, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        trainer = Trainer(folded, data.take(rest))
        while not trainer.finished:
            trainer.advance()
        for part, forward in predict(trainer.model, folded, data.images[held]):
            rows = held[part]
            target = np.asarray(data.targets)[rows]
            logits = forward.output.double().numpy()
            shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            right[rows] = logits.argmax(1) == target
            loss[rows] = -np.log(shares[np.arange(len(rows)), target])
            assert forward.loss is not None
            predicted[rows] = forward.loss.numpy()
    figures = read_cross_validation(measured)
    assert figures is not None and (figures["images"], figures["folds"]) == (60, 3)
    assert figures["accuracy"] == pytest.approx(right.mean())
    ranking = ranking_figures(predicted, loss, folds=folds)
    assert figures["head"]["ranking_accuracy"] == pytest.approx(ranking.ranking_accuracy)
    within = accuracy_interval(predicted, loss, folds)
    assert figures["intervals"]["head"]["ranking_accuracy"] == pytest.approx(within)
    assert figures["mean_loss"] == pytest.approx(loss.mean(), rel=1e-5)
    evidence = evidence_of(figures, 60, has_entropy=True)
    assert evidence.images == 60 and evidence.head and evidence.entropy and evidence.advantage
    # The run itself is as without a cross-validation, but for the unit that it gives.
    before, after = load_checkpoint(trained), load_checkpoint(measured)
    assert after.unit is not None and "by 3-fold cross-validation" in str(unit_of_run(after))
    assert all((after.state["model"][k] == v).all() for k, v in before.state["model"].items())
    assert not (measured / FOLDER).exists()


def _decoded(labeled: LabeledSet, settings: TrainSettings) -> TrainingData:
    from lloss.annotations import Problems
    from lloss.training.training_data import load_examples

    ordered = labeled.ordered()
    classes = get_task("classification").classes(ordered.labels)
    return load_examples(ordered, classes, settings, Problems())[0]


def test_an_interrupted_one_goes_on_at_its_fold(
    labeled: LabeledSet,
    folded: TrainSettings,
    measured: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    continue_run, folds = cross_validation.continue_run, list[str]()

    def cut(run: Path, *rest: Any) -> Any:
        folds.append(run.name)
        if run.name == "2-of-3" and folds.count(run.name) == 1:
            raise InterruptedRunError("stopped")
        return continue_run(run, *rest)

    monkeypatch.setattr(cross_validation, "continue_run", cut)
    run = tmp_path / "run"
    with pytest.raises(InterruptedRunError):
        train(labeled, folded, run)
    assert load_checkpoint(run).finished and not (run / CROSS_VALIDATION).exists()
    assert load_checkpoint(run / FOLDER / "1-of-3").state["optimizer"] == {}
    train(labeled, folded, run, resume=True)
    assert folds == ["1-of-3", "2-of-3", "2-of-3", "3-of-3"]
    assert read_cross_validation(run) == read_cross_validation(measured)
    train(labeled, folded, run, resume=True)
    assert len(folds) == 4


def test_a_training_from_the_start_removes_figures_of_another(
    labeled: LabeledSet, tiny: TrainSettings, tmp_path: Path
) -> None:
    (tmp_path / "run" / FOLDER / "1-of-3").mkdir(parents=True)
    (tmp_path / "run" / CROSS_VALIDATION).write_text("{}")
    train(labeled, tiny, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.suffix) == [
        "checkpoint.pt",
        METRICS,
        PRINTS,
    ]


def test_a_fold_that_diverges_leaves_the_run_unmeasured(
    labeled: LabeledSet,
    folded: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def diverged(*_: Any) -> Any:
        raise DivergedError("training diverged")

    monkeypatch.setattr(cross_validation, "continue_run", diverged)
    lines = list[str]()
    assert train(labeled, folded, tmp_path / "run", say=lines.append).finished
    assert "in fold 1 of the cross-validation training diverged" in lines[-1]
    assert not (tmp_path / "run" / CROSS_VALIDATION).exists()


@pytest.fixture
def paced(tmp_path: Path) -> Callable[[float], Path]:
    """A run whose training of 60 images took so many seconds."""

    def make(seconds: float) -> Path:
        pace = json.dumps({"epoch": 1, "images_per_second": 120 / seconds})
        (tmp_path / METRICS).write_text(f"{pace}\n{pace}\n")
        return tmp_path

    return make


def test_it_is_made_by_itself_where_few_images_are_learned_soon(
    paced: Callable[[float], Path],
) -> None:
    open_ = TrainSettings()
    made = plan(open_, paced(10), 60, False)
    assert made.folds == 5
    assert made.line.startswith("automatic: folds = 5 (fewer than 150 labeled images")
    assert "about 40 s; folds = 0 leaves it out" in made.line
    long = plan(open_, paced(600), 60, False)
    assert long.folds == 0
    assert "takes about 40 min on this machine, more than 5 min; folds = 5 (--resume" in long.line
    few = plan(open_, paced(10), 19, False)
    assert few.folds == 0 and "19 labeled images are too few" in few.line
    warm = plan(open_, paced(10), 60, True)
    assert warm.folds == 0 and "the weights of the warm start have seen" in warm.line
    assert plan(open_, paced(10), 150, False) == cross_validation.Plan(0, "")
    unmeasured = plan(open_, paced(10), 150, False, unmeasured=True)
    assert unmeasured.folds == 5 and "fewer than 50 images are held out" in unmeasured.line


def test_what_takes_too_long_here_is_said_and_kept_for_the_report(
    labeled: LabeledSet, folded: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_validation, "AFFORDABLE", 0.0)
    problems, said = Problems(), list[str]()
    train(
        labeled,
        dataclasses.replace(folded, folds=-1),
        tmp_path / "run",
        problems=problems,
        say=said.append,
    )
    (line,) = [line for line in said if line.startswith("not measured: cross-validation, 5 more")]
    assert line in problems.notes and not (tmp_path / "run" / CROSS_VALIDATION).exists()


def test_it_is_made_or_left_out_where_the_settings_say_so(
    paced: Callable[[float], Path],
) -> None:
    asked = plan(TrainSettings(folds=4), paced(600), 1000, False)
    assert asked.folds == 4 and "4 more trainings" in asked.line
    assert plan(TrainSettings(folds=0), paced(1), 60, False) == cross_validation.Plan(0, "")


def test_what_cannot_be_cross_validated_is_refused_before_training(
    labeled: LabeledSet, folded: TrainSettings, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(LabelError, match="folds = 3: 12 labeled images are too few: it takes 20"):
        train(labeled.take(range(0, 60, 5)), folded, tmp_path / "few")
    many = dataclasses.replace(folded, folds=31)
    with pytest.raises(LabelError, match="folds = 31: 60 labeled images"):
        train(labeled, many, tmp_path / "many")
    with pytest.raises(SettingsError, match="folds = 3: the weights of the warm start have seen"):
        train(labeled, folded, tmp_path / "warm", warm_start=trained)
    with pytest.raises(SettingsError, match="folds = 1: must be 2 or more"):
        TrainSettings(folds=1)
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_folds_have_equal_sizes_and_all_strata(labeled: LabeledSet) -> None:
    folds = draw_folds(get_task("classification"), labeled, 4, seed=3)
    assert np.bincount(folds).tolist() == [15] * 4
    for name in ("bright", "dark", "red"):
        rows = [row for row, label in enumerate(labeled.labels) if label == name]
        assert np.bincount(folds[rows]).tolist() == [5] * 4
    other = draw_folds(get_task("classification"), labeled, 4, seed=4)
    assert (folds != other).any()


def test_figures_of_other_folds_stay_and_a_line_says_so(
    labeled: LabeledSet, folded: TrainSettings, measured: Path, tmp_path: Path
) -> None:
    shutil.copytree(measured, tmp_path / "run")
    before, lines = read_cross_validation(measured), list[str]()
    train(labeled, folded, tmp_path / "run", resume=True, say=lines.append)
    assert not any("folds" in line for line in lines)
    more = dataclasses.replace(folded, folds=4)
    train(labeled, more, tmp_path / "run", resume=True, say=lines.append)
    assert lines[-1].endswith("has the figures of 3 folds, which stay; remove it to measure by 4")
    assert read_cross_validation(tmp_path / "run") == before


def test_near_duplicates_are_in_one_fold(labeled: LabeledSet) -> None:
    def pairs(items: Any) -> Groups:  # in the order of the images' names
        return Groups(np.arange(len(items)) // 2 * 2)

    folds = draw_folds(get_task("classification"), labeled, 5, seed=0, groups=pairs)
    by_name = folds[np.argsort([item.id for item in labeled.items])].reshape(30, 2)
    assert (by_name[:, 0] == by_name[:, 1]).all() and np.bincount(folds).tolist() == [12] * 5


def test_persons_of_one_image_are_in_one_fold() -> None:
    class Crops:
        def image_of(self, item: Any, label: Any) -> str:
            return str(label)

        def stratum(self, label: Any) -> str:
            return ""

    names = [f"{number // 3}.jpg" for number in range(60)]
    items: Any = [object()] * 60
    folds = draw_folds(Crops(), LabeledSet(items, names, "persons"), 5, seed=0)  # type: ignore[arg-type]
    by_image = folds.reshape(20, 3)
    assert (by_image == by_image[:, :1]).all() and np.bincount(folds).tolist() == [12] * 5


def test_a_video_is_cross_validated_by_its_scenes_and_noted(
    folded: TrainSettings, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    items = [
        variant_of(item_of(scene(video), f"{video}-{frame}.png"), frame, True)
        for video in range(10)
        for frame in range(3)
    ]
    labels = [str(label) for label in random.integers(0, 2, 10).repeat(3)]
    videos, lines = LabeledSet(items, labels, "videos"), list[str]()
    assert groups_among(items).first.tolist() == (np.arange(30) // 3 * 3).tolist()
    folds = draw_folds(get_task("classification"), videos, 5, 0, groups_among).reshape(10, 3)
    assert (folds == folds[:, :1]).all() and np.bincount(folds[:, 0]).tolist() == [2] * 5
    train(videos, folded, tmp_path / "run", say=lines.append)
    note = "20 of 30 labeled images are near-duplicates of others: held out together with these"
    figures = read_cross_validation(tmp_path / "run")
    assert figures and figures["notes"] == [note] and note in lines
    assert figures["apart"] == 10 and figures["ranked"] is None
    assert any("30 images to measure on are only 10" in line for line in figures["warnings"])
    few = (
        "in no unit (but for near-duplicates, 30 unseen images are of 10 scenes: too few for one, "
        "20 are needed)"
    )
    assert f"the predicted loss is {few}" in lines
    assert str(unit_of_run(load_checkpoint(tmp_path / "run"))) == few


def test_intervals_of_a_cross_validated_video_count_its_scenes(
    folded: TrainSettings, tmp_path: Path
) -> None:
    items = [
        variant_of(item_of(scene(video), f"{video:02}-{frame}.png"), frame, True)
        for video in range(24)
        for frame in range(3)
    ]
    labels = [str(video % 2) for video in range(24) for _ in range(3)]
    videos = LabeledSet(items, labels, "videos").ordered()
    train(videos, folded, tmp_path / "run")
    figures = read_cross_validation(tmp_path / "run")
    assert figures and figures["apart"] == 24 and figures["unit"]["images"] == 72
    low, high = figures["intervals"]["accuracy"]
    hits = figures["accuracy"] * 72
    alone = wilson(hits, 72)
    assert (high - low) > 1.3 * (alone[1] - alone[0])  # three alike frames: up to 1.7
    widest = wilson(hits / 3, 24)
    assert (high - low) < 1.2 * (widest[1] - widest[0])


def test_folds_are_no_more_than_the_images_that_are_apart(
    labeled: LabeledSet, folded: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, lines = 2, list[str]()
    monkeypatch.setattr(
        type(get_task("classification")),
        "image_of",
        lambda _, item, __: str(int(item.id[-7:-4]) % parts),
    )
    train(labeled, folded, tmp_path / "two", say=lines.append)
    figures = read_cross_validation(tmp_path / "two")
    assert figures and (figures["folds"], figures["images"]) == (2, 60)
    parts = 1
    train(labeled, folded, tmp_path / "one", say=lines.append)
    assert lines[-1].startswith("not measured: all labels are of one image")
    assert read_cross_validation(tmp_path / "one") is None
