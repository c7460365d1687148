"""fp16 and int8 models: their contents, their measurements, their refusals."""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from lloss.export import export_model, precision
from lloss.export.export_model import export_onnx
from lloss.export.fidelity import Fidelity, FidelityLimits
from lloss.export.precision import ReducedPrecision
from lloss.export.speed_check import measure_speed
from lloss.export.trained_network import of_checkpoint
from onnx import TensorProto

from lloss.cli.main import main
from lloss.errors import FidelityError, LlossError, PoolError, SettingsError
from lloss.manifest import Manifest, read_manifest
from lloss.pools import open_pool
from lloss.pools.array_pool import ArrayPool
from lloss.runtime.int8_support import open_cpu_session
from lloss.statistics.loss_distribution import LossReference
from lloss.statistics.ranking_metrics import spearman
from lloss.training.checkpoint import Checkpoint, load_checkpoint

from ..small_disk import fill
from .changed_weights import changed_graph, changed_run
from .conftest import Writer

IMAGES = np.random.default_rng(1).integers(0, 256, (500, 8, 8, 3), np.uint8)
POOL = ArrayPool(IMAGES, "images.npy")
LOOSE = FidelityLimits(min_spearman=0.99, min_overlap=0.85)


def reduction(name: str, **given: object) -> ReducedPrecision:
    options = {
        "pool": POOL, "held_out": 200, "calibration_images": 64, "limits": LOOSE,
        "reduce_range": False, **given,
    }  # fmt: skip
    return ReducedPrecision(precision=name, **options)  # type: ignore[arg-type]


QUICK = functools.partial(measure_speed, seconds=0.1)


@dataclasses.dataclass
class Exported:
    path: Path
    manifest: Manifest
    lines: list[str]


@pytest.fixture(scope="module")
def exported(
    trained: Path, ready: Writer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Exported]:
    folder = tmp_path_factory.mktemp("reduced")
    result = {}
    for name in ("fp16", "int8"):
        path, lines = folder / f"{name}.onnx", list[str]()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export_model, "write_onnx", ready)
            patch.setattr(precision, "measure_speed", QUICK)
            manifest = export_onnx(load_checkpoint(trained), path, reduction(name), lines.append)
        result[name] = Exported(path, manifest, lines)
    assert sorted(path.name for path in folder.iterdir()) == ["fp16.onnx", "int8.onnx"]
    return result


@pytest.mark.parametrize("name", ["fp16", "int8"])
def test_the_manifest_has_what_the_file_computes(
    exported: dict[str, Exported], onnx_file: Path, name: str
) -> None:
    path, manifest = exported[name].path, exported[name].manifest
    assert read_manifest(path) == manifest and manifest.precision == name
    assert manifest.outputs == read_manifest(onnx_file).outputs
    assert path.stat().st_size < 0.7 * onnx_file.stat().st_size
    onnx.checker.check_model(str(path), full_check=True)
    measured = manifest.fidelity["fp32"]
    assert measured["provider"] == "cpu" and measured["broken"] == 0
    assert measured["images"] == 200 and measured["pool"] == "images.npy"
    (judged,) = (line for line in exported[name].lines if "held-out" in line)
    assert f"{measured['spearman']:.5f}" in judged

    images = np.stack([IMAGES[int(item.id)] for item in reduction(name).sample.held_out])
    a, b = (
        open_cpu_session(str(p)).run(["loss"], {"images": images})[0] for p in (onnx_file, path)
    )
    assert a.dtype == b.dtype == np.float32
    difference = float(np.abs(a - b).max())
    assert measured["max_abs_difference"] == pytest.approx(difference, abs=1e-3)
    assert 0 < difference < 0.5 * float(np.ptp(a))
    assert measured["spearman"] == pytest.approx(spearman(a, b), abs=1e-3) and spearman(a, b) > 0.99
    # The reference is of the graph in the file, not of fp32.
    assert manifest.reference is not None and manifest.reference.images == 200
    assert manifest.reference.quantiles == LossReference.of(b, "images.npy").quantiles


