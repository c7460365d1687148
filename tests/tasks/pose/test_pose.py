from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lloss.annotations import PersonLabel, Problems
from lloss.errors import SettingsError
from lloss.tasks.pose.heatmaps import render
from lloss.tasks.pose.pck import Pck
from lloss.tasks.pose.pose import TASK
from lloss.tasks.presets import resolve_settings
from lloss.tasks.task import Decoding
from lloss.tasks.train_settings import TrainSettings

JOINTS = ("r-knee", "l-knee", "r-ankle", "nose")


def settings(**given: Any) -> TrainSettings:
    return resolve_settings(
        "default", task="pose", **{"model": "hourglass1-narrow", "size": 64, **given}
    )


OBJECTIVE = TASK.objective(settings(), JOINTS)


def label(*annotated: int, head: float = 10.0) -> PersonLabel:
    joints = np.array([[20, 30], [44, 30], [22, 50], [32, 10]], np.float32)
    return PersonLabel("a.jpg", None, JOINTS, joints, np.array(annotated, np.bool_), head)


_DOTS = [(9, (40, 250, 40), 12), (8, (250, 40, 40), 33), (0, (40, 40, 250), 54)]
"""Joint of MPII, colour, uppermost row."""


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """``people.json`` in MPII's dialect and its pictures: three dots on a dark ground each."""
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    entries = []
    for number in range(12):
        pixels = random.integers(0, 60, (80, 100, 3), np.uint8)
        joints, flags = [[-1.0, -1.0]] * 16, [0] * 16
        for row, colour, top in _DOTS:
            x, y = random.integers(25, 75), random.integers(top, top + 10)
            pixels[y - 3 : y + 4, x - 3 : x + 4] = colour
            joints[row], flags[row] = [float(x) + 1, float(y) + 1], 1
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:02d}.png")
        entries.append({
            "image": f"{number:02d}.png", "center": [50.0, 40.0], "scale": 0.4,
            "joints": joints, "joints_vis": flags,
        })  # fmt: skip
    (tmp_path / "people.json").write_text(json.dumps(entries))
    return tmp_path


def test_the_layers_of_the_joints_alone_start_new(tmp_path: Path) -> None:
    two = settings(model="hourglass2-narrow")
    saved = TASK.build(two, JOINTS).state_dict()
    torch.save(saved, tmp_path / "w.pt")
    again = settings(model="hourglass2-narrow", weights=str(tmp_path / "w.pt"))
    loaded = TASK.network(again, JOINTS).network.state_dict()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    fewer = TASK.network(again, JOINTS[:2]).network.state_dict()
    differing = {name for name in saved if fewer[name].shape != saved[name].shape}
    layers = TASK.class_layers(list(saved))
    assert {name.partition(".")[0] for name in layers} == {"heatmaps", "heatmap_remaps"}
    # Besides these, only what each of them has of the channels' own size.
    assert differing <= set(layers)
    assert all(torch.equal(fewer[name], saved[name]) for name in saved if name not in layers)
    one = settings(weights=str(tmp_path / "w.pt"), model="hourglass3-narrow")
    with pytest.raises(SettingsError, match="do not fit hourglass3-narrow"):
        TASK.network(one, JOINTS)


