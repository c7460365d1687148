"""Measure how fast images decode: lloss, Pillow's own decoder, and simplejpeg.

    python benchmarks/decoding_speed.py [--seconds 1.5] [--only jpeg]

Creates its images: a noisy gradient as a 32×32 PNG file (2 kB), as a 500×375 JPEG file of
quality 85 (46 kB) that becomes 224×224, and as a 224×224 JPEG file that stays so. Prints images per
CPU-second and per second, with one thread and with two. ``simplejpeg`` is measured if installed.
Compare rows of one run only; images per CPU-second depend less on other processes.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lloss.images.decode import ImageSpec, decode, decode_into

Work = Callable[[], Any]
ROUNDS = 15


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Return a gradient with noise, which compresses like a photograph."""
    y, x = np.mgrid[0:height, 0:width]
    planes = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], 2)
    noise = np.random.default_rng(0).normal(0, 10, planes.shape)
    return (planes + noise).clip(0, 255).astype(np.uint8)


def encoded(image: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def rates(work: Work, threads: int, seconds: float) -> tuple[float, float]:
    """Return images per CPU-second and per second, the best of several rounds."""
    count = 1
    while (took := _timed(work, count)) < seconds / ROUNDS / 4:
        count *= 2
    count = max(1, int(count * seconds / ROUNDS / took / threads))
    cpu = wall = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(ROUNDS):
            began, burnt = time.perf_counter(), time.process_time()
            for done in [pool.submit(_timed, work, count) for _ in range(threads)]:
                done.result()
            wall = min(wall, time.perf_counter() - began)
            cpu = min(cpu, time.process_time() - burnt)
    return count * threads / cpu, count * threads / wall


def _timed(work: Work, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        work()
    return time.perf_counter() - began


def plain(raw: bytes, spec: ImageSpec) -> NDArray[np.uint8]:
    """Decode as with plain Pillow."""
    with Image.open(io.BytesIO(raw)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    size = (spec.width, spec.height)
    return np.asarray(ImageOps.fit(upright, size, Image.Resampling.BILINEAR))


def floor(raw: bytes) -> None:
    """Pillow's decoder alone."""
    Image.open(io.BytesIO(raw)).load()


def contestants(raw: bytes, spec: ImageSpec, kind: str) -> dict[str, Work]:
    row = np.empty((spec.height, spec.width, 3), np.uint8)
    work: dict[str, Work] = {
        "lloss decode_into": lambda: decode_into(raw, spec, row),
        "lloss decode": lambda: decode(raw, spec),
        "plain Pillow": lambda: plain(raw, spec),
        "Pillow, open and load alone": lambda: floor(raw),
    }
    if kind != "png":
        with contextlib.suppress(ImportError):
            decode_jpeg = importlib.import_module("simplejpeg").decode_jpeg
            work["simplejpeg, then ours"] = lambda: decode(decode_jpeg(raw), spec)
    return work


@click.command()
@click.option("--seconds", type=float, default=1.5, show_default=True, help="Of each measurement.")
@click.option("--only", type=click.Choice(["png", "jpeg", "fitting"]), help="One kind.")
def main(seconds: float, only: str | None) -> None:
    """Print a Markdown table for each kind of image."""
    kinds = {
        "png": ("32×32 PNG", encoded(picture(32, 32), "PNG"), ImageSpec(32, 32)),
        "jpeg": (
            "500×375 JPEG → 224×224",
            encoded(picture(375, 500), "JPEG", quality=85),
            ImageSpec(224, 224),
        ),
        "fitting": (
            "224×224 JPEG",
            encoded(picture(224, 224), "JPEG", quality=85),
            ImageSpec(224, 224),
        ),
    }
    for kind, (title, raw, spec) in kinds.items():
        if only not in (None, kind):
            continue
        print(
            f"\n| {title} ({len(raw)} bytes) | img/CPU-s | img/s | 2 threads: img/CPU-s | img/s |"
        )
        print("|---|---|---|---|---|")
        for name, work in contestants(raw, spec, kind).items():
            cells = [*rates(work, 1, seconds), *rates(work, 2, seconds)]
            print(f"| {name} |" + "".join(f" {cell:,.0f} |" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
