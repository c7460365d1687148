"""Scoring on an NVIDIA GPU: ceilings, the engine alone, and end to end, in one run.

    python benchmarks/gpu_score.py --out gpu_score.md
    python benchmarks/gpu_score.py --device cpu --images 500 --quick      # tries every path

It makes its own data (noise) and its own untrained network with head; what is computed does not
depend on the weights. The contenders of a table take turns, and their medians are compared. TF32 is
off everywhere, so that fp32 means fp32. Needs lloss[train]; about six minutes on an H100.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Before torch loads NVIDIA's libraries: see lloss.runtime.tf32.
os.environ["NVIDIA_TF32_OVERRIDE"] = "0"

import click
import numpy as np
import onnxruntime as ort
import torch
from gpu_contenders import (
    Plan,
    Work,
    add_compiled,
    add_engines,
    bare_work,
    bound_work,
    flops_per_image,
    loader_work,
    opened,
    pools,
    scorer_work,
    synchronized,
    torch_graph,
    torch_work,
    write_onnx_file,
)

import lloss
from lloss.errors import EngineError
from lloss.runtime import cuda_driver as cuda
from lloss.runtime.providers import why_unavailable


@dataclass
class Row:
    """One contender: images a second by column."""

    name: str
    rates: dict[str, list[float]] = field(default_factory=dict)
    note: str = ""

    def rate(self, column: str) -> float | None:
        found = self.rates.get(column)
        return statistics.median(found) if found else None


def take_turns(contenders: dict[str, Work], plan: Plan, rows: dict[str, Row], column: str) -> None:
    """Measure contenders in turns; each turn repeats its work for the plan's seconds."""
    for name in contenders:
        rows.setdefault(name, Row(name))
    for round in range(plan.rounds + 1):
        if round > 1 and plan.left() < 0:
            break
        for name, work in contenders.items():
            begun, count = time.perf_counter(), 0
            while not count or time.perf_counter() - begun < plan.seconds:
                count += work()
            if round:  # the first warms up
                rate = count / (time.perf_counter() - begun)
                rows[name].rates.setdefault(column, []).append(rate)
    done = ", ".join(f"{name} {rows[name].rate(column):,.0f}" for name in contenders)
    click.echo(f"[{plan.left():4.0f} s left] {column}: {done}", err=True)


# Ceilings


def ceilings(plan: Plan) -> dict[str, str]:
    """Matrix products and copies, through torch."""
    size, megabytes = (8192, 256) if plan.device == "cuda" else (256, 4)
    found = {}
    for name, dtype in (("fp16", torch.float16), ("fp32, no TF32", torch.float32)):
        a = torch.randn(size, size, device=plan.device).to(dtype)
        rate = 2 * size**3 / best_time(lambda a=a: a @ a, plan)
        found[f"matmul {size}², {name}"] = f"{rate / 1e12:,.1f} TFLOP/s"
    there = torch.empty(megabytes << 20, dtype=torch.uint8, device=plan.device)
    for name in ("pinned", "pageable") if plan.device == "cuda" else ("pageable",):
        here = torch.ones(megabytes << 20, dtype=torch.uint8, pin_memory=name == "pinned")
        up = best_time(lambda here=here: there.copy_(here, non_blocking=True), plan)
        down = best_time(lambda here=here: here.copy_(there, non_blocking=True), plan)
        rates = [f"{(megabytes << 20) / seconds / 1e9:.1f}" for seconds in (up, down)]
        found[f"copy of {megabytes} MiB, {name}"] = f"{rates[0]} GB/s up, {rates[1]} GB/s down"
    return found


def best_time(work: Callable[[], Any], plan: Plan) -> float:
    """Median seconds of one call, of ten in a row."""
    times = []
    for _ in range(plan.rounds + 1):
        synchronized(plan.device)
        begun = time.perf_counter()
        for _ in range(10):
            work()
        synchronized(plan.device)
        times.append((time.perf_counter() - begun) / 10)
    return statistics.median(times[1:])


# The engine alone


