from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageDraw

from lloss.annotations import Problems
from lloss.annotations.prediction import ClassMask
from lloss.cli.main import cli
from lloss.errors import LabelError
from lloss.images.decode import ImageSpec
from lloss.pools import open_pool
from lloss.tasks import get_task
from lloss.tasks.presets import resolve_settings
from lloss.tasks.segmentation.mean_iou import MaskTarget
from lloss.tasks.segmentation.segmentation import MaskLabel
from lloss.tasks.task import Decoding

TASK = get_task("segmentation")
SETTINGS = resolve_settings("default", task="segmentation", size=32)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """``pool`` of 16 pictures with a disc in them, ``masks`` of the first ten."""
    random = np.random.default_rng(0)
    (tmp_path / "pool").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "classes.txt").write_text("ground\ndisc\n")
    for number in range(16):
        size = (40 + number, 50)
        image = Image.fromarray(random.integers(0, 90, (*size[::-1], 3)).astype(np.uint8))
        mask = Image.new("L", size, 0)
        x, y, r = (int(v) for v in (*random.integers(10, 40, 2), random.integers(5, 12)))
        ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=(240, 200, 60))
        ImageDraw.Draw(mask).ellipse((x - r, y - r, x + r, y + r), fill=1)
        ImageDraw.Draw(mask).rectangle((0, 0, 3, 50), fill=255)
        image.save(tmp_path / "pool" / f"{number:02d}.jpg")
        if number < 10:
            mask.save(tmp_path / "masks" / f"{number:02d}.png")
    return tmp_path


def test_the_loss_is_the_mean_over_the_labeled_pixels_of_each_image() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, 6, generator=generator)
    targets = torch.randint(-1, 4, (3, 5, 6), generator=generator)
    targets[2] = -1
    found = TASK.objective(SETTINGS, "abcd").loss_per_image(logits, targets)
    assert found.shape == (3,)
    for image in range(2):
        each = []
        for y in range(5):
            for x in range(6):
                row, target = logits[image, :, y, x].tolist(), int(targets[image, y, x])
                if target >= 0:
                    each.append(math.log(sum(map(math.exp, row))) - row[target])
        assert found[image].item() == pytest.approx(sum(each) / len(each), abs=1e-5)
    assert found[2].item() == 0


def test_a_class_that_the_network_has_not_is_never_found() -> None:
    label = MaskLabel("m.png", "", {"0": "a", "1": "b", "2": "new"})
    meter = TASK.objective(SETTINGS, ("a", "b")).meter([label])
    # true a a / b new, guessed a a / b b
    target = np.array([[1, 1], [2, 255]], np.uint8)
    guess = torch.tensor([[[0, 0], [1, 1]]])
    logits = torch.nn.functional.one_hot(guess, 2).permute(0, 3, 1, 2).float()
    meter.update(logits, [MaskTarget(target)])
    figures = meter.figures()
    assert (figures["IoU a"], figures["IoU b"], figures["IoU new"]) == (1, 1 / 2, 0)
    assert figures["miou"] == pytest.approx(1.5 / 3)
    together = TASK.collate([MaskTarget(target)])
    assert together.tolist() == [[[0, 0], [1, -1]]]


