"""The daemon under mixed traffic for minutes: are memory, threads and descriptors flat?

    python benchmarks/soak.py --seconds 600

Clients score single images, batches and encoded files, good ones and broken ones; some hang up
half-way; pools are scored again and again, selections made, returned and labeled, pages looked at,
the model reloaded. Exits with 1 when anything grows after the warm-up, or an answer is a 5xx.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
from PIL import Image
from tqdm import tqdm

from serve import _artifact, free_port, open_inference

PATH = click.Path(path_type=Path)
MORE_MEMORY = 1.05
"""Resident memory at the end over that at the begin of what is watched, at most."""


class Traffic:
    """Clients of all kinds, each in a thread, until :meth:`stop`."""

    def __init__(self, port: int, process: int, folder: Path, side: tuple[int, int]) -> None:
        self.url, self.port, self.process = f"http://127.0.0.1:{port}", port, process
        self.folder, self.side = folder, side
        self.codes: Counter[tuple[str, int]] = Counter()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        kinds: dict[Callable[[httpx.Client, random.Random], None], float] = {
            self.single: 0.0,
            self.batch: 0.05,
            self.files: 0.05,
            self.hang_up: 0.2,
            self.select: 0.5,
            self.job: 3.0,
            self.look: 0.5,
            self.reload: 20.0,
        }
        for number, (work, pause) in enumerate(kinds.items()):
            thread = threading.Thread(target=self._go, args=(work, pause, number), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)

    def _go(self, work: Callable[..., None], pause: float, seed: int) -> None:
        draw = random.Random(seed)
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self._stopped.wait(pause * draw.uniform(0.5, 1.5)):
                try:
                    work(client, draw)
                except httpx.HTTPError as error:
                    self.codes[type(error).__name__, 0] += 1

    def _count(self, what: str, answer: httpx.Response) -> Any:
        self.codes[what, answer.status_code] += 1
        kind = answer.headers.get("content-type", "")
        return answer.json() if kind.startswith("application/json") else None

    def _pixels(self, draw: random.Random, count: int) -> np.ndarray:
        random = np.random.default_rng(draw.randrange(1 << 32))
        return random.integers(0, 256, (count, *self.side, 3), np.uint8)

    def single(self, client: httpx.Client, draw: random.Random) -> None:
        headers, body = open_inference(self._pixels(draw, 1))
        self._count("single", client.post("/v2/models/lloss/infer", headers=headers, content=body))

    def batch(self, client: httpx.Client, draw: random.Random) -> None:
        headers, body = open_inference(self._pixels(draw, draw.randrange(2, 50)))
        self._count("batch", client.post("/v2/models/lloss/infer", headers=headers, content=body))

    def files(self, client: httpx.Client, draw: random.Random) -> None:
        found = [("image", ("a.png", encoded(self._pixels(draw, 1)[0]))) for _ in range(3)]
        found.append(("image", ("broken.jpg", draw.randbytes(100))))
        self._count("files", client.post("/v1/score", files=found))

    def hang_up(self, _: httpx.Client, draw: random.Random) -> None:
        headers, body = open_inference(self._pixels(draw, 8))
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = ["POST /v2/models/lloss/infer HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *lines]
        head.append(f"Content-Length: {len(body)}")
        whole = "\r\n".join([*head, "", ""]).encode() + body
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as s:
            s.sendall(whole[: draw.randrange(1, len(whole) + 1)])
        self.codes["hang up", 0] += 1

    def select(self, client: httpx.Client, draw: random.Random) -> None:
        answer = client.post("/v1/pools/soak/select", json={"k": 5, "at_most": True})
        chosen = self._count("select", answer)
        if answer.status_code != 200:
            client.post("/v1/pools/soak/return", json={"ids": self._labeled(client)})
            return
        ids = [image["id"] for image in chosen["images"]]
        if draw.random() < 0.5:
            labels = [{"id": id, "label": "a"} for id in ids]
            self._count("label", client.post("/v1/pools/soak/labels", json={"labels": labels}))
        else:
            self._count("return", client.post("/v1/pools/soak/return", json={"ids": ids}))

    def _labeled(self, client: httpx.Client) -> list[str]:
        answer = client.get("/v1/pools/soak/labels")
        return [] if answer.status_code != 200 else [row["id"] for row in answer.json()["labels"]]

    def job(self, client: httpx.Client, draw: random.Random) -> None:
        answer = self._count("job", client.post("/v1/pools/soak/score"))
        if draw.random() < 0.2 and answer and "id" in answer:
            self._count("cancel", client.delete(f"/v1/jobs/{answer['id']}"))

    def look(self, client: httpx.Client, _: random.Random) -> None:
        for page in ("/", "/pools/soak", "/metrics", "/v1/pools", "/v1/jobs", "/readyz"):
            self._count(page, client.get(page))
        shown = self._count("preview", client.get("/v1/pools/soak/preview", params={"k": 12}))
        for image in (shown or {}).get("images", [])[:12]:
            given = {"id": image["id"]}
            self._count("thumb", client.get("/pools/soak/thumb", params=given))

    def reload(self, *_: object) -> None:
        os.kill(self.process, signal.SIGHUP)
        self.codes["SIGHUP", 0] += 1


def encoded(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def watched(process: int) -> dict[str, float]:
    """Resident megabytes, threads and open descriptors of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {
        "MB": int(fields["VmRSS"].split()[0]) / 1024,
        "threads": int(fields["Threads"]),
        "descriptors": len(list(Path(f"/proc/{process}/fd").iterdir())),
    }


