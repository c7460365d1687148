"""What each precision costs in ranks and gains in speed, on the CPU.

    python benchmarks/int8_fidelity.py RUN POOL [--held-out 8000]

RUN is a folder of ``lloss train``, POOL anything that ``lloss score`` reads. Prints a Markdown
table. Images per second are those of a bare ``session.run`` on images at hand, the graphs taking
turns, the best of all turns; torch runs the same network eagerly.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from lloss.export.export_model import export_onnx
from lloss.export.fidelity import FidelityLimits
from lloss.export.graph import ScoringGraph
from lloss.export.pool_sample import batches
from lloss.export.precision import ReducedPrecision
from numpy.typing import NDArray

from lloss.errors import FidelityError
from lloss.manifest import INPUT, Manifest, read_manifest
from lloss.pools import open_pool
from lloss.runtime.int8_support import open_cpu_session
from lloss.training.checkpoint import Checkpoint, load_checkpoint


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("pool")
@click.option("--held-out", default=2000, show_default=True)
@click.option("--batch", default=128, show_default=True)
@click.option("--turns", default=7, show_default=True)
def main(run: Path, pool: str, held_out: int, batch: int, turns: int) -> None:
    """Export RUN in every precision, compare on POOL, time."""
    checkpoint = load_checkpoint(run)
    opened = open_pool(pool)
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for precision in ("fp32", "fp16", "int8"):
            path = Path(folder) / f"{precision}.onnx"
            reduction = None
            if precision != "fp32":
                reduction = ReducedPrecision(
                    precision=precision, pool=opened, held_out=held_out, limits=FidelityLimits()
                )
            try:
                export_onnx(checkpoint, path, reduction, lambda line: click.echo(line, err=True))
            except FidelityError as error:
                click.echo(f"{precision}: {error}", err=True)
                continue
            files[precision] = path
        spec = read_manifest(files["fp32"]).image
        sample = ReducedPrecision(precision="fp16", pool=opened).sample.held_out[:batch]
        ((_, images),) = batches(sample, spec, "read", size=batch)
        speeds = timed(runners(checkpoint, files, images), len(images), turns)
        click.echo("| | Spearman | top 10% | largest difference | MB | images/s |")
        click.echo("|---|---|---|---|---|---|")
        click.echo(f"| torch eager | | | | | {speeds['torch eager']:.0f} |")
        for precision, path in files.items():
            click.echo(row(read_manifest(path), path, speeds[precision]))


def row(manifest: Manifest, path: Path, speed: float) -> str:
    measured = manifest.fidelity.get("fp32")
    figures = " | | |"
    if measured:
        figures = (
            f" {measured['spearman']:.5f} | {measured['top_decile_overlap']:.3f} "
            f"| {measured['max_abs_difference']:.2g} |"
        )
    return f"| {manifest.precision} |{figures} {path.stat().st_size / 1e6:.1f} | {speed:.0f} |"


def runners(
    checkpoint: Checkpoint, files: dict[str, Path], images: NDArray[np.uint8]
) -> dict[str, Callable[[], object]]:
    settings = checkpoint.settings
    graph = ScoringGraph(checkpoint.network(), settings.mean, settings.std).eval()
    tensor = torch.from_numpy(images)

    def eager() -> object:
        with torch.inference_mode():
            return graph(tensor)

    made: dict[str, Callable[[], object]] = {"torch eager": eager}
    for precision, path in files.items():
        session = open_cpu_session(str(path))
        made[precision] = lambda session=session: session.run(None, {INPUT: images})  # type: ignore[misc]
    return made


def timed(made: dict[str, Callable[[], object]], images: int, turns: int) -> dict[str, float]:
    best = dict.fromkeys(made, float("inf"))
    for _ in range(turns):
        for name, run in made.items():
            started = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - started)
    return {name: images / seconds for name, seconds in best.items()}


if __name__ == "__main__":
    main()
