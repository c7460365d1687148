"""Throughput of actors and of shards, beside one process and beside Ray Data's own map_batches.

    python benchmarks/scale_out.py --arrays FOLDER --out scale_out.md --json scale_out.json
    python benchmarks/scale_out.py --model model.onnx --pool FOLDER --images 4000 --out scale_out.md

FOLDER of arrays holds images as ``*.npy``, uint8 [N, H, W, 3]; they become JPEG files of ``--size``
pixels, which an untrained narrow network and an untrained ResNet-18 score (speed does not depend on
weights). Needs Ray: ``pip install -c constraints.txt 'ray[data]'``. In every round each contestant
has its turn, in processes of its own, and writes Parquet; the tables hold medians of the rounds.

Starting Ray, Python and sessions takes seconds, whatever the number of images, and in the end not
every worker has a part: so there are two rates. One is by wall clock. The other is *while scoring*:
of ours between the times when every worker has written its first part and when the first of them
has written its last one; of map_batches, which has no parts, by the difference to a run of a few
images in the same process. What the wall clock shows beyond that is the fixed cost. Our files must
be those of the local run, byte for byte; the rows of map_batches, whose batches are others, must
have its ids and nearly its scores.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from lloss.export.speed_check import cpu_name
from numpy.typing import NDArray
from PIL import Image
from scale_out_report import Run, Subject, report
from scale_out_worker import busy_seconds
from subjects import exported, make_run
from tqdm import tqdm

from lloss.pools import open_pool
from lloss.runtime.cpu_count import usable_cores
from lloss.scores.scores_folder import ScoresFolder

PATH = click.Path(path_type=Path)
SHARDS = (1, 2, 4)
WORKER = str(Path(__file__).with_name("scale_out_worker.py"))
CLOSE = 1e-3
"""Relative difference of scores that other batches may make."""


@dataclass(frozen=True)
class Task:
    """What every contestant scores; ``cores`` is what it may use."""

    model: Path
    pool: Path
    images: int
    part_size: int
    cores: int


# The contestants: each writes below a folder, and says how long it took


def timed(commands: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Run commands beside each other: wall seconds, and core seconds of the whole machine."""
    busy, begun = busy_seconds(), time.perf_counter()
    running = [
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for words in commands
    ]
    errors = [process.communicate()[1] for process in running]
    seconds = time.perf_counter() - begun, busy_seconds() - busy
    for process, text in zip(running, errors):
        if process.returncode:
            raise click.ClickException(f"{process.args}: {text}")
    return seconds


def part_rate(workers: Sequence[Sequence[tuple[float, int]]]) -> float:
    """Images/s while all workers score; NaN where they never do at the same time.

    Args:
        workers: for each, when its parts were written, in seconds, and their images. A part is
            begun when the one before is written.
    """
    ordered = [sorted(parts) for parts in workers]
    begin = max(parts[0][0] for parts in ordered)
    end = min(parts[-1][0] for parts in ordered)
    if end <= begin:
        return math.nan
    scored = 0.0
    for parts in ordered:
        for (start, _), (stop, images) in pairwise(parts):
            inside = min(stop, end) - max(start, begin)
            scored += images * max(0.0, inside) / (stop - start)
    return scored / (end - begin)


def part_ends(folder: Path) -> list[tuple[float, int]]:
    """Of the parts of one worker."""
    paths = folder.glob("part-*.parquet")
    return [(p.stat().st_mtime_ns / 1e9, pq.read_metadata(p).num_rows) for p in paths]


def command(task: Task, out: Path, *more: str) -> list[str]:
    words = [sys.executable, "-m", "lloss", "score", task.model, task.pool, "-o", out]
    return [*map(str, words), "--provider=cpu", f"--part-size={task.part_size}", *more]


def score(task: Task, out: Path, local: Path) -> Run:
    """``lloss score`` on all cores."""
    wall, busy = timed([command(task, out)])
    return Run(wall, part_rate([part_ends(out)]), busy)


def score_on_ray(task: Task, out: Path, local: Path) -> Run:
    """``lloss score --on ray``; actors also note when they wrote a part."""
    notes = out.parent / "notes"
    words = command(task, out, "--on=ray", f"--ray-actors={task.cores}")[3:]
    wall, busy = timed([[sys.executable, WORKER, "parts", str(notes), *words]])
    check_same(out, local)
    workers: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for process, end, images in map(str.split, notes.read_text("ascii").splitlines()):
        workers[int(process)].append((float(end), int(images)))
    notes.unlink()
    return Run(wall, part_rate(list(workers.values())), busy)


