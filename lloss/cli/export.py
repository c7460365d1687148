"""``lloss export``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lloss.cli.info import fidelity_text
from lloss.cli.options import PATH, automatic_option, print_notes
from lloss.errors import EngineError, SettingsError
from lloss.export.fidelity import FidelityLimits
from lloss.manifest import PRECISIONS, Manifest
from lloss.pools import open_pool
from lloss.runtime import tf32
from lloss.runtime.providers import why_unavailable

if TYPE_CHECKING:
    from lloss.export.precision import Reduction


@click.command("export")
@click.argument("run", type=PATH)
@click.option("-o", "--out", type=PATH, help="The ONNX file to write: model.onnx.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    help="fp16 is for GPUs, int8 for CPUs; both are compared with fp32.",
)
@click.option("--calibrate", help="POOL to calibrate int8 on, and to compare on.")
@click.option(
    "--calibration-images", type=int, default=512, help="Images of that pool that calibrate int8."
)
@click.option(
    "--held-out",
    type=int,
    default=2000,
    help="Further images for the final comparison; int8 uses as many again to choose a recipe.",
)
@click.option(
    "--min-spearman",
    type=float,
    default=FidelityLimits().min_spearman,
    help="Refuse the export below this rank correlation with fp32.",
)
@click.option(
    "--min-overlap",
    type=float,
    default=FidelityLimits().min_overlap,
    help="Refuse the export below this overlap with the top 10% of fp32.",
)
@click.option(
    "--reference",
    show_default="the pool of --calibrate",
    help="POOL whose distribution of predicted losses is stored, to detect drift later.",
)
@click.option(
    "--reduce-range/--no-reduce-range",
    default=None,
    show_default="as this CPU needs",
    help="Quantize int8 weights to 7 bits, for CPUs without VNNI.",
)
@click.option("--tensorrt", is_flag=True, help="Also build the TensorRT engine for this GPU.")
@automatic_option("--batch-size", "that of lloss score", "Batch size of the TensorRT engine.")
@click.option(
    "--device-id",
    type=click.IntRange(0),
    default=0,
    help="GPU for the engine, counted from 0.",
)
def command(
    run: Path,
    out: Path | None,
    precision: str,
    tensorrt: bool,
    batch_size: int,
    device_id: int,
    reference: str | None,
    **reduction: Any,
) -> None:
    """Write network and head of a RUN as one ONNX file, checked against torch.

    Writes nothing if the check fails, or if a reduced precision does not rank images of the pool as
    fp32 does. With --tensorrt, RUN can also be a model.onnx exported before; building its engine
    does not need torch.
    """
    exported = tensorrt and out is None and run.suffix == ".onnx"
    if exported and (precision != "fp32" or reduction["calibrate"] is not None):
        raise SettingsError(f"{run}: already exported; choose the precision when exporting a RUN")
    if exported and reference is not None:
        raise SettingsError(f"{run}: already exported; give --reference when exporting a RUN")
    if device_id and not tensorrt:
        raise SettingsError(f"--device-id {device_id}: applies to --tensorrt only; leave it out")
    if tensorrt:
        tf32.forbid()  # before torch loads the CUDA libraries
        if problem := why_unavailable("tensorrt", device_id):  # before minutes of export
            raise EngineError(f"no TensorRT engine can be built here: {problem}")
    if exported:
        out = run
    elif out is None:
        raise SettingsError(f"{run}: name the file to write: -o model.onnx")
    else:
        _export(run, out, reference, _reduction(precision, **reduction))
    if tensorrt:
        _build(out, batch_size, device_id)


def _export(run: Path, out: Path, pool: str | None, reduction: Reduction | None) -> None:
    from lloss.export.export_model import export_artifact
    from lloss.export.pool_sample import ReferenceSample
    from lloss.training.checkpoint import load_checkpoint  # torch: building an engine needs none

    reference = None if pool is None else ReferenceSample(pool=open_pool(pool))
    checkpoint = load_checkpoint(run)
    if checkpoint.path and out.exists() and out.samefile(checkpoint.path):
        raise SettingsError(f"-o {out}: is the checkpoint itself; choose another name")
    if not checkpoint.finished:
        epochs = checkpoint.settings.epochs
        print_notes(f"note: the run is not finished ({checkpoint.epoch} of {epochs} epochs)")
    manifest = export_artifact(checkpoint, out, reduction, print_notes, reference)
    click.echo(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, outputs {', '.join(manifest.outputs)}; "
        f"{_summary(manifest)}"
    )
    if reference:
        click.echo(f"reference: {manifest.reference}")


def _reduction(
    precision: str,
    calibrate: str | None,
    min_spearman: float,
    min_overlap: float,
    reduce_range: bool | None,
    **numbers: int,
) -> Reduction | None:
    if reduce_range is not None and precision != "int8":
        raise SettingsError(
            f"--reduce-range: applies to --precision int8, not to {precision}; leave it out"
        )
    if precision == "fp32":
        if calibrate is not None:
            raise SettingsError(
                "--calibrate: fp32 needs none; leave it out (--reference POOL stores the "
                "distribution of predicted losses)"
            )
        return None
    if calibrate is None:
        raise SettingsError(
            f"--precision {precision}: is compared with fp32 on images; add --calibrate POOL"
        )
    from lloss.export.precision import Reduction

    return Reduction(
        precision=precision,
        pool=open_pool(calibrate),
        limits=FidelityLimits(min_spearman=min_spearman, min_overlap=min_overlap),
        reduce_range=reduce_range,
        **numbers,
    )


def _summary(manifest: Manifest) -> str:
    fidelity = fidelity_text(manifest)
    if manifest.precision == "fp32":
        return fidelity
    instructions, times = manifest.recipe.get("instructions"), manifest.speed.get("times_fp32")
    cpus = f" for CPUs with {instructions}" if instructions else ""
    speed = f"; {times:.2g}× fp32 on this CPU" if times else ""
    return f"{manifest.precision}{cpus} {fidelity}{speed}"


def _build(path: Path, batch_size: int, device_id: int) -> None:
    """Start the engine of a scorer, which builds the TensorRT engine and keeps it on disk."""
    from lloss.serve.scoring.engine.engine import Engine  # needs onnxruntime

    begun = time.monotonic()
    engine = Engine(path, f"tensorrt:{device_id}", batch_size=batch_size)
    engine.close()
    seconds = time.monotonic() - begun
    click.echo(
        f"{path}: TensorRT engine for batches of 1 to {engine.batch_size}, ready in {seconds:.0f} s"
    )