def test_fp16_is_the_network_alone(exported: dict[str, Exported]) -> None:
    model = onnx.load(str(exported["fp16"].path))
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    half = {name for name, kind in types.items() if kind == TensorProto.FLOAT16}
    assert any("stages.3" in name for name in half)
    head = {kind for name, kind in types.items() if name.startswith("model.head.")}
    assert head == {TensorProto.FLOAT}
    assert exported["fp16"].manifest.recipe == exported["fp16"].manifest.speed == {}


def test_int8_keeps_the_head_and_has_its_recipe_and_speed(exported: dict[str, Exported]) -> None:
    sizes: dict[int, int] = {}
    for tensor in onnx.load(str(exported["int8"].path)).graph.initializer:
        sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    assert sizes[TensorProto.INT8] > 10 * sizes[TensorProto.FLOAT]
    manifest = exported["int8"].manifest
    tuning = manifest.recipe["tuning"]
    wanted = {"calibration": "entropy", "images": 64, "weight_bits": 8, "kept": []}
    assert manifest.recipe == {**wanted, "instructions": "VNNI", "tuning": tuning}
    assert tuning["images"] == 200 and tuning != manifest.fidelity["fp32"]
    fields = {"times_fp32", "images_per_second", "batch", "cpu"}
    assert set(manifest.speed) == fields and manifest.speed["times_fp32"] > 0


class Scripted(FidelityLimits):
    """Passes the first ``passing`` figures, and none after."""

    passing: ClassVar[int] = 0
    shown: ClassVar[list[Fidelity]] = []

    def passes(self, fidelity: Fidelity, margin: float = 0.0) -> bool:
        self.shown.append(fidelity)
        return len(self.shown) <= self.passing


@pytest.mark.parametrize(("name", "passing"), [("fp16", 0), ("int8", 1)])
def test_a_graph_below_the_limits_leaves_nothing(
    trained: Path,
    ready: Writer,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    passing: int,
) -> None:
    """int8 was lucky on the tuning images."""
    monkeypatch.setattr(export_model, "write_onnx", ready)
    monkeypatch.setattr(precision, "write_onnx", ready)
    monkeypatch.setattr(precision, "check_parity", lambda *_: {})
    monkeypatch.setattr(precision, "measure_speed", QUICK)
    monkeypatch.setattr(Scripted, "passing", passing)
    Scripted.shown.clear()
    before = copy.read_bytes()
    with pytest.raises(FidelityError) as refused:
        export_onnx(load_checkpoint(trained), copy, reduction(name, limits=Scripted()))
    message = str(refused.value)
    assert f"{name} does not rank images" in message and "--precision fp" in message
    assert f"it reached {Scripted.shown[-1]} on 200 held-out images" in message
    assert "\n" not in message and len(Scripted.shown) == passing + 1
    assert copy.read_bytes() == before and list(copy.parent.iterdir()) == [copy]


