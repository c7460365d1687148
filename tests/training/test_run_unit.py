"""Where the unit of a run's predicted losses comes from."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lloss.data.class_labels import open_labeled
from lloss.data.labeled_set import LabeledSet
from lloss.errors import CheckpointError
from lloss.files import write_json
from lloss.statistics.loss_unit import LossUnit, fit_unit
from lloss.training.checkpoint import Checkpoint, load_checkpoint
from lloss.training.evaluation import evaluate_checkpoint
from lloss.training.run_unit import MEASURE, unit_of_run

EARLIER = ", or of an earlier version"


@pytest.fixture
def checkpoint(trained: Path, tmp_path: Path) -> Checkpoint:
    return load_checkpoint(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def unseen(tmp_path: Path) -> LabeledSet:
    """30 images of noise, of the classes of ``trained``."""
    random = np.random.default_rng(1)
    for number in range(30):
        folder = tmp_path / "unseen" / ("bright", "dark", "red")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return open_labeled(str(tmp_path / "unseen"))


def _measured(checkpoint: Checkpoint, images: LabeledSet) -> Path:
    assert checkpoint.path is not None
    path = checkpoint.path.parent / "evaluation.json"
    write_json(path, evaluate_checkpoint(checkpoint, images).as_dict())
    return path


def test_it_is_fitted_on_the_images_that_were_measured(
    checkpoint: Checkpoint, unseen: LabeledSet
) -> None:
    _measured(checkpoint, unseen)
    found = evaluate_checkpoint(checkpoint, unseen)
    assert found.predicted_loss is not None
    wanted = fit_unit(found.predicted_loss, found.true_loss, "nats")
    assert unit_of_run(checkpoint) == wanted
    assert (wanted.name, wanted.images, len(wanted.calibration)) == ("nats", 30, 6)


def test_images_of_training_are_left_out(
    checkpoint: Checkpoint, unseen: LabeledSet, photos: Path
) -> None:
    seen = open_labeled(str(photos))
    both = LabeledSet([*seen.items, *unseen.items], [*seen.labels, *unseen.labels], "both")
    mixed, alone = (evaluate_checkpoint(checkpoint, images).unit for images in (both, unseen))
    assert mixed and alone and mixed.images == 30
    assert (mixed.a, mixed.b) == pytest.approx((alone.a, alone.b), rel=1e-4)
    _measured(checkpoint, seen)
    found = unit_of_run(checkpoint)
    assert found.name == "" and found.note.startswith("0 losses of unseen images are too few")


def test_a_run_that_was_not_measured_has_none(checkpoint: Checkpoint) -> None:
    note = f"the losses of no unseen image were measured; {MEASURE}"
    assert unit_of_run(checkpoint) == LossUnit(note=note)
    assert unit_of_run(dataclasses.replace(checkpoint, path=None)).note == note


def test_the_figures_of_another_training_are_not_taken(
    checkpoint: Checkpoint, unseen: LabeledSet
) -> None:
    path = _measured(checkpoint, unseen)
    changed = dataclasses.replace(checkpoint, labeled=61)
    assert checkpoint.path is not None
    changed.save(checkpoint.path)
    found = unit_of_run(load_checkpoint(checkpoint.path))
    assert found == LossUnit(
        note=f"{path} is of another training, or of an earlier version; {MEASURE}"
    )


def test_a_frozen_network_has_that_of_its_head(checkpoint: Checkpoint, unseen: LabeledSet) -> None:
    own = LossUnit(name="nats", a=0.5, b=0.1, images=60, source="images")
    assert checkpoint.path is not None
    dataclasses.replace(checkpoint, unit=own).save(checkpoint.path)
    loaded = load_checkpoint(checkpoint.path)
    assert loaded.unit == own and unit_of_run(loaded) == own
    _measured(loaded, unseen.take(range(10)))  # too few: the head's own is better than none
    assert unit_of_run(loaded) == own
    _measured(loaded, unseen)
    assert unit_of_run(loaded).images == 30


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-5],
        lambda text: "[]",
        lambda text: json.dumps({**json.loads(text), "unit": {"a": "x"}}),
    ],
)
def test_a_damaged_file_is_refused(
    change: Callable[[str], str], checkpoint: Checkpoint, unseen: LabeledSet
) -> None:
    path = _measured(checkpoint, unseen)
    path.write_text(change(path.read_text()))
    with pytest.raises(CheckpointError, match=r"evaluation\.json: is damaged; remove it, or run"):
        unit_of_run(checkpoint)


def test_the_figures_of_earlier_versions_have_none(
    checkpoint: Checkpoint, unseen: LabeledSet
) -> None:
    path = _measured(checkpoint, unseen)
    figures = json.loads(path.read_text())
    del figures["unit"], figures["checkpoint_sha256"]
    path.write_text(json.dumps(figures))
    assert (
        unit_of_run(checkpoint).note
        == f"{path} is of another training, or of an earlier version; {MEASURE}"
    )