def grown(samples: list[dict[str, float]]) -> tuple[list[str], str]:
    """What is not flat, and a table: the first quarter against the last."""
    quarter = max(1, len(samples) // 4)
    lines = ["| | first quarter | last quarter | most |", "|---|--:|--:|--:|"]
    wrong = []
    for name, room in (("MB", None), ("threads", 3), ("descriptors", 8)):
        values = [sample[name] for sample in samples]
        first = statistics.median(values[:quarter])
        last = statistics.median(values[-quarter:])
        lines.append(f"| {name} | {first:,.0f} | {last:,.0f} | {max(values):,.0f} |")
        most = first * MORE_MEMORY if room is None else first + room
        if last > most:
            wrong.append(f"{name} grew from {first:,.0f} to {last:,.0f}")
    return wrong, "\n".join(lines)


@click.command()
@click.option("--model", type=PATH, help="An artifact.  [default: an untrained ResNet-18, 32×32]")
@click.option("--seconds", default=600.0, show_default=True)
@click.option("--warm-up", default=120.0, show_default=True, help="Of them, not judged.")
@click.option("--log", type=PATH, help="Keep what the daemon says here.")
def main(model: Path | None, seconds: float, warm_up: float, log: Path | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = (model or _artifact(folder, "int8")).absolute()
        pool = folder / "pool"
        pool.mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (400, 32, 32, 3), np.uint8)
        for number, pixels in enumerate(noise):
            (pool / f"{number:04d}.png").write_bytes(encoded(pixels))
        (pool / "broken.png").write_bytes(b"no image")
        said = (log or folder / "log").open("wb")
        port = free_port()
        command = [sys.executable, "-m", "lloss", "serve", str(model), "--port", str(port)]
        command += ["--data-dir", str(folder / "data"), "--pool-root", str(folder)]
        process = subprocess.Popen([*command, "--provider", "cpu"], stdout=said, stderr=said)
        try:
            samples, codes = soaked(process, port, folder, seconds, warm_up)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
    wrong, table = grown(samples)
    click.echo(f"{seconds:.0f} seconds, the first {warm_up:.0f} not judged; ended with {code}\n")
    click.echo(table + "\n")
    click.echo(", ".join(f"{what} {code or ''}: {n}" for (what, code), n in sorted(codes.items())))
    broken = {what: n for (what, code), n in codes.items() if code >= 500}
    wrong += [f"{n} answers of 5xx to {what}" for what, n in broken.items()]
    wrong += [f"exit code {code}"] if code else []
    if wrong:
        raise click.ClickException("; ".join(wrong))


def soaked(
    process: subprocess.Popen[bytes], port: int, folder: Path, seconds: float, warm_up: float
) -> tuple[list[dict[str, float]], Counter[tuple[str, int]]]:
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                break
        time.sleep(0.2)
    given = {"uri": str(folder / "pool")}
    httpx.put(f"{url}/v1/pools/soak", json=given).raise_for_status()
    shape = httpx.get(f"{url}/v2/models/lloss").json()["inputs"][0]["shape"]
    side = [length if length > 0 else 32 for length in shape[1:3]]
    traffic = Traffic(port, process.pid, folder, (side[0], side[1]))
    traffic.start()
    samples = []
    begun = time.monotonic()
    with tqdm(total=round(seconds), unit="s", disable=None) as bar:
        while (passed := time.monotonic() - begun) < seconds:
            bar.update(round(passed) - bar.n)
            if passed >= warm_up:
                samples.append(watched(process.pid))
            time.sleep(2)
            if process.poll() is not None:
                raise click.ClickException(f"the daemon ended with {process.returncode}")
    traffic.stop()
    return samples, traffic.codes


if __name__ == "__main__":
    main()