@pytest.mark.parametrize(("times", "noted"), [(0.8, True), (3.4, False)])
def test_a_slower_graph_is_logged(
    times: float, noted: bool, trained: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = {"times_fp32": times, "images_per_second": 100.0, "batch": 4, "cpu": "a processor"}
    monkeypatch.setattr(precision, "measure_speed", lambda *_: speed)
    lines: list[str] = []
    manifest = reduce(reduction("int8"), load_checkpoint(trained), copy, lines.append)
    assert manifest.speed == speed
    assert ("int8 is no faster than fp32 on this CPU (0.8×)" in "".join(lines)) is noted


def reduce(
    reduction: ReducedPrecision,
    checkpoint: Checkpoint,
    fp32: Path,
    log: Callable[[str], Any] = lambda _: None,
) -> Manifest:
    return reduction.run(fp32, read_manifest(fp32), of_checkpoint(checkpoint), log)


def test_an_overflow_that_a_cpu_would_hide_is_refused(trained: Path, onnx_file: Path) -> None:
    def overflow(weights: dict[str, torch.Tensor]) -> None:
        """Folded into one convolution these cancel; torch and a GPU compute more than 65,504."""
        weights["network.stages.0.0.conv1.weight"] *= 1e6
        weights["network.stages.0.0.bn1.running_var"] *= 1e12
        weights["network.stages.0.0.bn1.running_mean"] *= 1e6

    with pytest.raises(FidelityError, match="overflows in float16"):
        reduce(reduction("fp16"), changed_run(trained, overflow), onnx_file)


def test_a_network_that_gives_nan_fails(trained: Path, onnx_file: Path, tmp_path: Path) -> None:
    path = changed_graph(onnx_file, tmp_path / "nan.onnx", "model.head.output.bias", 0, np.nan)
    with pytest.raises(FidelityError, match="in fp32, gives NaN .* for 200 of 200 images"):
        reduce(reduction("int8"), load_checkpoint(trained), path)


def test_a_network_of_one_loss_for_all_images_has_no_order_to_keep(
    trained: Path, onnx_file: Path, tmp_path: Path
) -> None:
    weight = "model.head.output.weight"
    path = changed_graph(onnx_file, tmp_path / "flat.onnx", weight, slice(None), 0)
    with pytest.raises(FidelityError, match=r"the same loss, [\d.]+, for all 200 images"):
        reduce(reduction("fp16"), load_checkpoint(trained), path)


def test_a_pool_of_broken_images_is_refused(trained: Path, onnx_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(401):
        (broken / f"{number}.png").write_bytes(b"no image")
    pool = reduction("int8", pool=open_pool(broken), calibration_images=1)
    with pytest.raises(PoolError, match="only 0 of 200 images drawn can be decoded"):
        reduce(pool, load_checkpoint(trained), onnx_file)


@pytest.mark.parametrize(
    ("asked", "saturating", "bits"), [(None, True, 7), (None, False, 8), (False, True, 8)]
)
def test_weights_are_of_the_bits_that_this_cpu_needs_or_as_asked(
    asked: bool | None, saturating: bool, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "saturates", lambda: saturating)
    assert reduction("int8", reduce_range=asked).weight_bits == bits


def test_settings_out_of_range() -> None:
    with pytest.raises(SettingsError, match="--calibration-images 0"):
        reduction("int8", calibration_images=0)
    with pytest.raises(SettingsError, match="a reduction to 'int4': choose fp16 or int8"):
        reduction("int4")


@pytest.mark.usefixtures("quick_export")
def test_the_command_line(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "measure_speed", QUICK)
    pool, other, model = (tmp_path / name for name in ("pool.npy", "other.npy", "model.onnx"))
    np.save(pool, IMAGES)
    np.save(other, IMAGES[:300])
    main(
        ["export", str(trained), "-o", str(model), "--precision=int8", "--calibrate", str(pool),
         "--held-out=200", "--calibration-images=64", "--min-spearman=.99", "--min-overlap=.85",
         "--no-reduce-range", "--reference", str(other)]
    )  # fmt: skip
    done, manifest = capsys.readouterr(), read_manifest(model)
    assert "int8, calibrated on 64 images: Spearman 0.9" in done.err
    assert "int8 on 200 held-out images: Spearman 0.9" in done.err
    assert "int8 weights of 8 bits, for CPUs with VNNI; " in done.err
    assert (
        f"int8 for CPUs with VNNI against fp32 on 200 images of {pool}, computed on cpu: "
        "Spearman 0.9"
    ) in done.out
    assert "× fp32 on this CPU\n" in done.out
    reference = manifest.reference
    assert reference is not None and (reference.pool, reference.images) == (str(other), 300)
    assert done.out.endswith(f"reference: {reference}\n")
    main(["info", str(model)])
    info = capsys.readouterr().out
    assert "int8, calibrated by entropy on 64 images" in info and "top-10% overlap" in info
    assert "weights of 8 bits" in info and str(reference) in info
    assert f"× fp32 on {manifest.speed['cpu']}" in info


@pytest.mark.parametrize("name", ["fp16", "int8"])
def test_a_full_temporary_disk_is_named(
    trained: Path,
    onnx_file: Path,
    quick_export: None,
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    fill(disk)
    os.truncate(disk / "ballast", (disk / "ballast").stat().st_size - onnx_file.stat().st_size)
    with pytest.raises(LlossError, match=rf"^{disk}.*TMPDIR"):
        export_onnx(load_checkpoint(trained), tmp_path / "model.onnx", reduction(name), print)
    assert not list(tmp_path.glob("*.onnx*"))
