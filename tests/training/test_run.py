"""Runs on disk: resumed, interrupted, killed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lloss.export import export_model

from lloss.annotations import Problems
from lloss.data.class_labels import open_labeled
from lloss.data.image_overlap import trained_on, trained_on_note
from lloss.data.labeled_set import LabeledSet, class_names
from lloss.errors import CheckpointError, InterruptedRunError, LabelError
from lloss.files import locked
from lloss.pools import Item
from lloss.tasks import get_task
from lloss.tasks.segmentation.segmentation import MaskLabel
from lloss.tasks.train_settings import TrainSettings
from lloss.training import run as runs
from lloss.training import run_folder
from lloss.training.checkpoint import load_checkpoint
from lloss.training.run import train
from lloss.training.run_folder import METRICS
from lloss.training.trainer import Trainer
from lloss.training.training_data import load_examples

from ..waiting import PATIENCE


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run).state["model"]  # type: ignore[no-any-return]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_a_checkpoint_and_a_line_of_figures_an_epoch(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[0].keys() == {
        "epoch", "loss", "ranking_accuracy", "head_loss", "lr", "images_per_second"
    }  # fmt: skip
    checkpoint = load_checkpoint(trained)
    assert checkpoint.finished
    assert checkpoint.classes == ("bright", "dark", "red")
    assert checkpoint.sample.shape == (60, 8, 8, 3)


class _StopError(Exception):
    pass


def _cut(labeled: LabeledSet, settings: TrainSettings, run: Path, **options: Any) -> Path:
    """Train up to a checkpoint in the middle of the second epoch, and stop."""
    advance, steps = Trainer.advance, 0

    def stopped(self: Trainer) -> dict[str, float] | None:
        nonlocal steps
        steps += 1
        if steps == 12:
            raise _StopError
        return advance(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "advance", stopped)
        patch.setattr(run_folder, "CHECKPOINT_SECONDS", -1.0)
        with pytest.raises(_StopError):
            train(labeled, settings, run, **options)
    assert load_checkpoint(run).epoch == 1
    return run


@pytest.fixture
def cut(labeled: LabeledSet, tiny: TrainSettings, tmp_path: Path) -> Path:
    """The run ``trained``, stopped in its second epoch."""
    return _cut(labeled, tiny, tmp_path / "cut")


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line does
        with run_folder.interruptible() as asked:
            signal.raise_signal(signal.SIGINT)
            assert not asked.is_set()
            signal.raise_signal(signal.SIGTERM)
            assert asked.is_set()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before):
            signal.signal(number, handler)


def test_ctrl_c_leaves_a_checkpoint_and_a_resumed_run_equals_an_uninterrupted_one(
    labeled: LabeledSet,
    tiny: TrainSettings,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    advance, steps = Trainer.advance, 0

    def interrupted(self: Trainer) -> dict[str, float] | None:
        nonlocal steps
        steps += 1
        if steps == 11:  # of 16: in the middle of the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self)

    run = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        with pytest.raises(InterruptedRunError, match="after 1 of 2 epochs.*--resume") as caught:
            train(labeled, tiny, run)
    assert caught.value.exit_code == 130
    checkpoint = load_checkpoint(run)
    assert (checkpoint.epoch, checkpoint.state["step"], checkpoint.finished) == (1, 3, False)
    assert checkpoint.network().head is not None
    # In another order of the labels, which decides nothing.
    mixed = labeled.take(np.random.default_rng(0).permutation(len(labeled)).tolist())
    resumed = train(mixed, tiny, run, resume=True)
    assert same(weights(trained), resumed.state["model"])
    assert np.array_equal(load_checkpoint(trained).sample, resumed.sample)

    def untimed(run: Path) -> list[dict[str, float]]:
        rows = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]

    assert untimed(trained) == untimed(run)


def test_a_run_is_not_overwritten_and_not_resumed_with_other_settings_or_labels(
    labeled: LabeledSet, tiny: TrainSettings, trained: Path
) -> None:
    with pytest.raises(CheckpointError, match="holds a training run already.*--resume"):
        train(labeled, tiny, trained)
    with pytest.raises(CheckpointError, match=r"lr = 0\.05, now it is 0\.2"):
        train(labeled, dataclasses.replace(tiny, lr=0.2), trained, resume=True)
    with pytest.raises(CheckpointError, match="other labels"):
        train(labeled.take(range(30)), tiny, trained, resume=True)


def test_a_run_with_the_head_loss_of_an_earlier_version_is_not_resumed_with_another(
    labeled: LabeledSet, tiny: TrainSettings, cut: Path
) -> None:
    content = torch.load(cut / "checkpoint.pt", weights_only=True)
    content["settings"]["head_loss"] = "ranknet"
    torch.save(content, cut / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="trained with head_loss = 'ranknet'"):
        train(labeled, tiny, cut, resume=True)


def test_resuming_with_other_pixels_under_the_same_names_is_refused(
    labeled: LabeledSet, tiny: TrainSettings, trained: Path, cut: Path
) -> None:
    items = list(labeled.items)
    items[5], items[6] = (Item(items[a].id, items[b].read) for a, b in ((5, 6), (6, 5)))
    swapped = LabeledSet(items, labeled.labels, labeled.origin)
    assert swapped.sha256 == labeled.sha256
    for run in (trained, cut):
        before = (run / "checkpoint.pt").read_bytes()
        with pytest.raises(CheckpointError, match="other images of the same names.*restore them"):
            train(swapped, tiny, run, resume=True)
        assert (run / "checkpoint.pt").read_bytes() == before


def test_a_warm_start_is_kept_across_a_resume(
    labeled: LabeledSet, tiny: TrainSettings, trained: Path, cut: Path, tmp_path: Path
) -> None:
    dark = labeled.take(row for row, label in enumerate(labeled.labels) if label != "red")
    warm = _cut(dark, dataclasses.replace(tiny, batch_size=5), tmp_path / "w", warm_start=trained)
    for run, some, start in ((warm, dark, None), (warm, dark, cut), (cut, labeled, trained)):
        settings = load_checkpoint(run).settings
        with pytest.raises(CheckpointError, match="(another|no) warm start; resume with the same"):
            train(some, settings, run, resume=True, warm_start=start)
    # Images that the first weights come from are not held-out images of the second run either.
    red = labeled.take(row for row, label in enumerate(labeled.labels) if label == "red")
    note = trained_on_note(red, trained_on(red.items, load_checkpoint(warm).traces))
    assert note.startswith(f"{labeled.origin}: {len(red)} of")


def test_images_without_a_loss_are_noted_and_not_trained_on() -> None:
    """The head would learn that theirs is 0."""
    names = [{"0": "road"}, {}, {"0": "road", "1": "sky"}, {}]
    labels = [MaskLabel(f"{row}.png", "0" * 64, of) for row, of in enumerate(names)]
    masks = LabeledSet([Item(str(row), lambda: b"") for row in range(4)], labels, "masks")
    problems = Problems()
    learned = runs._with_loss(get_task("segmentation"), masks, problems)
    assert [item.id for item in learned.items] == ["0", "2"]
    assert problems.notes == [
        "2 of 4 labeled images show nothing that a loss can be measured on: not trained on"
    ]
    named = LabeledSet(masks.items, ["a", "b", "a", "b"], "labels.csv")
    assert runs._with_loss(get_task("classification"), named, Problems()) is named


def test_a_killed_run_goes_on_from_its_last_checkpoint(photos: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from lloss.training import run as runs, run_folder as folder\n"
        "from lloss.data.class_labels import open_labeled\n"
        "from lloss.tasks.train_settings import TrainSettings\n"
        "folder.CHECKPOINT_SECONDS = 0.0\n"
        "settings = TrainSettings(model='resnet10-cifar-narrow', size=8, hidden=8, epochs=400,"
        " batch_size=8, amp='off')\n"
        f"runs.train(open_labeled({str(photos)!r}), settings, Path(sys.argv[1]), resume=True)"
    )
    run = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-c", code, str(run)])
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not (
        (run / METRICS).exists() and len((run / METRICS).read_text().splitlines()) > 2
    ):
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    killed = load_checkpoint(run)
    assert 0 < killed.state["epoch"] < 400
    stray = [p.name for p in run.iterdir() if p.name not in ("checkpoint.pt", METRICS)]
    assert all(name.startswith(".") for name in stray)  # nothing half-written under a final name


def test_a_second_training_in_the_folder_is_refused(
    labeled: LabeledSet, tiny: TrainSettings, tmp_path: Path
) -> None:
    with locked(tmp_path), pytest.raises(CheckpointError, match="another training is at work"):
        train(labeled, tiny, tmp_path, resume=True)
    assert not list(tmp_path.iterdir())


def test_a_damaged_missing_or_malicious_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="train first"):
        load_checkpoint(tmp_path)
    for content in (b"", b"no zip", b"PK\x03\x04 broken"):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt: is damaged"):
            load_checkpoint(tmp_path)

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "code ran"),))

    torch.save({"format": 1, "settings": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "code ran").exists()


def test_a_broken_labeled_image_is_named_before_training(
    photos: Path, tiny: TrainSettings, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for source in sorted((photos / "dark").iterdir())[:8]:
            (tmp_path / "tree" / name / source.name).write_bytes(source.read_bytes())
    broken = tmp_path / "tree" / "b" / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    labeled = open_labeled(str(tmp_path / "tree"))
    with pytest.raises(LabelError, match=r"tree: 'b/broken\.png': not an image.*--skip-bad$"):
        train(labeled, tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    problems, said = Problems(skip=True), list[str]()
    done = train(labeled, tiny, tmp_path / "run", problems=problems, say=said.append)
    assert done.labeled == len(labeled) - 1 == 16
    assert said[0].startswith("left out 1 broken annotation: ")


def test_a_class_without_a_usable_image_is_noted_and_one_class_alone_refused(
    labeled: LabeledSet, tiny: TrainSettings, tmp_path: Path
) -> None:
    broken = [Item(f"x{number}.png", lambda: b"no image") for number in range(3)]
    more = LabeledSet([*broken, *labeled.items], ["a", "b", "b", *labeled.labels], "more.csv")
    problems = Problems(skip=True)
    run = train(more, tiny, tmp_path / "more", problems=problems)
    assert run.classes == ("a", "b", "bright", "dark", "red")
    assert run.labels_sha256 == more.sha256
    assert any("no image of the class 'a', 'b' can be used" in note for note in problems.notes)
    assert len(problems.broken) == 3
    one = labeled.take([row for row, name in enumerate(labeled.labels) if name == "red"])
    one = LabeledSet([*broken, *one.items], ["a", "b", "b", *one.labels], "one.csv")
    with pytest.raises(LabelError, match="of the class 'a', 'b' can be used.*label a second class"):
        train(one, tiny, tmp_path / "one", problems=Problems(skip=True))
    assert not (tmp_path / "one").exists()


def test_images_that_are_left_out_leave_no_gap(
    photos: Path, tiny: TrainSettings, tmp_path: Path
) -> None:
    labeled = open_labeled(str(photos))
    spoiled = list(labeled.items)
    for row in (0, 7, 8, len(spoiled) - 1):
        spoiled[row] = Item(spoiled[row].id, lambda: b"")
    rest = [row for row in range(len(spoiled)) if row not in (0, 7, 8, len(spoiled) - 1)]
    classes = class_names(labeled.labels)
    broken = LabeledSet(spoiled, labeled.labels, labeled.origin)
    data, rows = load_examples(broken, classes, tiny, Problems(skip=True))
    whole, _ = load_examples(labeled, classes, tiny, Problems())
    assert rows == rest
    assert np.array_equal(data.images, whole.images[rest])
    assert list(data.targets) == [whole.targets[row] for row in rest]
    nothing = LabeledSet([Item("x", lambda: b"")], ["dark"], "labels.csv")
    with pytest.raises(LabelError, match=r"labels\.csv: left out 1 .*no labeled image is left"):
        load_examples(nothing, classes, tiny, Problems(skip=True))


def test_features_of_before_training_outlive_training_and_the_file_of_weights(
    labeled: LabeledSet, tiny: TrainSettings, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    before = get_task("classification").network(tiny, ("bright", "dark", "red")).eval()
    torch.save(before.network.state_dict(), tmp_path / "weights.pt")
    settings = dataclasses.replace(
        tiny, weights=str(tmp_path / "weights.pt"), keep_embedding="pretrained", weight_decay=0.1
    )
    train(labeled, settings, tmp_path / "run")
    (tmp_path / "weights.pt").unlink()
    checkpoint = load_checkpoint(tmp_path / "run")
    after, images = checkpoint.network(), torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        wanted = before(images).embedding
        assert after.pretrained is not None
        assert torch.equal(after.pretrained(images).embedding, wanted)
        assert not torch.allclose(after(images).embedding, wanted, atol=0.1)
    path, lines = tmp_path / "model.onnx", list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_model, "speed_without", lambda *_: 1.9)
        manifest = export_model.export_onnx(checkpoint, path, log=lines.append)
    assert manifest.outputs["pretrained_embedding"] == manifest.outputs["embedding"] == (128,)
    assert "pretrained_embedding: without it scoring on this CPU is 1.9× as fast" in lines
