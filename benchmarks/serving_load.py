"""The daemon under load, against the embedded scorer, LitServe and MLServer, in one run.

    python benchmarks/serving_load.py --rivals VENV [--model MODEL]

VENV is a virtual environment with litserve, mlserver and onnxruntime. The load comes from a process
of its own over loopback and shares the cores with the servers. Every contestant has its turn in
every round, each with a fresh server; the tables hold medians of the rounds.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime as ort
from contestants import contestants, lloss, load, served
from lloss.export.speed_check import cpu_name
from lloss.serve.scoring.scorer import Scorer
from queueing import at_random, batch_seconds, evenly, latencies, percentiles, saturated
from subjects import untrained
from tqdm import tqdm

from lloss.manifest import read_manifest
from lloss.pools import ArrayPool

PATH = click.Path(path_type=Path)
IMAGES = 256
"""Different images that the requests are made of."""


def embedded(scorer: Scorer, images: np.ndarray, seconds: float) -> float:
    """Images a second of ``Scorer.stream`` over an array, in this process."""
    pool = ArrayPool(np.tile(images, (max(1, int(4096 // len(images))), 1, 1, 1)), "array")
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for batch in scorer.stream(pool):
            count += len(batch)
            if time.perf_counter() - begun >= seconds:
                break
    return count / (time.perf_counter() - begun)


@dataclass
class Tally:
    """Rates of each contestant, a round each."""

    rates: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, rate: float) -> None:
        self.rates.setdefault(name, []).append(rate)

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(rates) for name, rates in self.rates.items()}


def saturation(model: Path, rivals: Path | None, images: np.ndarray, options: Any) -> float:
    """Rates at saturation, as a table; returns our rate for single images."""
    sizes = {1: options["clients"], 32: options["batch_clients"]}
    tallies = {size: Tally() for size in sizes}
    turns = [
        (size, name, contestant)
        for size in sizes
        for name, contestant in contestants(model, rivals, size).items()
    ]
    seconds = options["seconds"]
    with tqdm(total=options["rounds"] * (len(turns) + 2), disable=None, leave=False) as bar:
        for _ in range(options["rounds"]):
            with Scorer(model, "cpu") as scorer:
                embedded(scorer, images, 1.0)
                for size in sizes:
                    tallies[size].add("embedded Scorer", embedded(scorer, images, seconds))
                    bar.update()
            for size, name, contestant in turns:
                bar.set_description(f"{name}, {size}")
                with served(contestant) as (port, _):
                    results = load(
                        contestant, port, images, size,
                        clients=sizes[size], seconds=seconds, warm_up=options["warm_up"],
                    )  # fmt: skip
                if set(results["codes"]) - {"200"}:
                    click.echo(f"{name}: answers {results['codes']}", err=True)
                tallies[size].add(name, results["images_a_second"])
                bar.update()
    for size, tally in tallies.items():
        click.echo(_table(f"Requests of {size}, {sizes[size]} clients", tally.medians()))
    return tallies[1].medians()["lloss serve"]


def _table(title: str, rates: dict[str, float]) -> str:
    ours, base = rates["lloss serve"], rates["embedded Scorer"]
    lines = [
        f"### {title}",
        "",
        "| | images/s | ÷ embedded | lloss serve ÷ it |",
        "|---|--:|--:|--:|",
    ]
    for name, rate in rates.items():
        lines.append(f"| {name} | {rate:,.0f} | {rate / base:.2f} | {ours / max(rate, 1e-9):.2f} |")
    return "\n".join([*lines, ""])


def latency(model: Path, images: np.ndarray, rate: float, options: Any) -> None:
    """Latency of single images at shares of a rate, beside the least that queueing allows."""
    contestant = lloss(model)
    readings = batch_seconds(model, images)
    turns = [(share, even) for share in (0.3, 0.7) for even in (True, False)]
    results: dict[tuple[float, bool], list[dict[str, float]]] = {turn: [] for turn in turns}
    with served(contestant) as (port, _):
        for share, even in turns * options["rounds"]:
            plan = {"rate": share * rate, "even": even, "warm_up": options["warm_up"]}
            one = load(contestant, port, images, 1, seconds=2 * options["seconds"], **plan)
            results[share, even].append(one)
    lanes = len(os.sched_getaffinity(0))
    full = saturated(readings, lanes)
    click.echo(
        f"### Latency of single images, ms\n\n100 % are {rate:,.0f} requests/s, and {full:,.0f} "
        "for the bare engine with a queue before it.\n\n"
        "| load | requests | p50 | p90 | p99 | p99 ÷ p50 "
        "| bare engine and queue: p50 | p99 | p99 ÷ p50 |\n|---|---|" + "--:|" * 7
    )
    for (share, even), rounds in results.items():
        draw = random.Random(0)
        gap = evenly(share * full) if even else at_random(share * full, draw)
        least = percentiles(latencies(readings, lanes, gap, draw, 100_000))
        found = {key: statistics.median(one[key] for one in rounds) for key in least}
        cells = [f"{1000 * found[key]:.1f}" for key in found]
        cells += [f"{found['p99'] / found['p50']:.1f}"]
        cells += [f"{1000 * least[key]:.1f}" for key in ("p50", "p99")]
        cells += [f"{least['p99'] / least['p50']:.1f}"]
        click.echo(f"| {share:.0%} | {'evenly' if even else 'at random'} | {' | '.join(cells)} |")
    click.echo("")


def overload(model: Path, images: np.ndarray, options: Any) -> None:
    """Far more clients than the queue holds: what is answered, what refused, what memory does."""
    contestant = lloss(model, "--queue", "128")
    with served(contestant) as (port, pid):
        memory = []
        codes: dict[str, int] = {}
        rates = []
        for _ in range(6):
            results = load(
                contestant, port, images, 1,
                clients=512, seconds=options["seconds"] / 2, warm_up=1.0, back_off=0.1,
            )  # fmt: skip
            memory.append(_resident(pid))
            rates.append(results["images_a_second"])
            for code, count in results["codes"].items():
                codes[code] = codes.get(code, 0) + count
    click.echo("### Overload: 512 clients on a queue of 128 images\n")
    click.echo(f"Answers by status: {codes}; {statistics.median(rates):,.0f} images/s answered.")
    megabytes = ", ".join(f"{size / 1e6:.0f}" for size in memory)
    click.echo(f"Resident memory after each of {len(memory)} spells: {megabytes} MB.\n")


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@click.command()
@click.option("--model", type=PATH, help="An exported model.  [default: an untrained network]")
@click.option("--network", default="resnet18-cifar", show_default=True, help="At 32×32.")
@click.option("--precision", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True)
@click.option("--rivals", type=PATH, help="A venv with litserve, mlserver and onnxruntime.")
@click.option("--clients", default=64, show_default=True, help="That send single images.")
@click.option("--batch-clients", default=8, show_default=True, help="That send batches of 32.")
@click.option("--seconds", default=10.0, show_default=True, help="Of each measurement.")
@click.option("--warm-up", default=3.0, show_default=True, help="Seconds before it.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--only", type=click.Choice(["saturation", "latency", "overload"]))
@click.option("--rate", type=float, help="Saturated rate for the latency.  [default: measured]")
def main(
    model: Path | None, precision: str, network: str, rivals: Path | None, only: str | None,
    rate: float | None, **options: Any,
) -> None:  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        model = (model or untrained(Path(scratch), precision, network)).absolute()
        manifest = read_manifest(model)
        image = manifest.image
        click.echo(
            f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores; onnxruntime {ort.__version__}; "
            f"{manifest.model} {manifest.precision} at {image.height}×{image.width}\n"
        )
        images = np.random.default_rng(0).integers(
            0, 256, (IMAGES, image.height, image.width, 3), np.uint8
        )
        if only in (None, "saturation"):
            rate = saturation(model, rivals, images, options)
        if only in (None, "latency"):
            if rate is None:
                rate = saturation(model, None, images, {**options, "rounds": 1})
            latency(model, images, rate, options)
        if only in (None, "overload"):
            overload(model, images, options)


if __name__ == "__main__":
    main()
