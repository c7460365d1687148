"""How fast a CPU scores a pool, against what a user would write and against the bare engine.

    python benchmarks/scoring_speed.py --png FOLDER --npy FILE --run RUN --int8 MODEL

Without these it makes images and an untrained network itself (speed does not depend on weights).
Every contestant has its turn in every round; the table holds medians of the rounds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime as ort
import torch
from lloss.export.speed_check import cpu_name
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.scorer import Scorer
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from subjects import exported, make_jpeg, make_png, make_run
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lloss.images.decode import decode_into
from lloss.manifest import INPUT
from lloss.modeling.network import Normalize
from lloss.pools import open_pool
from lloss.training.checkpoint import Checkpoint, load_checkpoint

PATH = click.Path(path_type=Path)
Turn = Callable[[], float]
"""Does its work once and returns images a second."""


# What a user would write


class Files(Dataset[Any]):
    """PNG files of the network's size, as float [3, H, W] in 0..1."""

    def __init__(self, folder: Path, count: int) -> None:
        self.paths = list(itertools.islice(sorted(folder.rglob("*.png")), count))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        with Image.open(self.paths[row]) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))


class Array(Dataset[Any]):
    """Rows of a ``.npy`` file."""

    def __init__(self, path: Path, count: int) -> None:
        self.images = np.load(path, mmap_mode="r")[:count]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(np.array(self.images[row]))


