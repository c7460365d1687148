"""``lloss export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lloss.errors import SettingsError
from lloss.export.fidelity import Gate
from lloss.export.tensorrt import build_engine, check_tensorrt
from lloss.manifest import PRECISIONS, Manifest
from lloss.pools import open_pool
from lloss.runtime import tf32

if TYPE_CHECKING:
    from lloss.export.precision import Reduction

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=PATH, metavar="RUN")
@click.option("-o", "--out", type=PATH, help="The artifact, such as model.onnx.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="fp16 is for GPUs, int8 for CPUs; both are held against fp32.",
)
@click.option("--calibrate", help="POOL to calibrate int8 on, and to compare on.")
@click.option(
    "--calibration-images",
    type=int,
    default=512,
    show_default=True,
    help="Images of it that calibrate int8.",
)
@click.option(
    "--held-out",
    type=int,
    default=2000,
    show_default=True,
    help="Others of it to compare on in the end; for int8 as many again to choose a recipe on.",
)
@click.option(
    "--min-spearman",
    type=float,
    default=Gate().min_spearman,
    show_default=True,
    help="Rank correlation with fp32 below which the export refuses.",
)
@click.option(
    "--min-overlap",
    type=float,
    default=Gate().min_overlap,
    show_default=True,
    help="Overlap of the top 10% with fp32's below which it refuses.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Random seed of the draw of images."
)
@click.option(
    "--reference",
    help="POOL whose predicted losses are noted, to know drift by.  [default: that of --calibrate]",
)
@click.option(
    "--reduce-range/--no-reduce-range",
    default=None,
    help="int8 with 7-bit weights, for CPUs without VNNI, or not.  [default: as this CPU needs]",
)
@click.option(
    "--tensorrt", is_flag=True, help="Then build its TensorRT engine for this machine's GPU."
)
@click.option(
    "--batch-size",
    type=click.IntRange(0),
    default=0,
    help="Of the TensorRT engine: that which lloss score will use.  [default: its default]",
)
@click.option(
    "--device-id",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="GPU on which the TensorRT engine is built, counted from 0.",
)
def export(
    run: Path,
    out: Path | None,
    precision: str,
    tensorrt: bool,
    batch_size: int,
    device_id: int,
    **given: Any,
) -> None:
    """Write network and head of a RUN as one ONNX file, checked against torch.

    Nothing is written when the check fails, or when a reduced precision does not rank images of
    the pool as fp32 does. With --tensorrt, RUN can also be an artifact that was exported before;
    building an engine for it needs no torch.
    """
    exported = tensorrt and out is None and run.suffix == ".onnx"
    if exported and (precision != "fp32" or given["calibrate"] is not None):
        raise SettingsError(f"{run}: is exported already; a precision is chosen when a RUN is")
    if exported and given["reference"] is not None:
        raise SettingsError(f"{run}: is exported already; a reference is noted when a RUN is")
    if device_id and not tensorrt:
        raise SettingsError(f"--device-id {device_id}: is for --tensorrt; leave it out")
    if tensorrt:
        tf32.forbid()  # before torch loads CUDA's libraries
        check_tensorrt(device_id)  # before minutes of export
    if exported:
        out = run
    elif out is None:
        raise SettingsError(f"{run}: say where the artifact goes, such as -o model.onnx")
    else:
        _export(run, out, precision, given)
    if tensorrt:
        _build(out, batch_size, device_id)


def _export(run: Path, out: Path, precision: str, given: dict[str, Any]) -> None:
    from lloss.export.export_model import export_artifact
    from lloss.export.pool_distribution import ReferenceSample
    from lloss.training.checkpoint import load_checkpoint  # torch: an engine is built without

    pool = given.pop("reference")
    reduction = _reduction(precision, **given)
    reference = None if pool is None else ReferenceSample(pool=open_pool(pool))
    checkpoint = load_checkpoint(run)
    if checkpoint.path and out.exists() and out.samefile(checkpoint.path):
        raise SettingsError(f"-o {out}: is the checkpoint itself, which it would overwrite")
    if not checkpoint.finished:
        epochs = checkpoint.settings.epochs
        click.echo(
            f"note: the run is not finished ({checkpoint.epoch} of {epochs} epochs)", err=True
        )
    manifest = export_artifact(
        checkpoint, out, reduction, lambda line: click.echo(line, err=True), reference
    )
    click.echo(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, outputs {', '.join(manifest.outputs)}; "
        f"{_compared(manifest)}"
    )
    if reference:
        click.echo(f"reference: {manifest.reference}")


def _reduction(
    precision: str,
    calibrate: str | None,
    calibration_images: int,
    held_out: int,
    min_spearman: float,
    min_overlap: float,
    seed: int,
    reduce_range: bool | None,
) -> Reduction | None:
    from lloss.export.precision import Reduction

    if reduce_range is not None and precision != "int8":
        raise SettingsError(
            f"--reduce-range is of int8's weights: --precision {precision} has none; leave it out"
        )
    if precision == "fp32":
        if calibrate is not None:
            raise SettingsError(
                "fp32 needs no --calibrate: leave it out (--reference POOL notes predicted losses)"
            )
        return None
    if calibrate is None:
        raise SettingsError(
            f"--precision {precision} is held against fp32 on images: add --calibrate POOL"
        )
    return Reduction(
        precision=precision,
        pool=open_pool(calibrate),
        calibration_images=calibration_images,
        held_out=held_out,
        gate=Gate(min_spearman=min_spearman, min_overlap=min_overlap),
        seed=seed,
        weight_bits={None: 0, False: 8, True: 7}[reduce_range],
    )


def _compared(manifest: Manifest) -> str:
    difference = manifest.fidelity["torch_parity"]["max_abs_difference"]["loss"]
    parity = f"predicted loss within {difference:.1e} of torch"
    if manifest.precision == "fp32":
        return parity
    measured = manifest.fidelity["fp32"]
    times = manifest.speed.get("times_fp32")
    speed = f"; {times:.2g}× fp32 on this CPU" if times else ""
    made_for = manifest.recipe.get("instructions")
    what = f"{manifest.precision} for CPUs with {made_for}" if made_for else manifest.precision
    return (
        f"{what} against fp32 on {measured['images']} images (computed on "
        f"{measured['provider']}): "
        f"Spearman {measured['spearman']:.5f}, top-10% overlap "
        f"{measured['top_decile_overlap']:.3f}; fp32's {parity}{speed}"
    )


def _build(path: Path, batch_size: int, device_id: int) -> None:
    built = build_engine(path, batch_size, device_id)
    size = sum(file.stat().st_size for file in built.files)
    least, most = built.batches
    click.echo(
        f"{built.cache.engines}: TensorRT engine of {size / 1e6:.1f} MB for batches of {least} to "
        f"{most}, built in {built.seconds:.0f} s"
    )
