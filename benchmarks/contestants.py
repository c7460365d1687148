"""Servers under load: how each is started and asked."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

HERE = Path(__file__).parent


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
            "metrics_dir": str(scratch / "metrics"),
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
    result = json.loads(done.stdout)
    result["images_a_second"] = result["requests_a_second"] * size
    return result


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