def score_shards(task: Task, out: Path, local: Path, count: int) -> Run:
    """Processes of one thread, then the merge, whose result must be what ``local`` holds."""
    folders = [out / str(index) for index in range(1, count + 1)]
    shards = [f"--shard={index}/{count}" for index in range(1, count + 1)]
    wall, busy = timed([command(task, *pair, "--threads=1") for pair in zip(folders, shards)])
    whole = out / "whole"
    merge = [sys.executable, "-m", "lloss", "merge", *map(str, folders), "-o", str(whole)]
    merging, _ = timed([merge])
    check_same(whole, local)
    return Run(wall, part_rate(list(map(part_ends, folders))), busy, merging)


def score_by_ray_data(task: Task, out: Path, local: Path, decode: str) -> Run:
    """A pipeline of Ray Data around a Scorer; first of a few images, then of all."""
    few = copy_first(task.pool, out.parent / "few", task.cores)
    words = [decode, task.model, few, task.pool, out, task.cores]
    note = out.parent / "notes"
    wall, busy = timed([[sys.executable, WORKER, "rows", str(note), *map(str, words)]])
    first, first_busy, seconds = map(float, note.read_text("ascii").split())
    note.unlink()
    shutil.rmtree(few)
    rate = (task.images - task.cores) / (seconds - first) if seconds > first else math.nan
    return Run(wall - first, rate, busy - first_busy,
               differing=differing_rows(out, local, task.pool))  # fmt: skip


def contestants() -> dict[str, Callable[[Task, Path, Path], Run]]:
    """By name; the first one makes the scores that the others are compared with."""
    return {
        "lloss score": score,
        "lloss score --on ray": score_on_ray,
        "Ray Data, map_batches(Scorer)": partial(score_by_ray_data, decode="in-actors"),
        "Ray Data, decoding in tasks": partial(score_by_ray_data, decode="in-tasks"),
        **{
            f"{count} shard{'s' * (count > 1)} of one thread": partial(score_shards, count=count)
            for count in SHARDS
        },
    }


# Are the scores the same?


def check_same(folder: Path, local: Path) -> None:
    """Refuse files that are not those of the local run."""
    found, expected = ({p.name: p.read_bytes() for p in f.iterdir()} for f in (folder, local))
    if found != expected:
        other = sorted(n for n in found | expected if found.get(n) != expected.get(n))
        raise click.ClickException(f"{folder}: other bytes than the local run: {', '.join(other)}")


def differing_rows(found: Path, local: Path, pool: Path) -> int:
    """Count the rows whose bytes are not the local run's; refuse other ids or scores far off."""
    scores = ScoresFolder(local)
    names = [name for name in scores.columns() if name != "id"]
    expected = pa.Table.from_batches(scores.scan(["id", *names])).sort_by("id")
    table = ds.dataset(found, format="parquet").to_table()
    ids = [os.path.relpath(path, pool) for path in table["path"].to_pylist()]
    table = table.append_column("id", pa.array(ids)).sort_by("id")
    if table["id"].to_pylist() != expected["id"].to_pylist():
        raise click.ClickException(f"{found}: other images than in the local run")
    differs = np.zeros(len(table), bool)
    for name in names:
        one, two = (_rows(each[name]) for each in (table, expected))
        if not np.allclose(one, two, CLOSE, CLOSE * float(np.abs(two).max())):
            raise click.ClickException(f"{found}: other values of {name} than in the local run")
        differs |= (one.view(np.uint32) != two.view(np.uint32)).any(axis=1)
    return int(differs.sum())


