"""The daemon under load, against the embedded scorer, LitServe and MLServer, in one run.

    python benchmarks/serve.py --rivals VENV [--model MODEL]

VENV is a virtual environment with litserve, mlserver and onnxruntime. The load comes from a process
of its own over loopback and shares the cores with the servers. Every contestant has its turn in
every round, each with a fresh server; the tables hold medians of the rounds.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime as ort
from lloss.serve.scorer import Scorer
from tqdm import tqdm

from lloss.artifact import read_manifest
from lloss.pools import ArrayPool

HERE = Path(__file__).parent
PATH = click.Path(path_type=Path)
IMAGES = 256
"""Different images that the requests are made of."""


@dataclass(frozen=True)
class Contestant:
    """A server: how it is started on a port, and how it is asked.

    Attributes:
        start: the command, its folder and its environment, for a port and a scratch folder.
        path: of requests.
        request: headers and body for images, uint8 [N, H, W, 3].
        ready: path that answers 200 when the model is loaded.
    """

    start: Callable[[int, Path], tuple[list[str], dict[str, str]]]
    path: str
    request: Callable[[np.ndarray], tuple[dict[str, str], bytes]]
    ready: str


def open_inference(images: np.ndarray) -> tuple[dict[str, str], bytes]:
    """A request of the Open Inference Protocol with a binary tensor in and out."""
    data = images.tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "images",
                    "datatype": "UINT8",
                    "shape": list(images.shape),
                    "parameters": {"binary_data_size": len(data)},
                }
            ],
            "outputs": [{"name": "loss", "parameters": {"binary_data": True}}],
        }
    ).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return headers, head + data


def open_inference_json(images: np.ndarray) -> tuple[dict[str, str], bytes]:
    """A request of it in JSON, an image a base64 string of its pixels."""
    data = [base64.b64encode(image.tobytes()).decode() for image in images]
    tensor = {"name": "images", "datatype": "BYTES", "shape": [len(data)], "data": data}
    return {"Content-Type": "application/json"}, json.dumps({"inputs": [tensor]}).encode()


def as_json(images: np.ndarray) -> tuple[dict[str, str], bytes]:
    body = json.dumps({"images": base64.b64encode(images.tobytes()).decode()}).encode()
    return {"Content-Type": "application/json"}, body


def lloss(model: Path, *options: str) -> Contestant:
    def start(port: int, scratch: Path) -> tuple[list[str], dict[str, str]]:
        command = [sys.executable, "-m", "lloss", "serve", str(model), "--port", str(port)]
        return [*command, "--data-dir", str(scratch / "data"), *options], {}

    return Contestant(start, "/v2/models/lloss/infer", open_inference, "/readyz")


def litserve(python: Path, model: Path, workers: int, threads: int, batch: int) -> Contestant:
    def start(port: int, scratch: Path) -> tuple[list[str], dict[str, str]]:
        script = HERE / "rivals" / "with_litserve.py"
        given = map(str, (model, port, workers, threads, batch))
        return [str(python), str(script), *given], {}

    return Contestant(start, "/predict", as_json, "/health")


def mlserver(python: Path, model: Path, workers: int, threads: int, batch: int) -> Contestant:
    def start(port: int, scratch: Path) -> tuple[list[str], dict[str, str]]:
        settings = {
            "http_port": port,
            "grpc_port": free_port(),
            "metrics_port": free_port(),
            "host": "127.0.0.1",
            "parallel_workers": workers,
            "debug": False,
        }
        (scratch / "settings.json").write_text(json.dumps(settings))
        served = {
            "name": "lloss",
            "implementation": "with_mlserver.Losses",
            "parameters": {"extra": {"model": str(model), "threads": threads}},
            **({"max_batch_size": batch, "max_batch_time": 0.002} if batch > 1 else {}),
        }
        (scratch / "model-settings.json").write_text(json.dumps(served))
        command = [str(python.parent / "mlserver"), "start", str(scratch)]
        return command, {"PYTHONPATH": str(HERE / "rivals")}

    ready = "/v2/models/lloss/ready"
    return Contestant(start, "/v2/models/lloss/infer", open_inference_json, ready)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def answers(port: int, path: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as asked:
        asked.settimeout(2)
        asked.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        return asked.recv(64).startswith(b"HTTP/1.1 200")
    return False


@contextlib.contextmanager
def served(contestant: Contestant) -> Iterator[tuple[int, int]]:
    """Run a server; yields its port and process."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command, extra = contestant.start(port, Path(folder))
        log = Path(folder) / "log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                command,
                env={**os.environ, **extra},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + 90
            while not answers(port, contestant.ready):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise click.ClickException(f"{command}: {log.read_text()[-2000:]}")
                time.sleep(0.2)
            yield port, process.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def load(contestant: Contestant, port: int, images: np.ndarray, size: int, **plan: Any) -> Any:
    """Ask a server for batches of some size; see ``load.py``."""
    parts = [images[at : at + size] for at in range(0, len(images) - size + 1, size)]
    requests = [contestant.request(part) for part in parts]
    whole = {
        "host": "127.0.0.1",
        "port": port,
        "path": contestant.path,
        "headers": requests[0][0],
        "bodies": [base64.b64encode(body).decode() for _, body in requests],
        **plan,
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "load.py")],
        input=json.dumps(whole),
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    told["images_a_second"] = told["requests_a_second"] * size
    return told


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


