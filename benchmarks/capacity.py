"""How many machines, how long and how much storage a pool of a million to ten billion images takes.

    python benchmarks/scale_out.py --arrays FOLDER --json scale_out.json
    python benchmarks/capacity.py scale_out.json --out capacity.md
    python benchmarks/capacity.py scale_out.json --device 'L4, TensorRT fp16 = 2500'

Reads the rates that scale_out.py measured, measures on this machine what listing, merging and
selecting take for each image, and computes the rest. How far the model is to be trusted says its
prediction of the shards that scale_out.py measured, from the local run alone. ``--device`` adds the
images/s of another device, measured by yourself. ``--request-seconds`` is an assumption, and the
only one: how long a store takes to return 1,000 names.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from subjects import untrained
from tqdm import tqdm

from lloss.scores.merge import merge_shards
from lloss.scores.part_file import write_part
from lloss.scores.scores_folder import ScoresFolder, part_name, scores_table
from lloss.scores.shard_spec import Shard
from lloss.selection import SelectionSettings, select

PATH = click.Path(path_type=Path)
POOLS = (10**6, 10**8, 10**10)
PART = 10_000
DAY = 86_400
ID_BYTES = 8
"""Of memory for each id while ids are checked for duplicates: a hash."""
NAMES = 1000
"""That S3 returns in a response."""
LISTINGS = 2
"""Of a store's folder by a shard: for the images, and for the digest of ids that merge compares."""

MARK = {"images": 803_580, "GPUs": 8, "Daft 0.6.2": 263, "Ray Data 2.49.2": 1410,
        "Spark (EMR 7.10)": 2707}  # fmt: skip
"""Published by Daft's makers in October 2025 (daft.ai/blog/benchmarks-for-multimodal-ai-workloads):
ResNet-18 on 8 machines g6.xlarge, each of one L4 and 4 virtual cores; seconds."""


