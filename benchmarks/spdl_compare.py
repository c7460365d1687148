"""SPDL beside our own decoding loop: batches a second, pixels, broken images, order.

    pip install spdl-core spdl-io
    python benchmarks/spdl_compare.py [--png 10000] [--jpeg 2000] [--rounds 3]

Makes the files itself in a temporary folder. Every contestant reads the files, decodes them in two
threads and yields batches ``uint8 [64, H, W, 3]`` with their ids. SPDL's own decoder needs the
shared libraries of FFmpeg; without them only its pipeline is measured, over our decoder.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from decoding_speed import encoded, picture
from numpy.typing import NDArray

from lloss.data.decode_ahead import decoded
from lloss.errors import ImageError
from lloss.images.decode import ImageSpec, decode, decode_into
from lloss.pools import Item, open_pool

try:
    import spdl.io
    from spdl.pipeline import PipelineBuilder
except ImportError as missing:
    raise SystemExit(f"{missing}: pip install spdl-core spdl-io") from None

BATCH = 64
THREADS = 2
Batch = tuple[list[str], NDArray[np.uint8]]
Loader = Callable[[Path, ImageSpec], Iterator[Batch]]


def ours(folder: Path, spec: ImageSpec) -> Iterator[Batch]:
    stream = decoded(open_pool(folder), spec, THREADS)
    while chunk := list(itertools.islice(stream, BATCH)):
        good = [(id, pixels) for id, pixels in chunk if not isinstance(pixels, ImageError)]
        yield [id for id, _ in good], np.stack([pixels for _, pixels in good])


def _one(item: Item, spec: ImageSpec) -> tuple[str, NDArray[np.uint8]] | None:
    try:
        return item.id, decode(item.read(), spec)
    except ImageError:
        return None


def _many(items: list[Item], spec: ImageSpec) -> Batch:
    batch = np.empty((len(items), spec.height, spec.width, 3), np.uint8)
    ids: list[str] = []
    for item in items:
        try:
            decode_into(item.read(), spec, batch[len(ids)])
        except ImageError:
            continue
        ids.append(item.id)
    return ids, batch[: len(ids)]


def _run(builder: Any) -> Iterator[Batch]:
    pipeline = builder.add_sink(3).build(num_threads=THREADS)
    with pipeline.auto_stop():
        yield from pipeline.get_iterator(timeout=60)


def spdl_pipeline_by_image(folder: Path, spec: ImageSpec) -> Iterator[Batch]:
    def collated(rows: list[tuple[str, NDArray[np.uint8]]]) -> Batch:
        return [id for id, _ in rows], np.stack([pixels for _, pixels in rows])

    yield from _run(
        PipelineBuilder()
        .add_source(open_pool(folder))
        .pipe(lambda item: _one(item, spec), concurrency=THREADS, output_order="input")
        .aggregate(BATCH)
        .pipe(collated)
    )


def _lists(folder: Path) -> Iterator[list[Item]]:
    items = iter(open_pool(folder))
    while chunk := list(itertools.islice(items, BATCH)):
        yield chunk


def spdl_pipeline_by_batch(folder: Path, spec: ImageSpec) -> Iterator[Batch]:
    yield from _run(
        PipelineBuilder()
        .add_source(_lists(folder))
        .pipe(lambda items: _many(items, spec), concurrency=THREADS, output_order="input")
    )


def _filter(spec: ImageSpec) -> str | None:
    return spdl.io.get_video_filter_desc(
        scale_width=spec.width,
        scale_height=spec.height,
        scale_algo="bilinear",
        scale_mode="crop",
        crop_width=spec.width,
        crop_height=spec.height,
        pix_fmt="rgb24",
    )


def spdl_all(folder: Path, spec: ImageSpec, strict: bool = False) -> Iterator[Batch]:
    """SPDL's decoder in SPDL's pipeline: a batch of files at a time."""
    desc = _filter(spec)

    def load(items: list[Item]) -> Batch:
        paths = [str(folder / item.id) for item in items]
        buffer = spdl.io.load_image_batch(
            paths, width=None, height=None, filter_desc=desc, strict=strict
        )
        return [item.id for item in items], spdl.io.to_numpy(buffer)

    yield from _run(
        PipelineBuilder()
        .add_source(open_pool(folder))
        .aggregate(BATCH)
        .pipe(load, concurrency=THREADS, output_order="input")
    )


def _write(folder: Path, kind: str, count: int) -> ImageSpec:
    folder.mkdir()
    options = {"quality": 85} if kind == "jpeg" else {}
    image = picture(32, 32) if kind == "png" else picture(375, 500)
    variants = [encoded(np.roll(image, 7 * n, 1), kind.upper(), **options) for n in range(10)]
    for number in range(count):
        (folder / f"{number:06}.{kind}").write_bytes(variants[number % 10])
    return ImageSpec(32, 32) if kind == "png" else ImageSpec(224, 224)


def _rate(loader: Loader, folder: Path, spec: ImageSpec) -> tuple[float, float]:
    """Batches a second, and a CPU-second."""
    began, burnt = time.perf_counter(), time.process_time()
    batches = sum(1 for _ in loader(folder, spec))
    return batches / (time.perf_counter() - began), batches / (time.process_time() - burnt)


def _differences(folder: Path, spec: ImageSpec) -> str:
    items = list(itertools.islice(open_pool(folder), 10))
    whole: list[int] = []
    for item in items:
        path = str(folder / item.id)
        theirs = spdl.io.to_numpy(spdl.io.load_image(path, filter_desc=_filter(spec)))
        gap = np.abs(theirs.astype(int) - decode(item.read(), spec)).ravel()
        whole.extend(gap.tolist())
    gaps = np.array(whole)
    return (
        f"{(gaps > 0).mean():.1%} of the values differ from Pillow's, the largest by {gaps.max()}, "
        f"by {gaps.mean():.2f} in the mean"
    )


def _with_a_broken_image(folder: Path, spec: ImageSpec, loader: Loader) -> str:
    """What becomes of 100 files of which the 11th is cut off."""
    names = sorted(path.name for path in folder.iterdir())
    try:
        batches = list(loader(folder, spec))
    except Exception as error:  # whatever it raises is the answer
        return f"the run ends: {' '.join(str(error).split())[:100]}"
    ids = [id for ids, _ in batches for id in ids]
    rows = sum(len(pixels) for _, pixels in batches)
    order = "in order" if ids == [name for name in names if name in ids] else "out of order"
    return f"{rows} rows of 99 good images, {len(ids)} ids, {order}"


def _have_ffmpeg() -> bool:
    try:
        spdl.io.load_image(encoded(picture(8, 8), "PNG"))
    except RuntimeError as error:
        print(f"SPDL's own decoder is not measured: {str(error)[:120]}")
        return False
    return True


@click.command()
@click.option("--png", type=int, default=10_000, show_default=True, help="32×32 files.")
@click.option("--jpeg", type=int, default=2_000, show_default=True, help="500×375 files.")
@click.option("--rounds", type=int, default=3, show_default=True, help="The best one counts.")
def main(png: int, jpeg: int, rounds: int) -> None:
    """Print batches of 64 a second of each, and what it does to pixels, order and broken files."""
    logging.disable(logging.CRITICAL)  # SPDL logs a traceback for each broken file
    loaders: dict[str, Loader] = {
        "lloss.data.decode_ahead.decoded": ours,
        "SPDL pipeline, our decoder, image by image": spdl_pipeline_by_image,
        "SPDL pipeline, our decoder, batch by batch": spdl_pipeline_by_batch,
    }
    if have_ffmpeg := _have_ffmpeg():
        loaders["SPDL pipeline and decoder"] = spdl_all
        loaders["the same, strict"] = lambda folder, spec: spdl_all(folder, spec, strict=True)
    with tempfile.TemporaryDirectory() as scratch:
        for kind, count in (("png", png), ("jpeg", jpeg)):
            folder = Path(scratch) / kind
            spec = _write(folder, kind, count)
            print(f"\n| {kind}, {count} files | batches/s | batches/CPU-s |\n|---|---|---|")
            best = dict.fromkeys(loaders, (0.0, 0.0))
            for name in [*loaders] * rounds:  # in turn, so that a busy minute hits all of them
                found = _rate(loaders[name], folder, spec)
                best[name] = (max(best[name][0], found[0]), max(best[name][1], found[1]))
            for name, (wall, cpu) in best.items():
                print(f"| {name} | {wall:,.1f} | {cpu:,.1f} |")
            if have_ffmpeg:
                print(f"\nSPDL's {kind}: {_differences(folder, spec)}")
            few = Path(scratch) / f"{kind}-broken"
            _write(few, kind, 100)
            broken = few / f"000010.{kind}"
            broken.write_bytes(broken.read_bytes()[:500])
            for name, loader in loaders.items():
                print(f"one cut file, {name}: {_with_a_broken_image(few, spec, loader)}")


if __name__ == "__main__":
    main()
