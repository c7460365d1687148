"""The Python of README, docs/python.md and docs/selection.md, run as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import lloss
from lloss.project.demo_data import digits, write_files

from .command_line import call
from .outside_networks import DepthNet, TwoStages
from .outside_yolo import YOLO, DetectionModel, without_the_package

ROOT = Path(__file__).parents[1]


def _blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


(TEN_LINES,) = _blocks(ROOT / "README.md")
(WRITE,) = _blocks(ROOT / "docs" / "selection.md")
STREAM, DETECTORS, TASK, FIT, LOOP, LIGHTNING, ACCELERATE = _blocks(ROOT / "docs" / "python.md")


def test_the_ten_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(digits(), Path("digits"))
    there: dict[str, Any] = {}
    exec(TEN_LINES, there)
    picks, labeled = there["picks"], there["labeled"]
    assert len(set(picks.ids)) == 20 and picks.excluded == len(labeled) > 20
    assert not set(picks.ids) & {item.id for item in labeled.items}
    assert "held-out images right" in capsys.readouterr().out
    exec(STREAM, {})
    assert len(capsys.readouterr().out.split()) >= 4
    call(capsys, "score", "model.onnx", "digits/pool", "-o", "scores", code=0)
    Path("photos").symlink_to("digits/pool")
    exec(WRITE, there)
    images = json.loads(Path("tasks.json").read_text(encoding="utf-8"))["images"]
    assert [Path(image["file_name"]).name for image in images] == list(picks.ids)


def test_the_lines_for_a_detector_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    picture: Any, voc_xml: Any,
) -> None:  # fmt: skip
    year, names = tmp_path / "VOCdevkit" / "VOC2007", [f"{n:06}" for n in range(30)]
    (year / "ImageSets" / "Main").mkdir(parents=True)
    (year / "ImageSets" / "Main" / "val.txt").write_text("\n".join(names))
    for number, name in enumerate(names):
        picture(year / "JPEGImages" / f"{name}.jpg", seed=number)
        box = (1, 1, 5 + number, 8 + number % 20)
        voc_xml(year / "Annotations" / f"{name}.xml", [(("cell", "platelet")[number % 2], 0, box)])
    monkeypatch.chdir(tmp_path)
    without_the_package(monkeypatch)
    network = YOLO(DetectionModel())
    exec(DETECTORS, {"lloss": lloss, "ultralytics": SimpleNamespace(YOLO=lambda path: network)})
    assert "of 30 held-out images right" in capsys.readouterr().out


def test_the_task_of_ones_own_runs() -> None:
    class Maps(DepthNet):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"depth": super().forward(images)["depth"][:, None]}

    there: dict[str, Any] = {}
    exec(TASK, there)
    model = lloss.attach(Maps(), task=there["Depth"](), size=8)
    fit = lloss.fit_head(model, torch.randn(30, 3, 8, 8), torch.rand(30, 1, 4, 4))
    assert fit.metric is not None and model.task == "Depth"


def test_fit_leaves_a_run_that_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = TensorDataset(torch.randn(12, 3, 16, 16), torch.arange(12) % 3)
    for _ in range(2):
        model = lloss.attach(TwoStages(), size=16)
        exec(FIT, {"lloss": lloss, "model": model, "labeled": data, "held_out": data})
    assert Path("runs/depth/metrics.jsonl").read_text().count("\n") == 30
    first, measured, second, again = capsys.readouterr().out.splitlines()
    assert (first, measured) == (second, again) and "of 12 images right" in measured


def test_the_loop_of_ones_own_trains_network_and_head() -> None:
    model = lloss.attach(TwoStages(), size=16)
    there = {"lloss": lloss, "model": model, "images": torch.randn(6, 3, 16, 16),
             "targets": torch.arange(6) % 3}  # fmt: skip
    exec(LOOP, there)
    assert all(parameter.grad is not None for parameter in model.parameters())


def _loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.randn(12, 3, 16, 16), torch.arange(12) % 3), 6)


def _changed(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> list[bool]:
    names = ["tapped.head.output.weight", "tapped.network.last.weight"]
    return [not torch.equal(model.state_dict()[name], before[name]) for name in names]


def test_the_loop_of_lightning_trains_network_and_head(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    there: dict[str, Any] = {}
    exec(LIGHTNING, there)
    model = lloss.attach(TwoStages(), size=16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(there["WithHead"](model), _loader())
    assert all(_changed(model, before))


def test_the_loop_of_accelerate_trains_network_and_head() -> None:
    pytest.importorskip("accelerate")
    model = lloss.attach(TwoStages(), size=16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    exec(ACCELERATE, {"model": model, "loader": _loader()})
    assert all(_changed(model, before))
