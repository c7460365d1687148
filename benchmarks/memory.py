"""Peak memory of scoring, over the number of images in the pool.

    python benchmarks/memory.py [MODEL] --counts 10000,1000000

Without a model it makes an untrained narrow one, fast enough for a million images.
Each pool is scored by a process of its own, which prints its high-water mark at the end. Arrays are
sparse files, folders are full of hard links to a few files: only their number matters here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from PIL import Image
from subjects import untrained
from tqdm import tqdm

from lloss.manifest import read_manifest

PATH = click.Path(path_type=Path)

CHILD = """
import sys
from pathlib import Path
from lloss.pools import open_pool
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.scorer import Scorer
with Scorer(sys.argv[1], "cpu") as scorer:
    score_pool(scorer, open_pool(sys.argv[2]), Path(sys.argv[3]))
for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM"):
        print(int(line.split()[1]))
"""

_LINKS = 50_000
"""Below what file systems allow a file to have."""

_IN_A_FOLDER = 1_000


def array_pool(path: Path, count: int, height: int, width: int) -> Path:
    np.lib.format.open_memmap(path, "w+", np.uint8, (count, height, width, 3))
    return path


def folder_pool(path: Path, count: int, height: int, width: int) -> Path:
    noise = np.random.default_rng(0)
    for number in tqdm(range(count), "link files", disable=None, leave=False):
        folder = path / f"{number // _IN_A_FOLDER:06d}"
        if number % _IN_A_FOLDER == 0:
            folder.mkdir(parents=True)
        target = folder / f"{number:09d}.png"
        if number % _LINKS == 0:
            source = target
            Image.fromarray(noise.integers(0, 256, (height, width, 3), np.uint8)).save(source)
        else:
            os.link(source, target)
    return path


KINDS: dict[str, Callable[[Path, int, int, int], Path]] = {
    "array": array_pool,
    "folder": folder_pool,
}


def scored(model: Path, pool: Path, out: Path) -> tuple[float, float]:
    """Peak MiB and seconds."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(model), str(pool), str(out)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return int(done.stdout) / 1024, time.perf_counter() - begun


@click.command()
@click.argument("model", type=PATH, required=False)
@click.option("--counts", default="10000,1000000", show_default=True)
@click.option("--kind", type=click.Choice(list(KINDS)), multiple=True, default=list(KINDS))
def main(model: Path | None, counts: str, kind: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        measure(model or untrained(Path(scratch), "int8", "resnet10-cifar-narrow"), counts, kind)


def measure(model: Path, counts: str, kind: tuple[str, ...]) -> None:
    image = read_manifest(model).image
    click.echo("| pool | images | peak MiB | ÷ the first | images/s |\n|---|--:|--:|--:|--:|")
    for name in kind:
        first = 0.0
        for count in map(int, counts.split(",")):
            with tempfile.TemporaryDirectory() as scratch:
                place = Path(scratch) / ("pool.npy" if name == "array" else "pool")
                pool = KINDS[name](place, count, image.height, image.width)
                peak, seconds = scored(model, pool, Path(scratch) / "scores")
            first = first or peak
            click.echo(
                f"| {name} | {count:,} | {peak:.0f} | {peak / first:.2f} | {count / seconds:,.0f} |"
            )


if __name__ == "__main__":
    main()
