"""A reference is what the exported file itself says of a pool's images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lloss.export import export_model as artifact_module
from lloss.export.export_model import export_artifact
from lloss.export.pool_distribution import ReferenceSample
from lloss.export.precision import Reduction
from PIL import Image

from lloss import Scorer
from lloss.cli.main import main
from lloss.errors import PoolError
from lloss.images.decode import ImageSpec
from lloss.manifest import read_manifest
from lloss.pools import open_pool
from lloss.pools.arrays import ArrayPool
from lloss.statistics.loss_distribution import LossReference
from lloss.training.checkpoint import load_checkpoint

IMAGES = np.random.default_rng(2).integers(0, 256, (600, 8, 8, 3), np.uint8)
SPEC = ImageSpec(8, 8)

Writer = Callable[[object, object, Path], None]


@pytest.fixture
def quick(ready: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_module, "write_onnx", ready)


def test_it_is_what_the_scorer_says_of_the_same_images(artifact: Path) -> None:
    sample = ReferenceSample(pool=ArrayPool(IMAGES, "images.npy"))
    found = sample.measure(artifact, SPEC)
    with Scorer(artifact, "cpu") as scorer:
        wanted = LossReference.of(scorer.score(IMAGES).loss, "images.npy")
    assert found is not None and (found.images, found.pool) == (600, "images.npy")
    np.testing.assert_allclose(found.quantiles, wanted.quantiles, atol=1e-4)


def test_a_draw_is_bounded_and_leaves_out_what_it_is_told(artifact: Path) -> None:
    pool = ArrayPool(IMAGES, "images.npy")
    taken = {str(row) for row in range(0, 600, 2)}
    sample = ReferenceSample(pool=pool, exclude=taken, images=250)
    ids = [item.id for item in sample.items]
    assert len(set(ids)) == 250 and not set(ids) & taken
    found = sample.measure(artifact, SPEC)
    assert found is not None and found.images == 250


def test_images_that_cannot_be_read_do_not_count(artifact: Path, tmp_path: Path) -> None:
    for row in range(210):
        Image.fromarray(IMAGES[row]).save(tmp_path / f"{row}.png")
    for row in range(30):
        (tmp_path / f"broken-{row}.png").write_bytes(b"no image")
    found = ReferenceSample(pool=open_pool(tmp_path)).measure(artifact, SPEC)
    assert found is not None and found.images == 210
    for row in range(20):
        (tmp_path / f"{row}.png").write_bytes(b"")
    with pytest.raises(PoolError, match="only 190 of its images have a predicted loss"):
        ReferenceSample(pool=open_pool(tmp_path)).measure(artifact, SPEC)
    assert ReferenceSample(pool=open_pool(tmp_path), required=False).measure(artifact, SPEC) is None


def test_a_small_pool_is_refused_before_the_export(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the export was begun")

    monkeypatch.setattr(artifact_module, "ScoringGraph", never)
    few = ReferenceSample(pool=ArrayPool(IMAGES[:150], "few.npy"))
    with pytest.raises(PoolError, match=r"few.npy: has 150 images; a reference needs 200"):
        export_artifact(load_checkpoint(trained), tmp_path / "m.onnx", reference=few)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_one_that_is_asked_for_counts_more_than_the_held_out_images(
    trained: Path, tmp_path: Path
) -> None:
    pool, other = ArrayPool(IMAGES, "images.npy"), ArrayPool(IMAGES[:300], "other.npy")
    manifest = export_artifact(
        load_checkpoint(trained),
        tmp_path / "m.onnx",
        Reduction(precision="fp16", pool=pool, held_out=200),
        reference=ReferenceSample(pool=other),
    )
    assert manifest.reference is not None
    assert (manifest.reference.pool, manifest.reference.images) == ("other.npy", 300)
    assert read_manifest(tmp_path / "m.onnx") == manifest


@pytest.mark.usefixtures("quick")
def test_the_command_line(
    trained: Path, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "pool.npy", IMAGES)
    model = tmp_path / "model.onnx"
    main(["export", str(trained), "-o", str(model), "--reference", str(tmp_path / "pool.npy")])
    reference = read_manifest(model).reference
    assert reference is not None and reference.images == 600
    assert f"reference: {reference}" in capsys.readouterr().out
    main(["info", str(model)])
    assert f"reference   {reference}\n" in capsys.readouterr().out
    main(["info", str(artifact)])
    assert "reference   none: lloss serve measures no drift\n" in capsys.readouterr().out


def test_an_exported_file_takes_none(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copy(artifact, tmp_path / "model.onnx")
    with pytest.raises(SystemExit) as left:
        main(["export", str(model), "--tensorrt", "--reference", str(tmp_path)])
    told = capsys.readouterr().err
    assert left.value.code == 2 and "give --reference when exporting a RUN" in told
    assert told.count("\n") == 1