def engine_table(plan: Plan, models: dict[str, Path]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    networks = {"fp32": torch_graph(plan, False), "fp16": torch_graph(plan, True)}
    for batch in plan.batches:
        images = np.random.default_rng(0).integers(0, 256, (batch, 32, 32, 3), np.uint8)
        resident = torch.from_numpy(images).to(plan.device)
        with ExitStack() as stack:
            notes: dict[str, str] = {}
            contenders = {
                "torch eager, fp32": torch_work(networks["fp32"], resident, plan),
                "torch eager, fp16 channels_last": torch_work(networks["fp16"], resident, plan),
            }
            if plan.compiled:
                add_compiled(contenders, networks["fp16"], resident, plan, notes)
            for precision, path in models.items():
                plain = opened(path, plan.device, batch)
                contenders[f"session.run, {precision}"] = bare_work(plain, images)
                contenders[f"session on resident data, {precision}"] = bound_work(
                    plain, images, plan
                )
            for provider in [plan.device, *(["tensorrt"] if plan.tensorrt else [])]:
                add_engines(contenders, provider, models, images, notes, stack)
            take_turns(contenders, plan, rows, str(batch))
            for name, note in notes.items():
                rows.setdefault(name, Row(name)).note = note
    return rows


# End to end


def end_to_end_table(
    plan: Plan, models: dict[str, Path], batch: int, folder: Path
) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    network = torch_graph(plan, half=True)
    for column, pool, files in pools(plan, folder):
        contenders = {"torch DataLoader loop, fp16 eager": loader_work(files, network, batch, plan)}
        for precision, path in models.items():
            name = f"lloss Scorer.stream, {precision}"
            contenders[name] = scorer_work(path, pool, batch, plan)
        take_turns(contenders, plan, rows, column)
    return rows


# The report


def table(rows: dict[str, Row], columns: Sequence[str], reference: str, head: str) -> list[str]:
    """Images a second; in brackets, the ratio to the fastest row that begins with ``reference``."""
    lines = [f"| {head} | {' | '.join(columns)} | |", "|---|" + "---:|" * len(columns) + "---|"]
    for row in rows.values():
        cells = []
        for column in columns:
            rate, base = row.rate(column), best(rows, reference, column)
            ratio = f" ({rate / base:.2f}×)" if rate and base else ""
            cells.append(f"{rate:,.0f}{ratio}" if rate else "not measured")
        lines.append(f"| {row.name} | {' | '.join(cells)} | {row.note} |")
    return lines


def best(rows: dict[str, Row], start: str, column: str) -> float | None:
    rates = [row.rate(column) for row in rows.values() if row.name.startswith(start)]
    return max((rate for rate in rates if rate), default=None)


def verdicts(engine: dict[str, Row], whole: dict[str, Row], batch: int) -> list[str]:
    """The targets, held against the best of ours."""
    columns = list(dict.fromkeys(column for row in engine.values() for column in row.rates))
    best_of = {
        start: max((best(engine, start, column) or 0 for column in columns), default=0)
        for start in ("lloss", "torch")
    }
    lines = [_verdict("engine alone ÷ best torch", best_of["lloss"], best_of["torch"], 1.0)]
    for column in (".npy", "PNG"):
        ours, torch_loop = best(whole, "lloss", column), best(whole, "torch", column)
        lines.append(_verdict(f"{column} end to end ÷ torch loop", ours, torch_loop, 2.0))
    for precision in ("fp32", "fp16"):
        ours = whole[f"lloss Scorer.stream, {precision}"].rate(".npy")
        bare = engine[f"session.run, {precision}"].rate(str(batch))
        name = f".npy end to end ÷ bare session.run, {precision}, batch {batch}"
        lines.append(_verdict(name, ours, bare, 0.9))
    return lines


def _verdict(name: str, ours: float | None, theirs: float | None, target: float) -> str:
    if not ours or not theirs:
        return f"- {name}: not measured (target {target:.1f}×)"
    passed = "PASS" if ours / theirs >= target else "FAIL"
    return f"- {name}: {ours / theirs:.2f}× (target {target:.1f}×) **{passed}**"


def machine(plan: Plan) -> list[str]:
    versions = (
        f"onnxruntime {ort.__version__}, torch {torch.__version__}, lloss {lloss.__version__}"
    )
    lines = [f"- {os.cpu_count()} CPU cores, {platform.platform()}, Python "
             f"{platform.python_version()}", f"- {versions}"]  # fmt: skip
    try:
        gpu = cuda.gpu()
        lines.insert(
            0, f"- {gpu.name}, compute capability {gpu.compute_capability}, CUDA {gpu.cuda}"
        )
    except EngineError as error:
        lines.insert(0, f"- no GPU: {error}")
    return lines


@click.command()
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--model", default="resnet18-cifar", show_default=True)
@click.option("--images", default=100_000, show_default=True, help="In .npy; a fifth as PNG.")
@click.option("--batch-sizes", default="1024,512,256", show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Turns of each contender.")
@click.option("--workers", default=-1, help="Of the DataLoader; by default one a core.")
@click.option("--no-compile", is_flag=True, help="Leave torch.compile out.")
@click.option("--tensorrt", is_flag=True, help="Measure TensorRT too; engines take minutes.")
@click.option("--quick", is_flag=True, help="One short turn each: to see that it works.")
@click.option("--budget", default=420.0, show_default=True, help="Seconds, for what is optional.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the report goes, too.")
def main(
    device: str,
    model: str,
    images: int,
    batch_sizes: str,
    rounds: int,
    workers: int,
    no_compile: bool,
    tensorrt: bool,
    quick: bool,
    budget: float,
    out: Path | None,
) -> None:
    """Measure, and hold the figures against the targets."""
    if device != "cpu" and (problem := why_unavailable(device)):
        raise click.ClickException(f"{device} {problem}")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    plan = Plan(
        device=device,
        model=model,
        images=images,
        batches=tuple(map(int, batch_sizes.split(","))),
        rounds=1 if quick else rounds,
        seconds=0.0 if quick else 0.3,
        workers=workers if workers >= 0 else os.cpu_count() or 1,
        compiled=not no_compile,
        tensorrt=tensorrt,
        deadline=time.monotonic() + budget,
    )
    with tempfile.TemporaryDirectory() as name:
        report = measured(plan, Path(name))
    click.echo(report)
    if out:
        out.write_text(report + "\n", encoding="utf-8")


def measured(plan: Plan, folder: Path) -> str:
    limits = ceilings(plan)
    models = {
        precision: write_onnx_file(plan.model, precision == "fp16", folder)
        for precision in ("fp32", "fp16")
    }
    engine = engine_table(plan, models)
    columns = [str(batch) for batch in plan.batches]
    batch = max(plan.batches, key=lambda size: best(engine, "lloss", str(size)) or 0)
    whole = end_to_end_table(plan, models, batch, folder)
    flops = flops_per_image(plan.model)
    top = max((best(engine, "lloss", column) or 0 for column in columns), default=0)
    lines = [
        f"# Scoring on {plan.device}: {plan.model}, 32×32",
        "",
        *machine(plan),
        f"- median of {plan.rounds} turns, contenders alternating; TF32 off",
        "",
        "| ceiling | |",
        "|---|---:|",
        *[f"| {name} | {value} |" for name, value in limits.items()],
        "",
        f"The network takes {flops / 1e9:.2f} GFLOP an image: our best is "
        f"{top * flops / 1e12:.1f} TFLOP/s.",
        "",
        "## Engine alone, images a second",
        "",
        "By batch size; in brackets the ratio to the best torch. Ours copies from and to host "
        "arrays in that time; the others' data is on the device (session.run copies).",
        "",
        *table(engine, columns, "torch", "contender"),
        "",
        f"## End to end, images a second, batch {batch}",
        "",
        f"{plan.images:,} images as .npy and {max(1, plan.images // 5):,} as PNG; "
        f"{plan.workers} DataLoader workers.",
        "",
        *table(whole, [".npy", "PNG"], "torch", "contender"),
        "",
        "## Targets",
        "",
        *verdicts(engine, whole, batch),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