def contestants(model: Path, rivals: Path | None, size: int) -> dict[str, Contestant]:
    found = {"lloss serve": lloss(model)}
    if rivals is None:
        return found
    python, batch = rivals / "bin" / "python", 64 if size == 1 else 1
    cores = len(os.sched_getaffinity(0))
    for workers, threads in ((1, cores), (cores, 1)):
        how = f"{workers} worker{'s' if workers > 1 else ''} of {threads}"
        found[f"LitServe, {how}"] = litserve(python, model, workers, threads, batch)
    for workers, threads in ((0, cores), (1, cores), (cores, 1)):
        how = f"{workers} workers of {threads}" if workers else "in process"
        found[f"MLServer, {how}"] = mlserver(python, model, workers, threads, batch)
    return found


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
                    told = load(
                        contestant, port, images, size,
                        clients=sizes[size], seconds=seconds, warm_up=options["warm_up"],
                    )  # fmt: skip
                if set(told["codes"]) - {"200"}:
                    click.echo(f"{name}: answers {told['codes']}", err=True)
                tallies[size].add(name, told["images_a_second"])
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
    """Latency of single images at a share of the saturated rate, requests coming at random."""
    contestant = lloss(model)
    click.echo("### Latency of single images, requests at random times\n")
    click.echo(
        "| load | answered/s | p50, ms | p90, ms | p99, ms | p99 ÷ p50 |\n|---|--:|--:|--:|--:|--:|"
    )
    with served(contestant) as (port, _):
        for share in (0.3, 0.7):
            told = load(
                contestant, port, images, 1,
                rate=share * rate, seconds=3 * options["seconds"], warm_up=options["warm_up"],
            )  # fmt: skip
            p50, p90, p99 = (1000 * told[key] for key in ("p50", "p90", "p99"))
            click.echo(
                f"| {share:.0%} | {told['requests_a_second']:,.0f} | {p50:.1f} | {p90:.1f} | "
                f"{p99:.1f} | {p99 / p50:.1f} |"
            )
    click.echo("")


def overload(model: Path, images: np.ndarray, options: Any) -> None:
    """Far more clients than the queue holds: what is answered, what refused, what memory does."""
    contestant = lloss(model, "--queue", "128")
    with served(contestant) as (port, pid):
        memory = []
        codes: dict[str, int] = {}
        rates = []
        for _ in range(6):
            told = load(
                contestant, port, images, 1,
                clients=512, seconds=options["seconds"] / 2, warm_up=1.0, back_off=0.1,
            )  # fmt: skip
            memory.append(_resident(pid))
            rates.append(told["images_a_second"])
            for code, count in told["codes"].items():
                codes[code] = codes.get(code, 0) + count
    click.echo("### Overload: 512 clients on a queue of 128 images\n")
    click.echo(f"Answers by status: {codes}; {statistics.median(rates):,.0f} images/s answered.")
    megabytes = ", ".join(f"{size / 1e6:.0f}" for size in memory)
    click.echo(f"Resident memory after each of {len(memory)} spells: {megabytes} MB.\n")


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _artifact(folder: Path, precision: str, network: str = "resnet18-cifar") -> Path:
    """An untrained network with its head: speed does not depend on weights."""
    from score import exported, make_png, make_run

    make_png(folder / "png", folder / "images.npy", 1024)
    run = make_run(folder, network, 32, np.load(folder / "images.npy")[:64])
    return exported(run, folder / "model.onnx", precision, folder / "images.npy")


@click.command()
@click.option("--model", type=PATH, help="An artifact.  [default: an untrained network]")
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
        model = (model or _artifact(Path(scratch), precision, network)).absolute()
        manifest = read_manifest(model)
        image = manifest.image
        click.echo(
            f"{_processor()}, {len(os.sched_getaffinity(0))} cores; onnxruntime {ort.__version__}; "
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


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
