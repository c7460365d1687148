"""The contenders of ``gpu_score.py``: what each does with a batch, and with a pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from lloss.export.graph import ScoringGraph, outputs_of, write_onnx
from lloss.serve.scoring.engine.engine import Engine
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import lloss
from lloss.files import sha256_of
from lloss.images.decode import ImageSpec
from lloss.manifest import INPUT, Manifest, read_manifest
from lloss.runtime.providers import SessionSetup, open_session
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings

LANES = 3
CLASSES = tuple(map(str, range(10)))


@dataclass
class Plan:
    """What is measured, and for how long."""

    device: str
    model: str
    images: int
    batches: tuple[int, ...]
    rounds: int
    seconds: float
    workers: int
    compiled: bool
    tensorrt: bool
    deadline: float

    def left(self) -> float:
        return self.deadline - time.monotonic()


Work = Callable[[], int]
"""Score some batches; return the number of images."""


def synchronized(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# The network


def graph_of(model: str, half: bool) -> tuple[ScoringGraph, Manifest]:
    """An untrained network with head, and its manifest."""
    settings = TrainSettings(model=model, size=32)
    torch.manual_seed(0)
    network = get_task(settings.task).network(settings, CLASSES)
    graph = ScoringGraph(network, settings.mean, settings.std, half).eval()
    manifest = Manifest(
        task=settings.task,
        model=model,
        classes=CLASSES,
        image=ImageSpec(32, 32, settings.fit),
        mean=settings.mean,
        std=settings.std,
        outputs=outputs_of(graph, (32, 32)),
        precision="fp16" if half else "fp32",
    )
    return graph, manifest


def write_onnx_file(model: str, half: bool, folder: Path) -> Path:
    path = folder / f"{'fp16' if half else 'fp32'}.onnx"
    write_onnx(*graph_of(model, half), path)
    return path


def torch_graph(plan: Plan, half: bool) -> nn.Module:
    graph, _ = graph_of(plan.model, half)
    graph = graph.to(plan.device)
    return graph.to(memory_format=torch.channels_last) if half else graph


def flops_per_image(model: str) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    graph, _ = graph_of(model, half=False)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        graph(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    return float(counter.get_total_flops())


# The engine alone


def torch_work(network: Callable[[Tensor], Any], images: Tensor, plan: Plan) -> Work:
    """Batches that are on the device already; results stay there."""

    def work() -> int:
        with torch.inference_mode():
            for _ in range(4):
                torch.compiler.cudagraph_mark_step_begin()
                network(images)
        synchronized(plan.device)
        return 4 * len(images)

    return work


def bare_work(session: Any, images: np.ndarray) -> Work:
    """What a first script does: arrays in, arrays out."""

    def work() -> int:
        session.run(None, {INPUT: images})
        return len(images)

    return work


def bound_work(session: Any, images: np.ndarray, plan: Plan) -> Work:
    """The session alone: inputs and outputs stay on the device."""
    binding = session.io_binding()
    binding.bind_ortvalue_input(INPUT, ort.OrtValue.ortvalue_from_numpy(images, plan.device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, plan.device, 0)

    def work() -> int:
        session.run_with_iobinding(binding)
        return len(images)

    return work


def engine_work(engine: Engine, images: np.ndarray, lanes: ThreadPoolExecutor) -> Work:
    """Ours: host to host, and all copies are in the time."""
    count = 4 * LANES

    def work() -> int:
        list(lanes.map(lambda _: engine.run(images), range(count)))
        return count * len(images)

    return work


def opened(path: Path, provider: str, batch: int) -> Any:
    return open_session(path, SessionSetup(read_manifest(path), provider, batch), sha256_of(path))


def add_engines(
    contenders: dict[str, Work],
    provider: str,
    models: dict[str, Path],
    images: np.ndarray,
    notes: dict[str, str],
    stack: ExitStack,
) -> None:
    if provider == "cpu":  # a trial run without a GPU
        return
    lanes = stack.enter_context(ThreadPoolExecutor(LANES))
    for precision, path in models.items():
        name = f"lloss engine, {provider} {precision}"
        engine = Engine(path, provider, batch_size=len(images))
        stack.callback(engine.close)
        notes[name] = engine.note
        contenders[name] = engine_work(engine, images, lanes)


def add_compiled(
    contenders: dict[str, Work], network: nn.Module, images: Tensor, plan: Plan, notes: Any
) -> None:
    """torch.compile searches for a minute or more: left out where it fails or time is short."""
    name = "torch.compile max-autotune, fp16 channels_last"
    if plan.left() < 250:
        notes[name] = "not for every batch: no time"
        return
    torch._dynamo.reset()
    work = torch_work(torch.compile(network, mode="max-autotune", dynamic=False), images, plan)
    try:
        work()
    except Exception as error:  # compilers fail in their own ways
        notes[name] = f"failed: {str(error).splitlines()[0][:100]}"
        return
    contenders[name] = work


# End to end


class Pictures(Dataset[np.ndarray]):
    """What a user would write."""

    def __init__(self, files: Sequence[Path] | np.ndarray) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        item = self.files[index]
        if isinstance(item, np.ndarray):
            return np.array(item)
        return np.array(Image.open(item).convert("RGB"))


def loader_work(files: Any, network: nn.Module, batch: int, plan: Plan) -> Work:
    loader = DataLoader(
        Pictures(files),
        batch,
        num_workers=plan.workers,
        pin_memory=plan.device == "cuda",
        persistent_workers=plan.workers > 0,
    )

    def work() -> int:
        count = 0
        with torch.inference_mode():
            for images in loader:
                outputs = network(images.to(plan.device, non_blocking=True))
                count += len([output.cpu() for output in outputs].pop())
        return count

    return work


def scorer_work(model: Path, pool: Path, batch: int, plan: Plan) -> Work:
    scorer = lloss.Scorer(model, provider=plan.device, batch_size=batch)
    return lambda: sum(map(len, scorer.stream(pool)))


def pools(plan: Plan, folder: Path) -> Iterator[tuple[str, Path, Any]]:
    """Name, pool, and what a DataLoader indexes; noise, which PNG cannot shrink."""
    images = np.random.default_rng(1).integers(0, 256, (plan.images, 32, 32, 3), np.uint8)
    array = folder / "pool.npy"
    np.save(array, images)
    yield ".npy", array, np.load(array, mmap_mode="r")
    files = folder / "pool"
    files.mkdir()
    paths = [files / f"{number:06d}.png" for number in range(max(1, plan.images // 5))]
    for path, pixels in zip(paths, images):
        Image.fromarray(pixels).save(path)
    yield "PNG", files, paths