@dataclass(frozen=True)
class Measured:
    """What scale_out.py measured with one network; medians."""

    title: str
    images: int
    part_size: int
    cores: int
    core_rate: float  # images/s of a core while all of them score
    start: float  # seconds that a process takes besides scoring
    image_bytes: float
    row_bytes: Mapping[str, float]
    part_bytes: float
    shards: Mapping[int, float]  # seconds by their number

    @classmethod
    def of(cls, subject: Mapping[str, Any], cores: int) -> Measured:
        runs, images = subject["runs"], subject["images"]
        local = next(iter(runs.values()))
        shards = {
            int(name.split()[0]): median(run["wall"] for run in each)
            for name, each in runs.items()
            if " shard" in name
        }
        return cls(
            subject["title"], images, subject["part_size"], cores,
            median(run["rate"] for run in local) / cores,
            median(run["wall"] - images / run["rate"] for run in local),
            subject["image_bytes"], subject["row_bytes"], subject["part_bytes"], shards,
        )  # fmt: skip

    def predicted(self, shards: int) -> float:
        """Seconds of so many shards of one thread on this machine, from the local run alone.

        The shard of the most parts decides; more shards than cores share them, also while they
        start.
        """
        parts = -(-self.images // self.part_size)
        images = min(self.images, -(-parts // shards) * self.part_size)
        return max(1.0, shards / self.cores) * (self.start + images / self.core_rate)


@dataclass(frozen=True)
class Costs:
    """Measured seconds for each image, and for each part."""

    files: float  # listed in a folder
    table: float  # listed in a Parquet file
    merge_part: float
    merge_row: float
    select_row: float


# Measuring


def listing_seconds(model: Path, scratch: Path, kind: str, counts: tuple[int, int]) -> float:
    """What a shard takes for each image of the pool besides the images that it scores.

    Measured with ``lloss score`` of a shard of no part, in pools of two sizes.
    """
    seconds = []
    for count in counts:
        pool = scratch / f"{kind}-{count}"
        (_files if kind == "files" else _table)(pool, count)
        out = scratch / f"{kind}-{count}-scores"
        words = ["score", model, pool, "-o", out, "--shard=2/2", f"--part-size={count}"]
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "lloss", *map(str, words), "--provider=cpu", "--threads=1"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds.append(time.perf_counter() - begun)
        if done.returncode:
            raise click.ClickException(done.stderr)
    return max(0.0, seconds[1] - seconds[0]) / (counts[1] - counts[0])


def _files(folder: Path, count: int) -> None:
    """Empty files, a thousand in a folder: this shard reads none."""
    for number in range(count):
        if number % 1000 == 0:
            below = folder / f"{number // 1000:06d}"
            below.mkdir(parents=True)
        (below / f"{number:09d}.jpg").touch()


def _table(folder: Path, count: int) -> None:
    folder.mkdir()
    ids = [_id(number) for number in range(count)]
    images = pa.array([b""] * count, pa.binary())
    pq.write_table(pa.table({"id": ids, "image": images}), folder / "images.parquet")


def _id(number: int) -> str:
    return f"n{number // 1300:08d}/img_{number:08d}.jpg"


def made_up_shards(folder: Path, shards: int, parts: int, rows: int) -> list[Path]:
    """Finished shards of made-up scores: ``parts`` of ``rows`` each in every one."""
    random = np.random.default_rng(0)
    paths = [folder / str(index) for index in range(1, shards + 1)]
    for index, path in enumerate(paths, 1):
        path.mkdir(parents=True)
        for at in range(parts):
            number = Shard(index, shards).part(at)
            ids = [_id(number * rows + row) for row in range(rows)]
            loss = random.gamma(2.0, 1.0, rows).astype(np.float32)
            write_part(scores_table(ids, {"loss": loss}), path / part_name(number))
        counts = {"scored": parts * rows, "skipped": 0, "part_size": rows}
        run = {"state": "complete", "shard": f"{index}/{shards}", **counts}
        ScoresFolder(path).write_run(run)
    return paths


def merge_seconds(scratch: Path, parts: int, rows: int) -> tuple[float, float, float]:
    """For each part and for each row of a merge, and for each row of a selection."""
    found: list[tuple[float, int, int]] = []
    for name, count, size in (("few", parts // 10, rows), ("many", parts, rows // 10),
                              ("all", parts, rows)):  # fmt: skip
        shards = made_up_shards(scratch / name, 2, count, size)
        begun = time.perf_counter()
        merge_shards(shards, scratch / name / "whole")
        found.append((time.perf_counter() - begun, 2 * count, 2 * count * size))
    matrix = np.array([[1.0, parts, rows] for _, parts, rows in found])
    _, of_part, of_row = np.linalg.solve(matrix, [seconds for seconds, *_ in found])
    selecting = []
    for name in ("many", "all"):  # as many parts, of a tenth of the rows and of all
        begun = time.perf_counter()
        picked = select(
            ScoresFolder(scratch / name / "whole"),
            SelectionSettings(k=min(1000, rows), strategy="top"),
        )
        selecting.append((time.perf_counter() - begun, picked.pool))
    (less, few), (more, many) = selecting
    return max(0.0, of_part), max(0.0, of_row), max(0.0, more - less) / (many - few)


def measure(repeats: int, files: int, parts: int, rows: int) -> Costs:
    """Medians of what was measured."""
    found: list[tuple[float, ...]] = []
    with tempfile.TemporaryDirectory(prefix="lloss-capacity-") as folder:
        model = untrained(Path(folder), "fp32", "resnet10-cifar-narrow")
        for number in tqdm(range(repeats), "measure", disable=None, leave=False):
            scratch = Path(folder) / str(number)
            scratch.mkdir()
            counts = max(1, files // 10), files
            listed = [listing_seconds(model, scratch, kind, counts) for kind in ("files", "table")]
            found.append((*listed, *merge_seconds(scratch, parts, rows)))
    return Costs(*(median(each) for each in zip(*found)))


# The tables


def check_table(measured: Sequence[Measured]) -> list[str]:
    lines = ["| | shards | predicted, s | measured, s | error |", "|---|--:|--:|--:|--:|"]
    for each in measured:
        for count, seconds in each.shards.items():
            error = each.predicted(count) / seconds - 1
            lines.append(
                f"| {each.title}, {each.images:,} images | {count} | {each.predicted(count):.1f} "
                f"| {seconds:.1f} | {error:+.0%} |"
            )
    return lines


def device_table(devices: Mapping[str, float]) -> list[str]:
    """Images a day, and devices that score a pool in a day."""
    sizes = " | ".join(f"devices for {_unit(count, COUNTS)} a day" for count in POOLS)
    lines = [f"| device | images/s | images a day | {sizes} |", "|---|--:|--:|--:|--:|--:|"]
    for name, rate in devices.items():
        cells = [f"{rate:,.0f}", _unit(rate * DAY, COUNTS)]
        cells += [f"{math.ceil(count / (rate * DAY)):,}" for count in POOLS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def pool_table(measured: Sequence[Measured], costs: Costs, request: float) -> list[str]:
    """What a pool takes besides scoring."""
    lines = [f"| | {' | '.join(_unit(count, COUNTS) for count in POOLS)} |", "|---|--:|--:|--:|"]

    def row(name: str, value: Callable[[int], str]) -> None:
        lines.append(f"| {name} | {' | '.join(map(value, POOLS))} |")

    for each in measured:
        vectors = sum(size for name, size in each.row_bytes.items() if "embedding" in name)
        rest = sum(each.row_bytes.values()) - vectors
        row(
            f"images of {each.image_bytes:,.0f} bytes",
            lambda n, e=each: _unit(n * e.image_bytes, SIZES),
        )
        rest += each.part_bytes / PART
        row(f"scores of {each.title}", lambda n, size=rest: _unit(n * size, SIZES))
        if vectors:
            row(f"embeddings of {each.title}", lambda n, size=vectors: _unit(n * size, SIZES))
    row(f"parts of {PART:,}, each an upload", lambda n: f"{-(-n // PART):,}")
    row("listing files of a disk, each shard", lambda n: _unit(n * costs.files, TIMES))
    row("listing rows of Parquet, each shard", lambda n: _unit(n * costs.table, TIMES))
    row(
        f"listing a folder of a store, each shard ({NAMES:,} names in {request:g} s, {LISTINGS} "
        "times)",
        lambda n: _unit(LISTINGS * n / NAMES * request, TIMES),
    )
    row("merge", lambda n: _unit(n / PART * costs.merge_part + n * costs.merge_row, TIMES))
    row("memory of the merge to find ids that occur twice", lambda n: _unit(n * ID_BYTES, SIZES))
    row("select, highest K", lambda n: _unit(n * costs.select_row, TIMES))
    return lines


def mark_lines(measured: Sequence[Measured]) -> list[str]:
    """The published figures, and how many of our cores would equal them."""
    images, gpus = MARK["images"], MARK["GPUs"]
    measured = [each for each in measured if "resnet18" in each.title] or measured
    lines = [f"{images:,} images, ResNet-18, {gpus} machines of one L4 and 4 virtual cores, as "
             "published by Daft's makers:", "", "| | seconds | images/s of a GPU | "
             f"{' | '.join(f'cores: {each.title}' for each in measured)} |",
             f"|---|--:|--:|{'--:|' * len(measured)}"]  # fmt: skip
    for name, seconds in MARK.items():
        if name not in ("images", "GPUs"):
            rate = images / seconds
            cells = [f"{seconds:,}", f"{rate / gpus:,.0f}"]
            cells += [f"{rate / each.core_rate:,.0f}" for each in measured]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    note = (
        "Other images and machines than here: the last columns say how many cores of this "
        "machine score so many images a second, and nothing about GPUs."
    )
    return [*lines, "", note]


COUNTS = ((1e9, " billion"), (1e6, " million"), (1e3, " thousand"))
SIZES = ((1e15, " PB"), (1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"))
TIMES = ((DAY, " days"), (3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"))


def _unit(value: float, units: Sequence[tuple[float, str]]) -> str:
    """A value in the largest unit that is not larger than it, with three digits."""
    size, name = next((unit for unit in units if value >= unit[0]), (1, ""))
    return f"{value / size:,.0f}{name}" if value >= 100 * size else f"{value / size:.3g}{name}"


def report(
    measured: Sequence[Measured], devices: Mapping[str, float], costs: Costs, request: float
) -> str:
    cores = {f"a core, {each.title}": each.core_rate for each in measured}
    lines = ["Predicted from the local run, beside what the shards took:", ""]
    lines += [*check_table(measured), "", *device_table({**cores, **devices}), ""]
    lines += [*pool_table(measured, costs, request), ""]
    listed = {"files of a disk": costs.files, "rows of Parquet": costs.table,
              "a folder of a store": LISTINGS * request / NAMES}  # fmt: skip
    for each in measured:
        rate = each.core_rate * each.cores
        most = [f"{1 / (cost * rate):,.0f} ({name})" for name, cost in listed.items() if cost]
        lines.append(
            f"- {each.title}: machines of {each.cores} cores beyond which listing takes each "
            f"longer than scoring: {', '.join(most)}. From there on give each machine a part of "
            "the pool."
        )
    return "\n".join([*lines, "", *mark_lines(measured), ""])


def _device(text: str) -> tuple[str, float]:
    name, _, rate = text.rpartition("=")
    try:
        if not name.strip() or not float(rate) > 0:
            raise ValueError
    except ValueError:
        raise click.BadParameter(f"{text!r}: give NAME=IMAGES_PER_SECOND") from None
    return name.strip(), float(rate)


@click.command()
@click.argument("measured", type=click.Path(path_type=Path, exists=True))
@click.option("--device", "devices", multiple=True, help="NAME=IMAGES_PER_SECOND.")
@click.option("--request-seconds", default=0.1, show_default=True, help="For 1,000 names.")
@click.option("--files", default=200_000, show_default=True, help="To list.")
@click.option("--parts", default=200, show_default=True, help="Of each of two shards to merge.")
@click.option("--rows", default=PART, show_default=True, help="Of each part.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--out", type=PATH, help="Write the tables here, in Markdown.")
def main(
    measured: Path,
    devices: tuple[str, ...],
    request_seconds: float,
    out: Path | None,
    **sizes: int,
) -> None:
    """Compute machines, days and storage."""
    given = dict(map(_device, devices))
    content = json.loads(measured.read_text("utf-8"))
    found = [Measured.of(each, content["cores"]) for each in content["subjects"]]
    costs = measure(**sizes)
    text = f"{content['cpu']}, {content['cores']} cores\n\n"
    text += report(found, given, costs, request_seconds)
    click.echo(text)
    if out:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