def _rows(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of numbers or of lists, float32 [N, ...]."""
    values = pa.concat_arrays([getattr(chunk, "storage", chunk) for chunk in column.chunks])
    if not pa.types.is_floating(values.type):
        values = values.flatten()
    rows: NDArray[np.float32] = values.to_numpy(zero_copy_only=False).astype(np.float32)
    return rows.reshape(len(column), -1)


# Images and networks


def write_jpegs(arrays: Path, folder: Path, count: int, size: int) -> NDArray[np.uint8]:
    """Write images of arrays as JPEG files; return the first of them, as they are."""
    found = [np.load(path, mmap_mode="r") for path in sorted(arrays.glob("*.npy"))]
    images = np.concatenate([each[:count] for each in found if each.ndim == 4])[:count]
    if len(images) < count:
        raise click.ClickException(f"{arrays}: holds {len(images)} images; give fewer --images")
    folder.mkdir()

    def write(number: int) -> None:
        image = Image.fromarray(images[number]).resize((size, size), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:06d}.jpg", quality=90)

    with ThreadPoolExecutor(usable_cores()) as threads:
        list(tqdm(threads.map(write, range(count)), "write JPEG files", count, disable=None))
    return images[:64]


def copy_first(pool: Path, folder: Path, count: int) -> Path:
    """Copy the first images of a folder, under new names."""
    folder.mkdir()
    for number, item in zip(range(count), open_pool(pool)):
        path = Path(os.fsdecode(item.file or b""))
        shutil.copyfile(path, folder / f"{number:06d}{path.suffix}")
    return folder


def untrained(folder: Path, network: str, size: int, pool: Path, precision: str) -> Path:
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, size, size, 3), np.uint8)
    return exported(make_run(folder, network, size, noise), folder / "model.onnx", precision, pool)


def tasks(scratch: Path, options: Mapping[str, Any], cores: int) -> Iterator[tuple[str, Task]]:
    """The tasks with their titles."""
    pool, model, count = options["pool"], options["model"], options["images"]

    def task(model: Path, pool: Path, name: str, count: int) -> Task:
        some = copy_first(pool, scratch / name, count)
        found = sum(1 for _ in some.iterdir())
        return Task(model, some, found, -(-found // options["parts"]), cores)

    if pool is None:
        if options["arrays"] is None:
            raise click.UsageError("give --arrays or --pool")
        pool = scratch / "jpeg"
        write_jpegs(options["arrays"], pool, max(count, options["large_images"]), options["size"])
    if model is not None:
        yield str(model), task(model, pool, "some", count)
        return
    for network, size, number in (
        ("resnet10-cifar-narrow", 32, count), ("resnet18", 224, options["large_images"]),
    ):  # fmt: skip
        model = untrained(scratch / network, network, size, pool, options["precision"])
        title = f"{network} at {size} pixels, {options['precision']}"
        yield title, task(model, pool, f"{network}-pool", number)


def part_sizes(local: Path) -> tuple[dict[str, float], float]:
    """Bytes of a row in each column of the parts, and of all else that a part holds."""
    columns: dict[str, float] = defaultdict(float)
    paths = list(local.glob("part-*.parquet"))
    files = [pq.read_metadata(path) for path in paths]
    rows = sum(file.num_rows for file in files)
    for file in files:
        for group in map(file.row_group, range(file.num_row_groups)):
            for chunk in map(group.column, range(group.num_columns)):
                columns[chunk.path_in_schema.partition(".")[0]] += chunk.total_compressed_size
    rest = sum(path.stat().st_size for path in paths) - sum(columns.values())
    return {name: size / rows for name, size in columns.items()}, rest / len(paths)


def measure(title: str, task: Task, repeats: int, only: Sequence[str], scratch: Path) -> Subject:
    every = contestants()
    names = [name for name in every if not only or name in only or name == next(iter(every))]
    runs: dict[str, list[Run]] = {name: [] for name in names}
    size = sum(path.stat().st_size for path in task.pool.iterdir()) / task.images
    with tqdm(total=repeats * len(names), disable=None, leave=False) as bar:
        for _ in range(repeats):
            for name in names:
                bar.set_description(name)
                out = scratch / ("local" if name == names[0] else "other")
                runs[name].append(every[name](task, out, scratch / "local"))
                shutil.rmtree(scratch / "other", ignore_errors=True)
                bar.update()
            sizes = part_sizes(scratch / "local")
            shutil.rmtree(scratch / "local")
    return Subject(title, task.images, task.part_size, size, *sizes, runs)


@click.command()
@click.option("--arrays", type=PATH, help="Folder of .npy files to make the images of.")
@click.option("--pool", type=PATH, help="A folder of image files instead.")
@click.option("--model", type=PATH, help="An exported model instead of the two.")
@click.option("--images", default=10_000, show_default=True, help="For the small network or MODEL.")
@click.option("--large-images", default=192, show_default=True, help="For the ResNet-18.")
@click.option("--size", default=224, show_default=True, help="Side of the JPEG files in pixels.")
@click.option("--parts", default=16, show_default=True, help="Of each pool; a multiple of 4.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "int8"]), default="fp32")
@click.option("--only", multiple=True, help="Contestants by name; the local run is always there.")
@click.option("--out", type=PATH, help="Write the tables here, in Markdown.")
@click.option("--json", "figures", type=PATH, help="Write all figures, for capacity.py.")
def main(
    repeats: int,
    only: tuple[str, ...],
    out: Path | None,
    figures: Path | None,
    **options: Any,
) -> None:
    """Measure actors and shards."""
    cores = usable_cores()
    unknown = set(only) - set(contestants())
    if unknown:
        raise click.UsageError(f"--only {unknown.pop()!r}: give {', '.join(contestants())}")
    found: list[Subject] = []
    with tempfile.TemporaryDirectory(prefix="lloss-scale-") as folder:
        scratch = Path(folder)
        for title, task in tasks(scratch, options, cores):
            found.append(measure(title, task, repeats, only, scratch))
            text = report(found, cpu_name(), cores, repeats)
            content = {"cpu": cpu_name(), "cores": cores, "subjects": list(map(asdict, found))}
            if out:
                out.write_text(text, encoding="utf-8")
            if figures:
                figures.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