def test_labels_are_masks_called_as_their_images(scenes: Path) -> None:
    labels = TASK.read_labels(scenes / "masks", Problems())
    found = TASK.join(open_pool(scenes / "pool"), labels, "masks", Problems())
    assert [item.id for item in found.items] == [f"{n:02d}.jpg" for n in range(10)]
    assert TASK.classes(found.labels) == ("disc", "ground")
    copy = scenes / "labels.json"
    TASK.write_labels(labels, copy)
    assert TASK.read_labels(copy, Problems()) == labels
    copy.write_text('["a"]')
    with pytest.raises(LabelError, match=r"labels\.json: holds no labels; give a folder"):
        TASK.read_labels(copy, Problems())
    out = np.empty((32, 32, 3), np.uint8)
    target = TASK.example(
        found.items[0], found.labels[0], Decoding(("disc", "ground"), ImageSpec(32, 32)), out
    ).mask
    assert set(np.unique(target)) == {0, 1, 2}
    # The disc is yellow, the ground dark.
    assert out[target == 1].mean() > 130 > 60 > out[target == 2].mean()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.write_bytes(b"no png"), r"03\.png: cannot be read as a mask"),
        (lambda p: Image.new("RGB", (43, 50)).save(p), r"03\.png: .*the mode RGB; save"),
        (lambda p: Image.new("L", (43, 50), 2).save(p), r"03\.png: has the class 2, .* has 2"),
        (lambda p: p.rename(p.with_name("99.png")), r"99\.png.*is not in the pool"),
    ],
)
def test_a_broken_mask_is_named_or_left_out(
    scenes: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(scenes / "masks" / "03.png")
    pool = str(scenes / "pool")
    with pytest.raises(LabelError, match=message):
        TASK.open(pool, scenes / "masks", Path(), Problems())
    problems = Problems(skip=True)
    left = TASK.open(pool, scenes / "masks", Path(), problems)
    assert len(left) == 9
    assert len(problems.broken) == 1


def test_pixels_of_no_class_are_counted(scenes: Path) -> None:
    problems = Problems()
    found = TASK.read_labels(scenes / "masks", problems)
    (note,) = problems.notes
    assert "10 of 10 masks have pixels of value 255" in note
    with pytest.raises(
        LabelError, match=r"one class, \['0'\]: label another first; 10 of 10 masks"
    ):
        TASK.check(list(found.values()), ["0"])
    share = np.mean([label.ignored for label in found.values()])
    strips = [4 * 50 / ((40 + number) * 50) for number in range(10)]
    assert share == pytest.approx(np.mean(strips))
    assert f"{share:.0%} of all pixels" in note


def test_a_mask_is_turned_as_its_image_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.zeros((8, 16), np.uint8)
    values[:3] = 1
    for folder, image in (("pool", np.stack([values * 200] * 3, 2)), ("masks", values)):
        (tmp_path / folder).mkdir()
        for name in ("a.png", "b.png"):
            Image.fromarray(image).save(tmp_path / folder / name, exif=exif)
    found = TASK.open(str(tmp_path / "pool"), tmp_path / "masks", Path(), Problems())
    spec, out = ImageSpec(16, 8), np.zeros((16, 8, 3), np.uint8)
    target = TASK.example(found.items[0], found.labels[0], Decoding(("0", "1"), spec), out).mask
    assert np.array_equal(target == 2, out[:, :, 0] > 0)
    assert (target == 2).sum() == 3 * 16


def test_a_mask_of_another_size_is_refused(scenes: Path) -> None:
    Image.new("L", (10, 10), 1).save(scenes / "masks" / "03.png")
    found = TASK.open(str(scenes / "pool"), scenes / "masks", Path(), Problems())
    how, out = Decoding(("disc",), ImageSpec(8, 8)), np.empty((8, 8, 3), np.uint8)
    with pytest.raises(LabelError, match=r"03\.png: is 10×10 pixels, its image '03\.jpg' is 43×50"):
        TASK.example(found.items[3], found.labels[3], how, out)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            lambda p: Image.new("L", (43, 50), 1).save(p),
            "changed since the cycle was begun",
        ),
        (lambda p: Image.new("RGB", (43, 50)).save(p), ".*mode RGB"),
        (lambda p: p.unlink(), "cannot be read as a mask: .*No such file"),
    ],
)
def test_a_mask_that_changed_since_the_labels_were_copied_is_refused(
    scenes: Path, spoil: Callable[[Path], None], why: str
) -> None:
    copy = scenes / "labels.json"
    TASK.write_labels(TASK.read_labels(scenes / "masks", Problems()), copy)
    found = TASK.open(str(scenes / "pool"), copy, Path(), Problems())
    spoil(scenes / "masks" / "03.png")
    out = np.empty((8, 8, 3), np.uint8)
    with pytest.raises(LabelError, match=rf"03\.png:? {why}"):
        TASK.example(found.items[3], found.labels[3], Decoding(("disc",), ImageSpec(8, 8)), out)


def test_augmentation_moves_image_and_mask_together() -> None:
    random = np.random.default_rng(0)
    masks = [random.integers(1, 5, (16, 16)).astype(np.uint8) for _ in range(8)]
    images = torch.from_numpy(np.stack(masks))[..., None].repeat(1, 1, 1, 3)
    settings = resolve_settings("default", task="segmentation", size=16, crop_padding=4)
    generator = torch.Generator().manual_seed(0)
    moved, targets = TASK.augment(images, [MaskTarget(mask) for mask in masks], settings, generator)
    changed = np.stack([target.mask for target in targets])
    assert torch.equal(moved[..., 0], torch.from_numpy(changed))
    assert (changed == 0).any()
    assert not torch.equal(moved, images)


def test_from_masks_to_scores_by_the_same_commands(scenes: Path) -> None:
    def lloss(*words: object) -> str:
        done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    run, model = scenes / "run", scenes / "model.onnx"
    short = ["--task=segmentation", "--size=32", "--epochs=1", "--batch-size=5", "--amp=off"]
    labels = ["--labels", scenes / "masks"]
    lloss("train", scenes / "pool", *labels, *short, "-o", run)
    assert "miou" in lloss("evaluate", run, scenes / "pool", *labels)
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert 0 <= evaluation["miou"] <= 1
    assert evaluation["images"] == 10
    lloss("export", run, "-o", model)
    lloss("score", model, scenes / "pool", "-o", scenes / "scores")
    lloss("select", scenes / "scores", "-k", 3, "-o", scenes / "ids.txt")
    chosen = (scenes / "ids.txt").read_text().split()
    assert len(chosen) == 3
    assert all((scenes / "pool" / id).exists() for id in chosen)
    words = ["select", scenes / "scores", "-k", 3, "--format=label-studio"]
    assert "its checkpoint.pt is not beside it" in lloss(*words, "-o", scenes / "alone.json")
    assert "predictions" not in json.loads((scenes / "alone.json").read_text())[0]
    lloss(*words, "--run", run, "-o", scenes / "tasks.json")
    tasks = json.loads((scenes / "tasks.json").read_text())
    assert [task["data"]["lloss_id"] for task in tasks] == chosen
    for task in tasks:
        with Image.open(scenes / "pool" / task["data"]["lloss_id"]) as image:
            width, height = image.size
        for one in task["predictions"][0]["result"]:
            assert (one["original_width"], one["original_height"]) == (width, height)
            assert one["value"]["brushlabels"][0] in ("ground", "disc")


def test_the_class_of_each_pixel_is_the_largest_logit() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    predictions = TASK.objective(SETTINGS, "abc").predictions(logits)
    assert predictions is not None
    for row, found in zip(logits.numpy(), predictions, strict=True):
        assert isinstance(found.label, ClassMask)
        assert (found.label.pixels == row.argmax(0)).all()
        best = (np.exp(row) / np.exp(row).sum(0)).max(0)
        for number in range(3):
            members = best[row.argmax(0) == number]
            assert found.scores[number] == pytest.approx(members.mean() if len(members) else 0)