class Loop(nn.Module):
    """Normalisation, network and head in eager PyTorch."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.normalize = Normalize(checkpoint.settings.mean, checkpoint.settings.std)
        self.model = checkpoint.network()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        predicted: torch.Tensor = self.model(self.normalize(images)).loss
        return predicted


def torch_loop(network: Any, data: Dataset[Any], batch: int, workers: int) -> float:
    loader = DataLoader(data, batch, num_workers=workers)
    begun = time.perf_counter()
    with torch.inference_mode():
        losses = [network(images) for images in loader]
    assert sum(map(len, losses)) == len(data)  # type: ignore[arg-type]
    return len(data) / (time.perf_counter() - begun)  # type: ignore[arg-type]


def best_loop(network: Any, make: Callable[[int], Dataset[Any]], tried: int) -> tuple[int, int]:
    """Its best batch size and number of workers, on a few images."""
    data = make(tried)
    choices = list(itertools.product((32, 128, 256), (0, 1, 2)))
    rates = {choice: torch_loop(network, data, *choice) for choice in choices}
    best = max(rates, key=lambda choice: rates[choice])
    click.echo(f"torch's best batch size and workers: {best[0]}, {best[1]}", err=True)
    return best


# The limits: what the cores can multiply, and the engine on images that are in memory


def matmul_rate(kind: type, seconds: float = 4.0) -> float:
    """Operations a second of a large product on all cores, at its best.

    ``np.float32`` by PyTorch or by onnxruntime, whichever is faster; ``np.uint8`` times int8 by
    onnxruntime.
    """
    side = 2048
    op, other = ("MatMul", np.float32) if kind is np.float32 else ("MatMulInteger", np.int8)
    a, b = np.ones((side, side), kind), np.ones((side, side), other)
    number = helper.np_dtype_to_tensor_dtype(a.dtype)
    shape = [side, side]
    result = TensorProto.FLOAT if kind is np.float32 else TensorProto.INT32
    graph = helper.make_graph(
        [helper.make_node(op, ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", number, shape)],
        [helper.make_tensor_value_info("c", result, shape)],
        [numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    works: list[Callable[[], object]] = [lambda: session.run(None, {"a": a})]
    if kind is np.float32:
        works.append(lambda: torch.mm(torch.from_numpy(a), torch.from_numpy(b)))
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for work in works:
            begun = time.perf_counter()
            work()
            best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    return best


def flops_an_image(network: nn.Module, image: tuple[int, ...]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *image, dtype=torch.uint8))
    return int(counter.get_total_flops())


def bare_session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def bare(session: ort.InferenceSession, images: np.ndarray, batch: int) -> float:
    begun = time.perf_counter()
    for start in range(0, len(images), batch):
        session.run(None, {INPUT: images[start : start + batch]})
    return len(images) / (time.perf_counter() - begun)


def bare_lanes(session: ort.InferenceSession, images: np.ndarray, batch: int, lanes: int) -> float:
    """Runs of one thread beside each other, as the scorer does them."""
    starts = iter(range(0, len(images), batch))
    lock = threading.Lock()

    def lane() -> None:
        while True:
            with lock:
                start = next(starts, None)
            if start is None:
                return
            session.run(None, {INPUT: images[start : start + batch]})

    threads = [threading.Thread(target=lane) for _ in range(lanes)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(images) / (time.perf_counter() - begun)


# Ours


def ours(scorer: Scorer, pool: Path) -> float:
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        report = score_pool(scorer, open_pool(pool), Path(out) / "scores")
        return report.scored / (time.perf_counter() - begun)


def decode_alone(pool: Path, spec: Any, threads: int) -> float:
    items = list(open_pool(pool))
    rows = iter(items)
    lock = threading.Lock()

    def worker() -> None:
        out = np.empty((spec.height, spec.width, 3), np.uint8)
        while True:
            with lock:
                chunk = list(itertools.islice(rows, 16))
            if not chunk:
                return
            for item in chunk:
                decode_into(item.read(), spec, out)

    workers = [threading.Thread(target=worker) for _ in range(threads)]
    begun = time.perf_counter()
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    return len(items) / (time.perf_counter() - begun)


# The runs


def rounds(turns: dict[str, Turn], count: int) -> dict[str, float]:
    rates: dict[str, list[float]] = {name: [] for name in turns}
    with tqdm(total=count * len(turns), disable=None, leave=False) as bar:
        for _ in range(count):
            for name, turn in turns.items():
                bar.set_description(name)
                rates[name].append(turn())
                bar.update()
    return {name: statistics.median(values) for name, values in rates.items()}


def table(title: str, rates: dict[str, float], against: dict[str, str]) -> str:
    """Rows of rates, with their ratio to each of the named contestants."""
    lines = [
        f"### {title}",
        "",
        f"| | images/s | {' | '.join(f'÷ {short}' for short in against)} |",
        "|---|--:|" + "--:|" * len(against),
    ]
    for name, rate in rates.items():
        ratios = " | ".join(f"{rate / rates[other]:.2f}" for other in against.values())
        lines.append(f"| {name} | {rate:,.0f} | {ratios} |")
    return "\n".join([*lines, ""])


def small_images(run: Path, models: dict[str, Path], png: Path, npy: Path, options: Any) -> None:
    """CIFAR-sized images: files and an array, against PyTorch and the bare engine."""
    eager = Loop(load_checkpoint(run)).eval()
    compiled = torch.compile(eager, dynamic=False)
    cores = len(os.sched_getaffinity(0))
    few = options["torch_images"]
    batch, workers = best_loop(eager, lambda count: Files(png, count), min(512, few))
    few = max(batch, few - few % batch)  # one shape for the compiler
    compiled(torch.zeros(batch, *np.load(npy, mmap_mode="r").shape[1:], dtype=torch.uint8))
    images = np.load(npy)[: options["images"]]
    turns: dict[str, Turn] = {
        "PyTorch eager, PNG": lambda: torch_loop(eager, Files(png, few), batch, workers),
        "torch.compile, PNG": lambda: torch_loop(compiled, Files(png, few), batch, workers),
        "PyTorch eager, .npy": lambda: torch_loop(eager, Array(npy, few), batch, workers),
        "torch.compile, .npy": lambda: torch_loop(compiled, Array(npy, few), batch, workers),
    }
    with contextlib.ExitStack() as stack:
        for name, path in models.items():
            session = bare_session(path, cores)
            size = max((16, 64, 128), key=lambda b, s=session: bare(s, images[:1024], b))
            scorer = stack.enter_context(Scorer(path, "cpu"))
            single = bare_session(path, 1)
            turns |= {
                f"bare session, {name}, batch {size}": _turn(bare, session, images, size),
                f"bare session, {name}, {cores} runs at a time": _turn(
                    bare_lanes, single, images, scorer.batch_size, cores
                ),
                f"lloss, {name}, .npy": _turn(ours, scorer, npy),
                f"lloss, {name}, PNG": _turn(ours, scorer, png),
            }
        rates = rounds(turns, options["rounds"])
    against = {"eager PNG": "PyTorch eager, PNG", "eager .npy": "PyTorch eager, .npy"}
    for name in models:
        bares = [key for key in rates if key.startswith(f"bare session, {name}")]
        against[f"bare {name}"] = max(bares, key=lambda key: rates[key])
    flops = flops_an_image(eager, images.shape[1:])
    single, eight = matmul_rate(np.float32), matmul_rate(np.uint8)
    click.echo(
        f"Limit of the cores at {flops / 1e9:.2f} GFLOP an image: {single / flops:,.0f} images/s "
        f"in fp32 (a large product: {single / 1e9:.0f} GFLOP/s), {eight / flops:,.0f} in int8 "
        f"({eight / 1e9:.0f} Gop/s).\n"
    )
    size = "×".join(map(str, images.shape[1:3]))
    title = f"{len(images):,} images of {size}, ResNet-18 with head"
    click.echo(table(title, rates, against))


def _turn(function: Callable[..., float], *given: Any) -> Turn:
    return lambda: function(*given)


def photos(model: Path, name: str, folder: Path, options: Any) -> None:
    """JPEG files of 500×375 at the network's 224×224: decoding and computing share the cores."""
    cores = len(os.sched_getaffinity(0))
    with Scorer(model, "cpu") as scorer:
        spec = scorer.manifest.image
        count = len(list(open_pool(folder)))
        images = np.random.default_rng(0).integers(
            0, 256, (count, spec.height, spec.width, 3), np.uint8
        )
        single = bare_session(model, 1)
        rates = rounds(
            {
                "decode alone": _turn(decode_alone, folder, spec, cores),
                "engine alone": _turn(bare_lanes, single, images, scorer.batch_size, cores),
                "lloss": _turn(ours, scorer, folder),
            },
            options["rounds"],
        )
    slower = min("decode alone", "engine alone", key=lambda key: rates[key])
    rates["both on the same cores (the bound)"] = 1 / (
        1 / rates["decode alone"] + 1 / rates["engine alone"]
    )
    against = {"the slower": slower, "the bound": "both on the same cores (the bound)"}
    click.echo(table(f"{count:,} JPEG files of 500×375, {name}", rates, against))


