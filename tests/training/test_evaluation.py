from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError, SettingsError
from lloss.images.decode import decode_whole
from lloss.modeling.network import TappedNetwork
from lloss.simulation.image_variants import variant_of
from lloss.statistics.clusters import share_interval
from lloss.statistics.ranking_metrics import accuracy_interval
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import Checkpoint, load_checkpoint
from lloss.training.evaluation import evaluate_checkpoint
from lloss.training.run import train
from lloss.training.trained_prints import PRINTS
from lloss.training.trainer import predict

from ..data.test_near_copies import item_of, scene


@pytest.fixture
def checkpoint(trained: Path) -> Checkpoint:
    return load_checkpoint(trained)


def test_the_figures_are_those_of_the_network(checkpoint: Checkpoint, labeled: LabeledSet) -> None:
    found = evaluate_checkpoint(checkpoint, labeled)
    images = np.stack([decode_whole(item.read()) for item in labeled.items])
    logits = torch.cat(
        [f.output for _, f in predict(checkpoint.network(), checkpoint.settings, images)]
    )
    targets = torch.tensor([checkpoint.classes.index(label) for label in labeled.labels])
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    assert found.metric == pytest.approx((logits.argmax(1) == targets).float().mean().item())
    assert np.allclose(found.true_loss, losses.numpy(), atol=1e-5)
    assert found.images == len(labeled) and found.unseen == 0


def test_images_of_unknown_classes_are_misses_without_a_rank(
    checkpoint: Checkpoint, labeled: LabeledSet
) -> None:
    plain = evaluate_checkpoint(checkpoint, labeled)
    labels = ["never seen" if row < 10 else label for row, label in enumerate(labeled.labels)]
    found = evaluate_checkpoint(checkpoint, replace(labeled, labels=labels))
    assert (found.images, found.unseen) == (plain.images, 10)
    assert len(found.true_loss) == plain.images - 10
    assert np.array_equal(found.true_loss, plain.true_loss[10:])
    assert found.metric <= plain.metric and plain.missed == []
    assert found.missed == [
        "the network does not know 1 of the 4 classes (never seen): they count as missed"
    ]


def test_names_that_are_nearly_the_networks_are_named(
    checkpoint: Checkpoint, labeled: LabeledSet
) -> None:
    labels = ["Red " if row < 10 else label for row, label in enumerate(labeled.labels)]
    problems = Problems()
    evaluate_checkpoint(checkpoint, replace(labeled, labels=labels), problems)
    note = problems.notes[-1]
    assert note.startswith("the classes of the network and of the labels 'red' (")
    assert "and 'Red ' (10) differ only in case" in note
    other = LabeledSet(labeled.items, ["RED"] * len(labeled), "labels.csv")
    with pytest.raises(LabelError, match=r"none of the 60 .*'red' \(0\) and 'RED' \(60\) differ"):
        evaluate_checkpoint(checkpoint, other)


