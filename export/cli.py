"""``lloss export``."""

from __future__ import annotations

from pathlib import Path

import click

from lloss.errors import SettingsError
from lloss.providers import DEVICE_BATCH

from .tensorrt import build_engine, check_tensorrt

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=PATH, metavar="RUN")
@click.option("-o", "--out", type=PATH, help="The artifact, such as model.onnx.")
@click.option(
    "--tensorrt", is_flag=True, help="Then build its TensorRT engine for this machine's GPU."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=DEVICE_BATCH,
    show_default=True,
    help="Of the TensorRT engine: that which lloss score will use.",
)
def export(run: Path, out: Path | None, tensorrt: bool, batch_size: int) -> None:
    """Write network and head of a RUN as one ONNX file, checked against torch.

    Nothing is written when the check fails. With --tensorrt, RUN can also be an artifact that was
    exported before; building an engine for it needs no torch.
    """
    if tensorrt:
        check_tensorrt()  # before minutes of export
    if tensorrt and out is None and run.suffix == ".onnx":
        out = run
    elif out is None:
        raise SettingsError(f"{run}: say where the artifact goes, such as -o model.onnx")
    else:
        _export(run, out)
    if tensorrt:
        _build(out, batch_size)


def _export(run: Path, out: Path) -> None:
    from lloss.checkpoint import load_checkpoint  # torch: an engine is built without

    from .artifact import export_artifact

    checkpoint = load_checkpoint(run)
    if not checkpoint.finished:
        epochs = checkpoint.settings.epochs
        click.echo(
            f"note: the run is not finished ({checkpoint.epoch} of {epochs} epochs)", err=True
        )
    manifest = export_artifact(checkpoint, out)
    difference = manifest.fidelity["torch_parity"]["max_abs_difference"]["loss"]
    click.echo(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, outputs {', '.join(manifest.outputs)}; "
        f"predicted loss within {difference:.1e} of torch"
    )


def _build(path: Path, batch_size: int) -> None:
    built = build_engine(path, batch_size)
    size = sum(file.stat().st_size for file in built.files)
    batches = ", ".join(map(str, built.buckets))
    click.echo(
        f"{built.cache.engines}: TensorRT engine of {size / 1e6:.1f} MB for batches of {batches}, "
        f"built in {built.seconds:.0f} s"
    )