def test_a_person_goes_from_file_to_loss(people: Path) -> None:
    """Heatmaps that are right have no loss, whether augmented or not; moved ones have."""
    chosen = settings(size=128)
    labeled = TASK.open(str(people / "people.json"), None, people, Problems())
    classes = TASK.classes(labeled.labels)
    assert classes == ("r-ankle", "upper-neck", "head-top")
    for augment in ("pose", "none"):
        chosen = dataclasses.replace(chosen, augment=augment)
        spec = TASK.training_spec(chosen)
        assert (spec.height, spec.width) == (224, 224)
        images, how = np.empty((4, 224, 224, 3), np.uint8), Decoding(classes, spec, True)
        targets = [
            TASK.example(labeled.items[n], labeled.labels[n], how, images[n]) for n in range(4)
        ]
        seen, moved = TASK.augment(
            torch.from_numpy(images), targets, chosen, torch.Generator().manual_seed(0)
        )
        assert seen.shape == (4, 128, 128, 3)
        gathered = TASK.collate(moved).to(torch.device("cpu"))
        heatmaps = render(torch.stack([one.joints for one in moved]) / 4, (32, 32))[:, None]
        assert OBJECTIVE.loss_per_image(heatmaps, gathered).tolist() == pytest.approx([0] * 4)
        away = heatmaps.roll(9, -1)
        assert (OBJECTIVE.loss_per_image(away, gathered) > 1e-3).all()
    meter = TASK.objective(chosen, classes).meter(labeled.labels)
    meter.update(heatmaps, moved)
    assert meter.figures()["pckh"] == 1  # heads are as long as neck and top are apart


def peaked(*peaks: float) -> Tensor:
    """Two stacks [1, 2, J, 16, 16]: the last has a Gaussian of each height, the first nothing."""
    at = torch.tensor([[4.5, 4.5], [10.5, 4.5], [4.5, 10.5], [8.5, 8.5]])[: len(peaks)]
    last = render(at, (16, 16)) * torch.tensor(peaks)[:, None, None]
    return torch.stack([torch.zeros_like(last), last])[None]


def test_the_outputs_by_hand() -> None:
    heatmaps = peaked(1.0, 0.5)
    found = OBJECTIVE.outputs(heatmaps)
    entropies = []
    for joint in range(2):
        weights = [math.exp(v) for v in heatmaps[0, 1, joint].flatten().tolist()]
        shares = [w / sum(weights) for w in weights]
        entropies.append(-sum(p * math.log(p) for p in shares))
    assert found["entropy"].tolist() == pytest.approx([sum(entropies) / 2], rel=1e-5)
    assert found["confidence"].tolist() == pytest.approx([0.75])


def test_the_summary_reports_peaks_and_energies_and_carries_no_gradient() -> None:
    heatmaps = peaked(1.0, 0.5, 0.0).requires_grad_()
    found = OBJECTIVE.summary(heatmaps)
    assert found.shape == (1, 7)
    assert not found.requires_grad
    # A Gaussian cut off at the border has a little less than the energy pi.
    expected = [1.0, 0.5, 0.0, 1.0, 0.25, 0.0, 1.25 / 3]
    assert found[0].tolist() == pytest.approx(expected, abs=1e-3)
    assert OBJECTIVE.summary(heatmaps[:, 1:])[0, -1] == 0  # a single stack differs from none


def test_joints_are_where_the_heatmaps_peak() -> None:
    names = ("r-knee", "r-ankle", "r-hip", "nose")
    found = TASK.objective(settings(), names).predictions(peaked(0.9, 0.8, 0.05, 0.6))
    assert found is not None
    (prediction,) = found
    assert prediction.at_least().words == "3 of 4 joints"
    assert prediction.confidence == pytest.approx(2.35 / 4)
    assert isinstance(prediction.label, PersonLabel) and prediction.label.names == names
    expected = {(4.5 / 16, 4.5 / 16), (10.5 / 16, 4.5 / 16)}  # shares of the input
    assert set(map(tuple, prediction.label.joints[:2].tolist())) == expected
    assert prediction.scores.tolist() == pytest.approx([0.9, 0.8, 0.05, 0.6])


def test_the_meter_is_pckh_only_where_all_heads_are_known() -> None:
    chosen, nan = settings(), math.nan
    meter = TASK.objective(chosen, JOINTS).meter([label(1, 1, 1, 1)])
    assert isinstance(meter, Pck) and meter.by_head
    # A person without a joint of the network's does not matter.
    others = [label(1, 1, 1, 1), label(0, 0, 1, 1, head=nan)]
    assert TASK.objective(chosen, JOINTS[:2]).meter(others).by_head
    assert not TASK.objective(chosen, JOINTS).meter(others).by_head