@click.command()
@click.option("--png", type=PATH, help="Folder of PNG files of 32×32 pixels.")
@click.option("--npy", type=PATH, help="The same images, uint8 [N, 32, 32, 3].")
@click.option("--run", type=PATH, help="A trained ResNet-18 (resnet18-cifar).")
@click.option("--fp32", type=PATH, help="Its model.")
@click.option("--int8", type=PATH, help="Its model of reduced precision.")
@click.option("--images", default=10_000, show_default=True)
@click.option("--torch-images", default=2_048, show_default=True, help="Of them for PyTorch.")
@click.option("--jpegs", default=600, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--only", type=click.Choice(["small", "photos"]))
def main(
    png: Path | None,
    npy: Path | None,
    run: Path | None,
    fp32: Path | None,
    int8: Path | None,
    only: str | None,
    **options: Any,
) -> None:
    versions = f"torch {torch.__version__}, onnxruntime {ort.__version__}"
    click.echo(f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores; {versions}\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if only != "photos":
            if png is None or npy is None:
                png, npy = folder / "png", folder / "images.npy"
                make_png(png, npy, options["images"])
            run = run or make_run(folder, "resnet18-cifar", 32, np.load(npy)[:64])
            fp32 = fp32 or exported(run, folder / "fp32.onnx", "fp32", npy)
            int8 = int8 or exported(run, folder / "int8.onnx", "int8", npy)
            small_images(run, {"fp32": fp32, "int8": int8}, png, npy, options)
        if only != "small":
            for precision, model in _photo_models(folder, options["jpegs"]):
                photos(model, f"ResNet-18 at 224×224, {precision}", folder / "jpeg", options)


def _photo_models(folder: Path, count: int) -> Iterator[tuple[str, Path]]:
    make_jpeg(folder / "jpeg", count)
    large = folder / "large"
    large.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 224, 224, 3), np.uint8)
    run = make_run(large, "resnet18", 224, noise)
    for precision in ("fp32", "int8"):
        yield precision, exported(run, large / f"{precision}.onnx", precision, folder / "jpeg")


if __name__ == "__main__":
    main()
