"""``lloss export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lloss.cli.info import fidelity_text
from lloss.cli.options import PATH, print_notes
from lloss.errors import SettingsError
from lloss.export.fidelity import FidelityLimits
from lloss.manifest import PRECISIONS, Manifest
from lloss.pools import open_pool

if TYPE_CHECKING:
    from lloss.export.export_model import Reduction


@click.command("export")
@click.argument("run", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="The ONNX file: model.onnx.")
@click.option(
    "--precision",
    type=click.Choice((*PRECISIONS, "auto")),
    default="fp32",
    help="fp16 is for GPUs, int8 for CPUs; both are compared with fp32. auto takes the one that "
    "this machine computes faster, and fp32 where it does not pass the comparison.",
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
def command(run: Path, out: Path, precision: str, reference: str | None, **reduction: Any) -> None:
    """Write network and head of a RUN as one ONNX file, checked against torch.

    Writes nothing if the check fails, or if a reduced precision does not rank images of the pool as
    fp32 does.
    """
    _export(run, out, reference, _reduction(precision, **reduction))


def _export(run: Path, out: Path, pool: str | None, reduction: Reduction | None) -> None:
    from lloss.export.export_model import export_onnx
    from lloss.export.pool_sample import ReferenceSample
    from lloss.training.checkpoint import load_checkpoint

    reference = None if pool is None else ReferenceSample(pool=open_pool(pool))
    checkpoint = load_checkpoint(run)
    if checkpoint.path and out.exists() and out.samefile(checkpoint.path):
        raise SettingsError(f"-o {out}: is the checkpoint itself; choose another name")
    if not checkpoint.finished:
        epochs = checkpoint.settings.epochs
        print_notes(f"note: the run is not finished ({checkpoint.epoch} of {epochs} epochs)")
    manifest = export_onnx(checkpoint, out, reduction, print_notes, reference)
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
    from lloss.export.export_model import make_reduction

    limits = FidelityLimits(min_spearman=min_spearman, min_overlap=min_overlap)
    options: dict[str, Any] = {**numbers, "limits": limits}
    if precision == "int8":
        options["reduce_range"] = reduce_range
    return make_reduction(precision, open_pool(calibrate), **options)


def _summary(manifest: Manifest) -> str:
    fidelity = fidelity_text(manifest)
    if manifest.precision == "fp32":
        return fidelity
    instructions, times = manifest.recipe.get("instructions"), manifest.speed.get("times_fp32")
    cpus = f" for CPUs with {instructions}" if instructions else ""
    processor = "GPU" if manifest.precision == "fp16" else "CPU"
    speed = f"; {times:.2g}× fp32 on this {processor}" if times else ""
    return f"{manifest.precision}{cpus} {fidelity}{speed}"