def test_the_device_is_the_one_that_is_asked_for(
    checkpoint: Checkpoint, labeled: LabeledSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for asked, there, used in (("", True, "cuda"), ("", False, "cpu"), ("cpu", True, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        moved: list[str] = []
        monkeypatch.setattr(
            TappedNetwork,
            "to",
            lambda self, device, moved=moved: (moved.append(str(device)), self)[1],
        )
        evaluate_checkpoint(checkpoint, labeled, device=asked)
        assert moved == [used]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for wrong, reported in (("cuda", "no GPU"), ("tpu", "choose cpu or cuda")):
        with pytest.raises(SettingsError, match=reported):
            evaluate_checkpoint(checkpoint, labeled, device=wrong)


def test_a_metric_that_is_no_number_is_null_in_json(
    checkpoint: Checkpoint, labeled: LabeledSet
) -> None:
    found = evaluate_checkpoint(checkpoint, labeled)
    broken = replace(found, metric=math.nan, mean_loss=math.nan)
    figures = json.loads(json.dumps(broken.as_dict(), allow_nan=False))
    assert figures["accuracy"] is None and figures["mean_loss"] is None


def _video(checkpoint: Checkpoint, scenes: int, frames: int) -> LabeledSet:
    """Frames of scenes, the frames of one scene far from each other."""
    items = [
        variant_of(item_of(scene(number), f"{number:02}-{frame}.png"), frame, True)
        for frame in range(frames)
        for number in range(scenes)
    ]
    labels = [checkpoint.classes[number % 3] for number in range(scenes)] * frames
    return LabeledSet(items, labels, "video")


def test_intervals_count_scenes(checkpoint: Checkpoint) -> None:
    found = evaluate_checkpoint(checkpoint, _video(checkpoint, 24, 3))
    scenes = np.tile(np.arange(24), 3)
    right = np.array(found.metric * 72).round()
    figures = found.as_dict()
    assert (figures["near_duplicates"], figures["apart"]) == (48, 24)
    line = "48 of 72 images to measure on are near-duplicates of others: intervals count 24 scenes"
    assert line in figures["notes"]
    assert found.predicted_loss is not None
    counted = accuracy_interval(found.predicted_loss, found.true_loss, clusters=scenes)
    assert figures["intervals"]["head"]["ranking_accuracy"] == list(counted)
    low, high = figures["intervals"]["accuracy"]
    alone = share_interval(float(right), np.repeat([1.0, 0.0], [int(right), 72 - int(right)]))
    assert high - low > 1.2 * (alone[1] - alone[0])
    assert found.unit is not None and found.unit.images == 72


def test_few_scenes_have_no_unit_and_a_warning(checkpoint: Checkpoint) -> None:
    found = evaluate_checkpoint(checkpoint, _video(checkpoint, 12, 3))
    assert found.unit is not None and str(found.unit) == (
        "in no unit (but for near-duplicates, 36 unseen images are of 12 scenes: too few for one, "
        "20 are needed)"
    )
    assert any(
        "36 images to measure on are only 12" in each for each in found.as_dict()["warnings"]
    )


def test_without_near_duplicates_intervals_count_images(checkpoint: Checkpoint) -> None:
    found = evaluate_checkpoint(checkpoint, _video(checkpoint, 24, 1))
    figures = found.as_dict()
    assert figures["near_duplicates"] == 0 and not {"apart", "notes"} & set(figures)
    assert found.predicted_loss is not None
    counted = accuracy_interval(found.predicted_loss, found.true_loss)
    assert figures["intervals"]["head"]["ranking_accuracy"] == list(counted)


def test_near_duplicates_of_images_trained_on_are_counted(
    tiny: TrainSettings, tmp_path: Path
) -> None:
    pixels = [item_of(scene(number), f"{number:02}.png") for number in range(60)]
    labels = [("a", "b")[number % 2] for number in range(60)]
    train(LabeledSet(pixels[:30], labels[:30], "trained"), tiny, tmp_path / "run")
    shown = [*(variant_of(item, 1, True) for item in pixels[:2]), *pixels[30:]]
    test = LabeledSet(shown, [*labels[:2], *labels[30:]], "test")
    found = evaluate_checkpoint(load_checkpoint(tmp_path / "run"), test)
    figures = found.as_dict()
    assert (figures["near_copies"], figures["near_copies_of"]) == (2, 32)
    assert any(line.startswith("2 of 32 images to measure on are") for line in figures["warnings"])
    (tmp_path / "run" / PRINTS).write_bytes(b"damaged")
    figures = evaluate_checkpoint(load_checkpoint(tmp_path / "run"), test).as_dict()
    assert "near_copies" not in figures and "are not counted, without" in figures["notes"][0]
    (tmp_path / "run" / PRINTS).unlink()
    train(LabeledSet(pixels[:30], labels[:30], "trained"), tiny, tmp_path / "run", resume=True)
    again = evaluate_checkpoint(load_checkpoint(tmp_path / "run"), test)
    assert again.as_dict() == found.as_dict()
