"""How long the best K of many scores take, beside reading the two columns with pyarrow.

    python benchmarks/select_scale.py --rows 100000000 --parts 10000 -k 10000
    python benchmarks/select_scale.py --rows 1000000 --parts 100 -k 10000 --dimensions 512

Writes made-up scores once, as ``lloss score`` writes them, then measures, alternating, each in a
process of its own: pyarrow reading ``id`` and ``loss`` of all parts, streaming, in two ways; and
``lloss select``. Prints a Markdown table with the medians, and their ratio to the faster reading.
With ``--dimensions`` the scores have embeddings, and the strategies that compare images are
measured beside reading these. The parts are in the page cache if it is large enough: this measures
decoding, not the disk.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lloss.scores.part_file import write_part
from lloss.scores.scores_folder import ScoresFolder, scores_table
from lloss.selection import SelectionSettings, select

COLUMNS = ["id", "loss"]
ORDERS = ("scattered", "by folder", "rising")
"""Where the high scores are: anywhere, in some folders of the pool, or at its end (the worst)."""


def reading(*columns: str) -> Callable[[list[str], int], int]:
    """pyarrow's dataset scanner: its own threads and readahead."""

    def run(parts: list[str], k: int) -> int:
        scanner = ds.dataset(parts, format="parquet").scanner(columns=[*COLUMNS, *columns])
        return sum(len(batch) for batch in scanner.to_batches())

    return run


def read_files(parts: list[str], k: int) -> int:
    """A part a thread, by row groups."""

    def rows(part: str) -> int:
        count = 0
        with pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                count += len(file.read_row_group(group, columns=COLUMNS, use_threads=False))
        return count

    with ThreadPoolExecutor(pa.cpu_count()) as threads:
        return sum(threads.map(rows, parts))


def selecting(exclude: int = 0, **settings: object) -> Callable[[list[str], int], int]:
    def run(parts: list[str], k: int) -> int:
        folder = ScoresFolder(Path(parts[0]).parent)
        known: Collection[str] = [_id(7 * row) for row in range(exclude)]
        return select(folder, SelectionSettings(k=k, **settings), known).pool

    return run


WORK = {
    "pyarrow, dataset scanner": reading(),
    "pyarrow, a part a thread": read_files,
    "lloss select, top": selecting(strategy="top"),
    "lloss select, top, 100,000 excluded": selecting(exclude=100_000, strategy="top"),
    "lloss select, top, of 100,000 at random": selecting(subset=100_000, strategy="top"),
    "lloss select, random": selecting(strategy="random"),
}

SPREADING = {
    "pyarrow, embeddings": reading("embedding"),
    "lloss select, power": selecting(strategy="power"),
    "lloss select, diverse": selecting(strategy="diverse"),
    "lloss select, herding": selecting(strategy="herding"),
    "lloss select, herding, 1,000 labeled": selecting(exclude=1000, strategy="herding"),
    "lloss select, coverage": selecting(strategy="coverage"),
}
"""Of scores with embeddings."""

_CLUSTERS = 1000


def _id(row: int) -> str:
    return f"n{row // 1300:08d}/img_{row:08d}.jpg"


def write(folder: Path, rows: int, parts: int, order: str, dimensions: int) -> None:
    random = np.random.default_rng(0)
    centers = random.normal(size=(_CLUSTERS, dimensions)).astype(np.float32)
    cuts = np.linspace(0, rows, parts + 1).astype(np.int64).tolist()
    for number, (start, end) in enumerate(pairwise(cuts)):
        loss = random.gamma(2.0, 1.0, end - start)
        if order == "by folder":
            loss *= np.random.default_rng(number).gamma(2.0, 1.0)
        elif order == "rising":
            loss += np.arange(start, end) / rows * 20
        ids = [_id(row) for row in range(start, end)]
        columns = {"loss": loss.astype(np.float32)}
        if dimensions:
            columns["embedding"] = _embeddings(random, centers, end - start)
        write_part(scores_table(ids, columns), folder / f"part-{number:05d}.parquet")


def _embeddings(
    random: np.random.Generator, centers: NDArray[np.float32], count: int
) -> NDArray[np.float32]:
    """Positive ones, as those of a network with ReLU are, in clusters of different sizes."""
    cluster = (random.random(count) ** 2 * len(centers)).astype(np.int64)
    noise = random.standard_normal((count, centers.shape[1]), np.float32)
    return np.maximum(centers[cluster] + 0.7 * noise, 0)


def measure(name: str, folder: Path, k: int) -> dict[str, float]:
    """Wall and CPU seconds, and peak memory, in a process of its own."""
    command = [sys.executable, __file__, "--worker", name, "--folder", str(folder), "-k", str(k)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def worker(name: str, folder: Path, k: int) -> None:
    parts = sorted(map(str, folder.glob("part-*.parquet")), key=lambda p: (len(p), p))
    wall, cpu = time.perf_counter(), time.process_time()
    rows = (WORK | SPREADING)[name](parts, k)
    found = {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        # KiB on Linux.
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": rows,
    }
    click.echo(json.dumps(found))


def table(found: dict[str, list[dict[str, float]]]) -> None:
    middle = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }
    reading = min(
        (row for name, row in middle.items() if name.startswith("pyarrow")),
        key=lambda row: row["wall"],
    )
    click.echo("| | seconds | of reading | CPU seconds | of reading | peak MiB |")
    click.echo("| --- | --: | --: | --: | --: | --: |")
    for name, row in middle.items():
        click.echo(
            f"| {name} | {row['wall']:.2f} | {row['wall'] / reading['wall']:.2f} "
            f"| {row['cpu']:.2f} | {row['cpu'] / reading['cpu']:.2f} | {row['peak']:.0f} |"
        )


@click.command()
@click.option("--rows", default=10_000_000)
@click.option("--parts", default=1000)
@click.option("-k", default=10_000)
@click.option("--repeats", default=3)
@click.option("--order", type=click.Choice(ORDERS), default=ORDERS[0])
@click.option("--dimensions", default=0, help="Of embeddings; 0: scores without.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([*WORK, *SPREADING]),
    help="Of the table's rows.",
)
@click.option("--folder", type=click.Path(path_type=Path, exists=True), hidden=True)
@click.option("--worker", "name", hidden=True)
def main(
    rows: int,
    parts: int,
    k: int,
    repeats: int,
    order: str,
    dimensions: int,
    only: tuple[str, ...],
    folder: Path | None,
    name: str | None,
) -> None:
    """Measure selection beside reading."""
    if name and folder:
        return worker(name, folder, k)
    with tempfile.TemporaryDirectory(prefix="lloss-select-") as temporary:
        written = time.perf_counter()
        write(Path(temporary), rows, parts, order, dimensions)
        size = sum(part.stat().st_size for part in Path(temporary).iterdir())
        click.echo(
            f"{rows:,} rows ({order}; {dimensions} dimensions) in {parts:,} parts, "
            f"{size / 1e6:,.0f} MB, written in "
            f"{time.perf_counter() - written:.0f} s; k = {k:,}; {pa.cpu_count()} threads; "
            f"Python {sys.version.split()[0]}, pyarrow {pa.__version__}, NumPy {np.__version__}; "
            f"medians of {repeats}\n"
        )
        found = defaultdict(list)
        for _ in range(repeats):
            for each in only or (SPREADING if dimensions else WORK):
                found[each].append(measure(each, Path(temporary), k))
        assert {run["rows"] for runs in found.values() for run in runs} == {rows}
        table(found)


if __name__ == "__main__":
    main()
