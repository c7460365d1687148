"""Runs of networks from outside: their checkpoints build them again, or say why not."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lloss.data.class_labels import open_labeled
from lloss.errors import CheckpointError, InterruptedRunError, SettingsError
from lloss.manifest import read_manifest
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import load_checkpoint
from lloss.training.run import train
from lloss.training.trainer import Trainer

from ..command_line import call
from ..packages import forget, here

NETS = """
from torch import nn
from tests.outside_networks import ModelOutput, TwoStages

def own(num_classes, width=12):
    network = TwoStages(num_classes, lambda logits: ModelOutput(logits=logits))
    if width != 12:
        network.second[0] = nn.Conv2d(8, width, 3, 2, 1)
        network.last = nn.Linear(width, num_classes)
    return network
"""

OPTIONS = ["--model=nets:own", "--model-arg", "width=6", "--size=16"]


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here(tmp_path / "here", monkeypatch, "nets", NETS)
    return tmp_path / "here"


@pytest.fixture
def settings(tiny: TrainSettings) -> TrainSettings:
    return replace(tiny, model="nets:own", model_args=("width=6",), size=16)


def test_every_command_builds_the_network_again(
    nets: Path, photos: Path, tiny_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "train", photos, "-o", "run", *tiny_options, *OPTIONS, code=0)
    assert "train nets:own on 60 images" in done.out
    assert "assumed are ImageNet's mean, its deviation; --mean, --std set others" in done.err
    checkpoint = load_checkpoint(Path("run"))
    assert checkpoint.settings.model_args == ("width=6",)
    assert [tap.channels for tap in checkpoint.network().taps] == [8, 6]
    assert "accuracy" in call(capsys, "evaluate", "run", photos, code=0).out
    call(capsys, "export", "run", "-o", "model.onnx", code=0)
    manifest = read_manifest("model.onnx")
    assert manifest.model == "nets:own"
    assert manifest.provenance["settings"]["model_args"] == ["width=6"]
    assert "nets:own width=6" in call(capsys, "info", "model.onnx", code=0).out
    call(capsys, "train", photos, "-o", "run", "--resume", *tiny_options, *OPTIONS, code=0)
    other = [*OPTIONS, "--model-arg=width=7"]
    refused = call(capsys, "train", photos, "-o", "run", "--resume", *tiny_options, *other, code=2)
    assert "width is given twice" in refused.err
    other = [option.replace("width=6", "width=7") for option in OPTIONS]
    refused = call(capsys, "train", photos, "-o", "run", "--resume", *tiny_options, *other, code=2)
    assert "was trained with model_args = ['width=6'], now it is ['width=7']" in refused.err


def test_an_interrupted_run_goes_on_as_if_it_was_not(
    nets: Path, photos: Path, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeled, advance, steps = open_labeled(str(photos)), Trainer.advance, 0

    def interrupted(self: Trainer) -> dict[str, float] | None:
        nonlocal steps
        steps += 1
        if steps == 10:
            signal.raise_signal(signal.SIGINT)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        with pytest.raises(InterruptedRunError):
            train(labeled, settings, Path("cut"))
    resumed = train(labeled, settings, Path("cut"), resume=True).state["model"]
    whole = train(labeled, settings, Path("whole")).state["model"]
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_project_trains_and_exports_it(
    nets: Path, photos: Path, tiny_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    labeled = photos.glob("*/*[0-4].png")
    rows = [f"{path.relative_to(photos)},{path.parent.name}" for path in labeled]
    Path("labels.csv").write_text("\n".join(["id,label", *rows]))
    start = ["init", "project", "--pool", photos, "--labels=labels.csv", "-k", 4]
    call(capsys, *start, *tiny_options, *OPTIONS, code=0)
    assert 'model_args = ["width=6"]' in Path("project/lloss.toml").read_text()
    done = call(capsys, "next", "project", code=0)
    assert "train nets:own on" in done.text
    assert "nets:own" in Path("project/cycles/001/report.html").read_text(encoding="utf-8")
    assert json.loads(Path("project/cycles/001/summary.json").read_text())["cycle"] == 1


def test_a_warm_start_leaves_the_layers_of_other_classes_fresh(
    nets: Path, photos: Path, settings: TrainSettings
) -> None:
    labeled = open_labeled(str(photos))
    train(labeled, settings, Path("first"))
    renamed = replace(labeled, labels=[{"red": "rose"}.get(n, n) for n in labeled.labels])
    said: list[str] = []
    train(renamed, settings, Path("second"), warm_start=Path("first"), say=said.append)
    assert any("warm start" in line and "fresh: network.last" in line for line in said)
    other = replace(settings, model_args=("width=7",))
    with pytest.raises(CheckpointError, match=r"is of model_args \('width=6',\), not"):
        train(labeled, other, Path("third"), warm_start=Path("first"))


def _changed(nets: Path, patch: pytest.MonkeyPatch, *words: str) -> None:
    (nets / "nets.py").write_text(NETS.replace(*words), encoding="utf-8")
    forget(patch, "nets")


def test_a_checkpoint_refuses_what_it_cannot_build(
    nets: Path, photos: Path, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    run = tmp_path / "run"
    train(open_labeled(str(photos)), settings, run)
    _changed(nets, monkeypatch, "nn.Conv2d(8, width, 3", "nn.Conv2d(8, width, 5")
    with pytest.raises(CheckpointError, match="its weights do not fit the network 'nets:own' as "
                       "it is built here: it was trained with other code"):  # fmt: skip
        load_checkpoint(run).network()
    _changed(nets, monkeypatch, "def own", "def other")
    with pytest.raises(SettingsError, match="has no 'own'"):
        load_checkpoint(run).network()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    forget(monkeypatch, "nets")
    monkeypatch.setattr("sys.path", [each for each in __import__("sys").path if each != str(nets)])
    with pytest.raises(SettingsError, match="no module 'nets', neither installed nor in the "
                       "current directory .*elsewhere"):  # fmt: skip
        load_checkpoint(run).network()


def test_code_that_computes_something_else_is_noticed(
    nets: Path, photos: Path, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeled = open_labeled(str(photos))
    train(labeled, settings, Path("run"))
    _changed(nets, monkeypatch, "def own", "# a comment\ndef own")
    load_checkpoint(Path("run")).network()
    changed = "    network.second[1] = nn.Sigmoid()\n    return network"
    _changed(nets, monkeypatch, "    return network", changed)
    with pytest.raises(CheckpointError, match="'nets:own' computes something else than when it "
                       "was trained: its code, or its package, has changed"):  # fmt: skip
        load_checkpoint(Path("run")).network()
    unfinished = load_checkpoint(Path("run"))
    unfinished.state["epoch"] = 1
    unfinished.save(Path("run/checkpoint.pt"))
    with pytest.raises(CheckpointError, match="computes something else"):
        train(labeled, settings, Path("run"), resume=True)


def test_a_network_that_draws_its_output_is_not_compared(
    nets: Path, photos: Path, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = (
        "    network.wrap = lambda logits: logits + torch.randn_like(logits)\n    return network"
    )
    _changed(nets, monkeypatch, "    return network", "    import torch\n" + noise)
    train(open_labeled(str(photos)), settings, Path("run"))
    checkpoint = load_checkpoint(Path("run"))
    assert checkpoint.probe is None
    checkpoint.network()


@pytest.mark.parametrize("model", ["os:system", "subprocess:run", "builtins:print", "torch:load"])
def test_a_checkpoint_of_a_stranger_calls_no_function_by_its_name(
    model: str, trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content: dict[str, Any] = torch.load(trained / "checkpoint.pt", weights_only=True)
    content["settings"] |= {"model": model, "model_args": [f"command=touch {tmp_path}/harm"]}
    torch.save(content, tmp_path / "checkpoint.pt")
    for command in (["evaluate", tmp_path, photos], ["export", tmp_path, "-o", tmp_path / "m"]):
        assert model in call(capsys, *command, code=2).err
    assert not (tmp_path / "harm").exists()
    with pytest.raises(SettingsError, match="of Python itself|names no parameter num_classes"):
        load_checkpoint(tmp_path).network()


def test_a_network_of_hugging_face_from_the_documents_factory(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, tiny_options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("transformers", reason="the factory of docs/training.md is of it")
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    here(tmp_path / "here", monkeypatch, "networks", code)
    options = ["--model=networks:vit", "--model-arg=width=24", "--size=32"]
    call(capsys, "train", photos, "-o", "run", *tiny_options, *options, code=0)
    assert len(load_checkpoint(Path("run")).network().taps) == 4
    call(capsys, "export", "run", "-o", "model.onnx", code=0)


MAPS = """
from torch import nn
from tests.outside_networks import ModelOutput

class Maps(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.last = nn.Conv2d(8, num_classes, 1)

    def forward(self, images):
        return ModelOutput(logits=self.last(self.two(self.one(images).relu()).relu()))
"""


def test_a_segmentation_network_of_low_resolution_goes_through_all_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    here(tmp_path, monkeypatch, "maps", MAPS)
    random = np.random.default_rng(0)
    for folder in ("photos", "masks"):
        Path(folder).mkdir()
    for number in range(12):
        mask = np.zeros((16, 16), np.uint8)
        mask[:, : random.integers(4, 12)] = 1
        Image.fromarray(mask).save(f"masks/{number}.png")
        Image.fromarray(np.stack([mask * 200 + 20] * 3, 2)).save(f"photos/{number}.png")
    data = ["photos", "--labels=masks"]
    options = [*tiny_options, "--task=segmentation", "--model=maps:Maps", "--size=16"]
    call(capsys, "train", *data, "-o", "run", *options, code=0)
    assert "miou" in call(capsys, "evaluate", "run", *data, code=0).out
    call(capsys, "export", "run", "-o", "model.onnx", code=0)
    assert (
        "12 images scored" in call(capsys, "score", "model.onnx", "photos", "-o", "s", code=0).err
    )
