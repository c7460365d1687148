"""``lloss export``."""

from __future__ import annotations

from pathlib import Path

import click

from lloss.checkpoint import load_checkpoint

from .artifact import export_artifact

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="The artifact, such as model.onnx.")
def export(run: Path, out: Path) -> None:
    """Write network and head of a RUN as one ONNX file, checked against torch.

    Nothing is written when the check fails.
    """
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
