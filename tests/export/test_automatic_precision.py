"""The precision that a machine, a pool and a network decide on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lloss.export import automatic_precision, precision
from lloss.export.automatic_precision import AutomaticPrecision, fastest_precision
from lloss.export.fidelity import FidelityLimits
from lloss.export.trained_network import of_checkpoint

from lloss.errors import SettingsError
from lloss.manifest import Manifest, read_manifest
from lloss.pools.array_pool import ArrayPool
from lloss.training.checkpoint import load_checkpoint

IMAGES = np.random.default_rng(1).integers(0, 256, (500, 8, 8, 3), np.uint8)
LOOSE = FidelityLimits(min_spearman=0.99, min_overlap=0.85)


@dataclasses.dataclass
class Machine:
    """What the machine computes fast, and how fast: each measurement takes the next speed."""

    best: tuple[str, str] = ("int8", "")
    speeds: tuple[float, ...] = (2.0, 2.5)
    measured: int = 0

    def speed(self, *_: object) -> dict[str, Any]:
        self.measured += 1
        times = self.speeds[self.measured - 1]
        return {"times_fp32": times, "images_per_second": 1.0, "batch": 4, "cpu": "a processor"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(automatic_precision, "fastest_precision", lambda: made.best)
    monkeypatch.setattr(precision, "measure_speed", made.speed)
    monkeypatch.setattr(precision, "measure_gpu_speed", made.speed)
    monkeypatch.setattr(precision, "saturates", lambda: False)
    return made


def run(trained: Path, path: Path, images: int = 500, **given: Any) -> tuple[Manifest, str]:
    options = {"calibration_images": 64, "held_out": 200, "limits": LOOSE, **given}
    automatic = AutomaticPrecision(pool=ArrayPool(IMAGES[:images], "images.npy"), **options)
    automatic.prepare()
    before, lines = path.read_bytes(), list[str]()
    checked = of_checkpoint(load_checkpoint(trained))
    manifest = automatic.run(path, read_manifest(path), checked, lines.append)
    (line,) = lines
    assert (path.read_bytes() == before) is (manifest.precision == "fp32")
    return manifest, line


def test_int8_is_taken_where_it_is_faster_and_faithful(
    trained: Path, copy: Path, machine: Machine
) -> None:
    manifest, line = run(trained, copy)
    assert manifest.precision == "int8" and manifest.speed["times_fp32"] == 2.5
    measured = manifest.fidelity["fp32"]
    assert line == (
        "precision: int8, 2.50× as fast as fp32 on a processor; Spearman "
        f"{measured['spearman']:.5f}, top-10% overlap {measured['top_decile_overlap']:.3f} on 200 "
        "images"
    )
    assert manifest.reference is not None and manifest.reference.images == 200


def test_fp16_is_taken_on_a_gpu(
    trained: Path, copy: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.best, machine.speeds = ("fp16", ""), (1.8,)

    def write(graph: object, manifest: object, out: Path) -> None:
        model = onnx.load(str(copy))
        model.doc_string = "fp16"  # other bytes, the same numbers
        onnx.save(model, str(out))

    monkeypatch.setattr(precision, "write_onnx", write)
    manifest, line = run(trained, copy)
    assert manifest.precision == "fp16" and line.startswith("precision: fp16, 1.80× as fast")


@pytest.mark.parametrize("speeds", [(1.05,), (1.4, 1.05)], ids=["probe", "result"])
def test_a_graph_that_is_hardly_faster_is_not_taken(
    trained: Path, copy: Path, machine: Machine, speeds: tuple[float, ...]
) -> None:
    machine.speeds = speeds
    manifest, line = run(trained, copy)
    assert line == ("precision: fp32; int8 is 1.05× as fast as fp32 on a processor, below 1.1×"), (
        "the probe comes before the search, which would take minutes"
    )
    assert manifest.precision == "fp32" and machine.measured == len(speeds)
    # As with another precision, the pool's losses are the reference.
    assert manifest.reference is not None and manifest.reference.images == 500


@pytest.mark.parametrize(
    ("given", "best", "why"),
    [
        (
            {"limits": FidelityLimits(min_spearman=1, min_overlap=1)}, ("int8", ""),
            "int8 does not rank images as fp32 does: with 4 of 12 layers in fp32 it reached",
        ),
        ({"images": 300}, ("int8", ""), "images.npy: has 300 images, too few: at least 200"),
        (
            {"least_images": 501}, ("int8", ""),
            "500 images are scored before int8 could be judged, from 501 on it is tried",
        ),
        ({}, ("", "this CPU is old"), "this CPU is old"),
    ],
    ids=["unfaithful", "small", "not worth it", "no instructions"],
)  # fmt: skip
def test_otherwise_it_is_fp32_and_one_line_says_why(
    trained: Path, copy: Path, machine: Machine, given: Any, best: tuple[str, str], why: str
) -> None:
    machine.best = best
    manifest, line = run(trained, copy, **given)
    assert manifest.precision == "fp32" and line.startswith(f"precision: fp32; {why}")
    assert "\n" not in line and "nothing was written" not in line and "--" not in line


def test_a_number_out_of_range_is_an_error_before_the_export() -> None:
    pool = ArrayPool(IMAGES, "images.npy")
    with pytest.raises(SettingsError, match="--calibration-images 0"):
        AutomaticPrecision(pool=pool, calibration_images=0).prepare()


@pytest.mark.parametrize(
    ("no_gpu", "old", "best"),
    [("", True, "fp16"), ("no driver", False, "int8"), ("no driver", True, "")],
)
def test_a_gpu_comes_before_a_cpu_of_integers(
    no_gpu: str, old: bool, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic_precision, "why_unavailable", lambda _: no_gpu)
    monkeypatch.setattr(automatic_precision, "saturates", lambda: old)
    found, why = fastest_precision()
    assert found == best and bool(why) is not bool(best)
