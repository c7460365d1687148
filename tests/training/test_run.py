"""Runs on disk: resumed, interrupted, killed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lloss.annotations import Problems
from lloss.data.class_labels import open_labeled
from lloss.data.labeled_set import LabeledSet, class_names
from lloss.data.test_overlap import seen_note
from lloss.errors import CheckpointError, InterruptedRunError, LabelError
from lloss.pools import Item
from lloss.tasks.presets import resolve_settings
from lloss.tasks.segmentation import MaskLabel
from lloss.tasks.train_settings import TrainSettings
from lloss.training import run as runs
from lloss.training.checkpoint import load_checkpoint
from lloss.training.run import METRICS, train
from lloss.training.trainer import Trainer
from lloss.training.training_data import load_examples

from ..waiting import PATIENCE


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run).state["model"]  # type: ignore[no-any-return]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def labeled(photos: Path) -> LabeledSet:
    return open_labeled(str(photos))


def test_a_run_leaves_a_checkpoint_and_a_line_of_figures_an_epoch(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"loss", "accuracy", "ranking_accuracy", "head_loss", "lr", "images_per_second"} <= set(
        lines[0]
    )
    checkpoint = load_checkpoint(trained)
    assert checkpoint.finished
    assert checkpoint.classes == ("bright", "dark", "red")
    assert checkpoint.sample.shape == (60, 8, 8, 3)


def test_one_seed_gives_one_run(labeled: LabeledSet, tiny: TrainSettings, tmp_path: Path) -> None:
    first = train(labeled, tiny, tmp_path / "a")
    second = train(labeled, tiny, tmp_path / "b")
    other = train(labeled, dataclasses.replace(tiny, seed=1), tmp_path / "c")
    assert same(first.state["model"], second.state["model"])
    assert not same(first.state["model"], other.state["model"])


def test_ctrl_c_leaves_a_checkpoint_and_resuming_ends_as_if_nothing_had_been(
    labeled: LabeledSet, tiny: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(labeled, tiny, tmp_path / "whole")
    advance, steps = Trainer.advance, 0

    def interrupted(self: Trainer) -> dict[str, float] | None:
        nonlocal steps
        steps += 1
        if steps == 11:  # of 16: in the middle of the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        with pytest.raises(InterruptedRunError, match="after 1 of 2 epochs.*--resume") as caught:
            train(labeled, tiny, tmp_path / "cut")
    assert caught.value.exit_code == 130
    cut = load_checkpoint(tmp_path / "cut")
    assert (cut.epoch, cut.state["step"], cut.finished) == (1, 3, False)
    assert cut.network().head is not None  # usable as it is
    resumed = train(labeled, tiny, tmp_path / "cut", resume=True)
    assert same(whole.state["model"], resumed.state["model"])
    left, right = ((tmp_path / name / METRICS).read_text() for name in ("whole", "cut"))

    def untimed(text: str) -> list[dict[str, float]]:
        rows = [json.loads(line) for line in text.splitlines()]
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]

    assert untimed(left) == untimed(right)


class _StopError(Exception):
    pass


def _cut(
    labeled: LabeledSet,
    settings: TrainSettings,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    **options: Any,
) -> None:
    """Train up to a checkpoint in the middle of the second epoch, and leave it there."""
    advance, steps = Trainer.advance, 0

    def stopped(self: Trainer) -> dict[str, float] | None:
        nonlocal steps
        steps += 1
        if steps == 12:
            raise _StopError
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", stopped)
        patch.setattr(runs, "CHECKPOINT_SECONDS", -1.0)
        patch.setattr(runs, "WRITING_SHARE", math.inf)
        with pytest.raises(_StopError):
            train(labeled, settings, run, **options)
    assert load_checkpoint(run).epoch == 1


def test_the_order_of_the_labels_decides_nothing_also_across_a_resume(
    labeled: LabeledSet, tiny: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = labeled.take(np.random.default_rng(0).permutation(len(labeled)).tolist())
    whole = train(labeled, tiny, tmp_path / "whole")
    other = train(mixed, tiny, tmp_path / "other")
    assert same(whole.state["model"], other.state["model"])
    assert np.array_equal(whole.sample, other.sample)
    _cut(labeled, tiny, tmp_path / "cut", monkeypatch)
    resumed = train(mixed, tiny, tmp_path / "cut", resume=True)
    assert same(whole.state["model"], resumed.state["model"])


@pytest.mark.parametrize("finished", [False, True])
def test_resuming_with_other_pixels_under_the_same_names_is_refused(
    labeled: LabeledSet,
    tiny: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: bool,
) -> None:
    run = tmp_path / "run"
    if finished:
        train(labeled, tiny, run)
    else:
        _cut(labeled, tiny, run, monkeypatch)
    before = (run / "checkpoint.pt").read_bytes()
    items = list(labeled.items)
    items[5], items[6] = (Item(items[a].id, items[b].read) for a, b in ((5, 6), (6, 5)))
    swapped = LabeledSet(items, labeled.labels, labeled.origin)
    assert swapped.sha256 == labeled.sha256
    with pytest.raises(CheckpointError, match="other images of the same names.*restore them"):
        train(swapped, tiny, run, resume=True)
    assert (run / "checkpoint.pt").read_bytes() == before
    assert train(labeled, tiny, run, resume=True).finished


def test_a_run_of_an_earlier_version_is_only_gone_on_with_when_it_is_finished(
    labeled: LabeledSet, tiny: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(labeled, tiny, tmp_path / "whole")
    _cut(labeled, tiny, tmp_path / "cut", monkeypatch)
    for name in ("whole", "cut"):
        path = tmp_path / name / "checkpoint.pt"
        content = torch.load(path, weights_only=True)
        del content["images_sha256"], content["start_sha256"]
        torch.save(content, path)
    assert train(labeled, tiny, tmp_path / "whole", resume=True).finished
    with pytest.raises(CheckpointError, match="earlier lloss.*choose another -o"):
        train(labeled, tiny, tmp_path / "cut", resume=True)


def test_resuming_with_another_warm_start_is_refused(
    labeled: LabeledSet,
    tiny: TrainSettings,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = train(labeled, tiny, tmp_path / "whole", warm_start=trained)
    _cut(labeled, tiny, tmp_path / "warm", monkeypatch, warm_start=trained)
    _cut(labeled, tiny, tmp_path / "cold", monkeypatch)
    for run, start in (("warm", None), ("warm", tmp_path / "cold"), ("cold", trained)):
        with pytest.raises(CheckpointError, match="warm start from .*same --warm-start"):
            train(labeled, tiny, tmp_path / run, resume=True, warm_start=start)
    resumed = train(labeled, tiny, tmp_path / "warm", resume=True, warm_start=trained)
    assert same(whole.state["model"], resumed.state["model"])


def test_images_without_a_loss_are_told_and_not_trained_on(tiny: TrainSettings) -> None:
    """The head would learn that theirs is 0."""
    names = [{"0": "road"}, {}, {"0": "road", "1": "sky"}, {}]
    labels = [MaskLabel(f"{row}.png", "0" * 64, of) for row, of in enumerate(names)]
    masks = LabeledSet([Item(str(row), lambda: b"") for row in range(4)], labels, "masks")
    problems = Problems()
    settings = resolve_settings("default", task="segmentation")
    learned = runs._learnable(masks, settings, problems)
    assert [item.id for item in learned.items] == ["0", "2"]
    assert problems.notes == [
        "2 of 4 labeled images show nothing that a loss can be measured on: they are not trained on"
    ]
    named = LabeledSet(masks.items, ["a", "b", "a", "b"], "labels.csv")
    assert runs._learnable(named, tiny, Problems()) is named


@pytest.mark.parametrize(
    ("took", "waits"), [(0.0, 20.0), (0.5, 20.0), (1.0, 20.0), (6.0, 120.0), (60.0, 1200.0)]
)
def test_what_takes_long_to_write_is_written_less_often(
    took: float, waits: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most a twentieth of the time goes into writing."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(runs.time, "monotonic", lambda: clock.now)
    trainer = SimpleNamespace(
        data=SimpleNamespace(classes=(), images=np.empty(0), sha256=""), state=dict
    )
    keeper = runs._Keeper(tmp_path, trainer, None, None, {})  # type: ignore[arg-type]
    saved: list[float] = []

    def slow(checkpoint: object, path: Path) -> None:
        clock.now += took
        saved.append(clock.now)

    monkeypatch.setattr(runs.Checkpoint, "save", slow)
    keeper.save()
    for _ in range(20_000):
        clock.now += 0.1
        keeper.save_if_due()
        if len(saved) > 1:
            break
    assert saved[1] - saved[0] - took == pytest.approx(waits, abs=0.11)


def test_a_killed_run_goes_on_from_its_last_checkpoint(photos: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import lloss.training.run as runs\n"
        "from lloss.data.labeled_set import open_labeled\n"
        "from lloss.tasks.train_settings import TrainSettings\n"
        "runs.CHECKPOINT_SECONDS, runs.WRITING_SHARE = 0.0, float('inf')\n"
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


def test_a_folder_with_a_run_is_not_overwritten(
    labeled: LabeledSet, tiny: TrainSettings, trained: Path
) -> None:
    with pytest.raises(CheckpointError, match="holds a training run already.*--resume"):
        train(labeled, tiny, trained)


def test_resuming_with_other_settings_says_which(
    labeled: LabeledSet, tiny: TrainSettings, trained: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"lr = 0\.05, now it is 0\.2"):
        train(labeled, dataclasses.replace(tiny, lr=0.2), trained, resume=True)


def test_resuming_with_other_labels_is_refused(
    labeled: LabeledSet, tiny: TrainSettings, trained: Path
) -> None:
    with pytest.raises(CheckpointError, match="other labels"):
        train(labeled.take(range(30)), tiny, trained, resume=True)


def test_resuming_a_finished_run_changes_nothing(
    labeled: LabeledSet, tiny: TrainSettings, trained: Path
) -> None:
    before = (trained / "checkpoint.pt").read_bytes()
    assert train(labeled, tiny, trained, resume=True).finished
    assert (trained / "checkpoint.pt").read_bytes() == before


def test_a_warm_start_takes_the_weights_that_fit(
    labeled: LabeledSet, tiny: TrainSettings, trained: Path, tmp_path: Path
) -> None:
    two = [row for row, label in enumerate(labeled.labels) if label != "red"]
    still = dataclasses.replace(tiny, lr=1e-12, epochs=1, weight_decay=0.0, head_summary=False)
    warm = train(labeled.take(two), still, tmp_path / "warm", warm_start=trained)
    cold = train(labeled.take(two), still, tmp_path / "cold")
    name = "network.stages.0.0.conv1.weight"
    torch.testing.assert_close(warm.state["model"][name], weights(trained)[name])
    assert not torch.allclose(cold.state["model"][name], weights(trained)[name])
    assert warm.state["model"]["network.classifier.weight"].shape[0] == 2
    # Images that the first weights come from are no held-out images of the second run either.
    left_out = labeled.take(row for row in range(len(labeled)) if row not in two)
    assert len(left_out)
    assert seen_note(left_out, warm.traces).startswith(f"{labeled.origin}: {len(left_out)} of")
    assert not seen_note(left_out, cold.traces)


def test_a_warm_start_into_other_classes_forgets_the_classifier_alone(
    labeled: LabeledSet, tiny: TrainSettings, trained: Path, tmp_path: Path
) -> None:
    renamed = LabeledSet(labeled.items, [f"new {name}" for name in labeled.labels], "renamed")
    still = dataclasses.replace(tiny, lr=1e-12, epochs=1, weight_decay=0.0)
    warm = train(renamed, still, tmp_path / "warm", warm_start=trained).state["model"]
    old = weights(trained)
    torch.testing.assert_close(warm["network.stem.0.weight"], old["network.stem.0.weight"])
    name = "network.classifier.weight"
    assert warm[name].shape == old[name].shape and not torch.allclose(warm[name], old[name])


@pytest.mark.parametrize(
    ("changes", "fresh"),
    [
        ({}, ""),
        ({"hidden": 4}, "head."),
        ({"head_summary": False}, "head."),
        ({"taps": ("stages.3", "stages.2", "stages.1", "stages.0")}, "head."),
    ],
)
def test_a_warm_start_says_what_it_took_over_and_what_not(
    labeled: LabeledSet,
    tiny: TrainSettings,
    trained: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    fresh: str,
) -> None:
    said: list[str] = []
    still = dataclasses.replace(tiny, lr=1e-12, epochs=1, weight_decay=0.0, **changes)
    warm = train(labeled, still, tmp_path / "w", warm_start=trained, say=said.append).state["model"]
    (line,) = [line for line in said if line.startswith("warm start: ")]
    layers = {name.rpartition(".")[0] for name in warm}
    stays = [
        name
        for name, value in weights(trained).items()
        if name in warm and warm[name].shape == value.shape and value.dtype.is_floating_point
        if "running" not in name and torch.allclose(warm[name], value, atol=1e-6)
    ]
    assert all(name in stays for name in warm if name.startswith("network.") and "conv" in name)
    if fresh:
        assert f"fresh: {fresh}" in line and f"of {len(layers)} layers" in line
    else:
        assert f"{len(layers)} of {len(layers)} layers are those of" in line
        assert "fresh" not in line


@pytest.mark.parametrize("change", ["model", "NaN"])
def test_a_warm_start_from_another_or_a_broken_network_is_refused(
    labeled: LabeledSet, tiny: TrainSettings, trained: Path, tmp_path: Path, change: str
) -> None:
    start, settings = trained, tiny
    if change == "model":
        settings = dataclasses.replace(tiny, model="resnet18-cifar")
    else:
        start = tmp_path / "broken"
        content = torch.load(trained / "checkpoint.pt", weights_only=True)
        content["state"]["model"]["network.classifier.bias"][1] = math.nan
        start.mkdir()
        torch.save(content, start / "checkpoint.pt")
    what = {"model": "'resnet10-cifar-narrow', not 'resnet18-cifar'", "NaN": "are infinite or NaN"}
    with pytest.raises(CheckpointError, match=what[change]):
        train(labeled, settings, tmp_path / "run", warm_start=start)


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
    assert len(said) == 1 and said[0].startswith("left out 1 broken annotation: ")


def test_a_class_without_a_usable_image_is_no_output(
    labeled: LabeledSet, tiny: TrainSettings, tmp_path: Path
) -> None:
    broken = [Item(f"x{number}.png", lambda: b"no image") for number in range(3)]
    # First in the order of classes, so that all others' numbers would be off by one.
    more = LabeledSet([*broken, *labeled.items], ["a", "b", "b", *labeled.labels], "more.csv")
    problems = Problems(skip=True)
    run = train(more, tiny, tmp_path / "more", problems=problems)
    assert run.classes == ("bright", "dark", "red") and run.labels_sha256 == more.sha256
    assert any("no image of the class 'a', 'b' can be used" in note for note in problems.notes)
    assert len(problems.found) == 3
    plain = train(labeled, tiny, tmp_path / "plain")
    assert same(run.state["model"], plain.state["model"])
    with pytest.raises(LabelError, match="of the class 'a', 'b' can be used.*label a second class"):
        one = labeled.take([row for row, name in enumerate(labeled.labels) if name == "red"])
        one = LabeledSet([*broken, *one.items], ["a", "b", "b", *one.labels], "one.csv")
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


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 broken"])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: is damaged"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"format": 1, "settings": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_no_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="train first"):
        load_checkpoint(tmp_path)
