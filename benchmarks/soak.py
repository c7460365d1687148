"""The daemon under mixed traffic for minutes: are memory, threads, files and the disk flat?

    python benchmarks/soak.py --seconds 600 --picture soak.svg

Clients score single images, batches and encoded files, good ones and broken ones; some hang up
half-way, some never read; pools come, are scored again and again, and go; selections are made,
returned, labeled and unlabeled, pages looked at; the model is exchanged for another file and
back. Exits with 1 when anything grows after the warm-up, an answer is a 404 or a 5xx, an error is
logged, or the end is not orderly.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
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
import onnx
from contestants import free_port, open_inference
from PIL import Image
from subjects import untrained
from tqdm import tqdm

PATH = click.Path(path_type=Path)
MORE = 1.05
"""Megabytes of the last quarter of what is watched over those of the first, at most."""

EVERY = 1.0
"""Seconds between two looks."""

WATCHED = {"MB": None, "anonymous MB": None, "threads": 3, "descriptors": 8, "disk MB": None}
"""What is watched, and by how much it may grow: a share (``MORE``) where none is given."""


class Traffic:
    """Clients of all kinds, each in a thread, until :meth:`stop`."""

    def __init__(
        self, port: int, process: int, folder: Path, model: Path, side: tuple[int, int]
    ) -> None:
        self.url, self.port, self.process = f"http://127.0.0.1:{port}", port, process
        self.folder, self.model, self.side = folder, model, side
        self.models = [model.read_bytes(), changed(model)]
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
            self.deaf: 1.0,
            self.another_pool: 2.0,
            self.reload: 10.0,
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

    def _whole(self, draw: random.Random, count: int) -> bytes:
        headers, body = open_inference(self._pixels(draw, count))
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = ["POST /v2/models/lloss/infer HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *lines]
        head.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*head, "", ""]).encode() + body

    def hang_up(self, _: httpx.Client, draw: random.Random) -> None:
        whole = self._whole(draw, 8)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as s:
            s.sendall(whole[: draw.randrange(1, len(whole) + 1)])
        self.codes["hang up", 0] += 1

    def deaf(self, _: httpx.Client, draw: random.Random) -> None:
        """Asks for much and reads nothing for a while."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as s:
            s.settimeout(5)
            s.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 30)
            s.sendall(self._whole(draw, 40))
            self._stopped.wait(draw.uniform(0, 3))
        self.codes["deaf", 0] += 1

    def select(self, client: httpx.Client, draw: random.Random) -> None:
        answer = client.post("/v1/pools/soak/select", json={"k": 5, "at_most": True})
        chosen = self._count("select", answer)
        if answer.status_code != 200:  # all are labeled, or it was not scored yet
            if ids := self._labeled(client)[:300]:
                self._count("unlabel", client.delete("/v1/pools/soak/labels", params={"id": ids}))
            return
        ids = [image["id"] for image in chosen["images"]]
        if draw.random() < 0.5:
            labels = [{"id": id, "label": "a"} for id in ids]
            url = "/v1/pools/soak/labels?allow_new_classes=true"
            self._count("label", client.post(url, json={"labels": labels}))
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

    def another_pool(self, client: httpx.Client, draw: random.Random) -> None:
        pool = f"/v1/pools/{draw.randrange(1 << 32)}"
        self._count("put", client.put(pool, json={"uri": str(self.folder / "pool")}))
        answer = self._count("job", client.post(f"{pool}/score"))
        for _ in range(100):
            self._stopped.wait(0.1)
            job = client.get(f"/v1/jobs/{answer['id']}").json()
            if job["state"] not in ("queued", "running"):
                break
        else:
            client.delete(f"/v1/jobs/{answer['id']}")
        chosen = client.post(f"{pool}/select", json={"k": 50}, headers={"Idempotency-Key": "one"})
        self._count("select", chosen)
        self._count("page", client.get(pool.removeprefix("/v1")))
        self._count("delete", client.delete(pool))

    def reload(self, *_: object) -> None:
        """The other model; now and then the same again."""
        aside = self.model.with_suffix(".new")
        aside.write_bytes(self.models[0])
        aside.replace(self.model)
        if self.codes["SIGHUP", 0] % 3:
            self.models.reverse()
        os.kill(self.process, signal.SIGHUP)
        self.codes["SIGHUP", 0] += 1


def encoded(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def changed(model: Path) -> bytes:
    """The same model as another file."""
    graph = onnx.load(model)
    graph.doc_string += " (again)"
    whole: bytes = graph.SerializeToString()
    return whole


def watched(process: int, data: Path) -> dict[str, float]:
    """Megabytes of a process and of its data dir, threads and open descriptors."""
    status = Path(f"/proc/{process}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {
        "MB": int(fields["VmRSS"].split()[0]) / 1024,
        "anonymous MB": int(fields["RssAnon"].split()[0]) / 1024,
        "threads": int(fields["Threads"]),
        "descriptors": len(list(Path(f"/proc/{process}/fd").iterdir())),
        "disk MB": disk_bytes(data) / 1e6,
    }


def disk_bytes(data: Path) -> int:
    """Sum the sizes of all files; ignore those that disappear."""
    total = 0
    for folder, _, names in os.walk(data):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(folder) / name).stat().st_size
    return total


def grown(samples: list[dict[str, float]]) -> tuple[list[str], str]:
    """What is not flat, and a table: the first quarter against the last."""
    quarter = max(1, len(samples) // 4)
    lines = ["| | first quarter | last quarter | most |", "|---|--:|--:|--:|"]
    wrong = []
    for name, growth in WATCHED.items():
        values = [sample[name] for sample in samples]
        first = statistics.median(values[:quarter])
        last = statistics.median(values[-quarter:])
        lines.append(f"| {name} | {first:,.0f} | {last:,.0f} | {max(values):,.0f} |")
        most = first * MORE if growth is None else first + growth
        if last > most:
            wrong.append(f"{name} grew from {first:,.0f} to {last:,.0f}")
    return wrong, "\n".join(lines)


def drawn(samples: list[dict[str, float]], warm_up: float, path: Path) -> None:
    """Draw each watched figure over time as SVG, one below the other."""
    end = samples[-1]["seconds"]
    rows = [f'<path d="M{640 * warm_up / end:.1f} 0v{110 * len(WATCHED)}" stroke="#aaa"/>']
    for number, name in enumerate(WATCHED):
        base, most = 110 * number + 100, max(one[name] for one in samples) or 1
        points = " ".join(
            f"{640 * one['seconds'] / end:.1f},{base - 80 * one[name] / most:.1f}"
            for one in samples
        )
        rows.append(f'<text y="{base - 86}">{name}: at most {most:,.0f}</text>')
        rows.append(f'<polyline points="{points}" fill="none" stroke="#c2410c"/>')
    box = f"0 0 640 {110 * len(WATCHED)}"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" font-size="11">'
    path.write_text(svg + "".join(rows) + "</svg>\n", encoding="utf-8")


@click.command()
@click.option(
    "--model", type=PATH, help="Of lloss export.  [default: an untrained ResNet-18, 32×32]"
)
@click.option("--seconds", default=600.0, show_default=True)
@click.option("--warm-up", default=120.0, show_default=True, help="Of them, not judged.")
@click.option("--log", type=PATH, help="Keep what the daemon says here.")
@click.option("--picture", type=PATH, help="Draw the watched figures as SVG.")
def main(
    model: Path | None, seconds: float, warm_up: float, log: Path | None, picture: Path | None
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = Path(shutil.copy(model or untrained(folder, "int8"), folder / "served.onnx"))
        pool = folder / "pool"
        pool.mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (400, 32, 32, 3), np.uint8)
        for number, pixels in enumerate(noise):
            (pool / f"{number:04d}.png").write_bytes(encoded(pixels))
        (pool / "broken.png").write_bytes(b"no image")
        log = log or folder / "log"
        said = log.open("wb")
        port = free_port()
        command = [sys.executable, "-m", "lloss", "serve", str(model), "--port", str(port)]
        command += ["--data-dir", str(folder / "data"), "--pool-root", str(folder)]
        process = subprocess.Popen([*command, "--provider", "cpu"], stdout=said, stderr=said)
        try:
            samples, codes = soaked(process, port, folder, model, seconds)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
            errors = log.read_text(errors="replace").count('"level": "error"')
    if picture is not None:
        drawn(samples, warm_up, picture)
    judged = [sample for sample in samples if sample["seconds"] >= warm_up]
    if len(judged) < 4:
        raise click.ClickException(f"--seconds {seconds}: give more than --warm-up {warm_up}")
    wrong, table = grown(judged)
    click.echo(f"{seconds:.0f} seconds, the first {warm_up:.0f} not judged; ended with {code}\n")
    click.echo(table + "\n")
    click.echo(", ".join(f"{what} {code or ''}: {n}" for (what, code), n in sorted(codes.items())))
    broken = {what: n for (what, code), n in codes.items() if code >= 500 or code == 404}
    wrong += [f"{n} answers of 404 or 5xx to {what}" for what, n in broken.items()]
    wrong += [f"exit code {code}"] if code else []
    wrong += [f"{errors} errors in the log"] if errors else []
    if wrong:
        raise click.ClickException("; ".join(wrong))


def soaked(
    process: subprocess.Popen[bytes], port: int, folder: Path, model: Path, seconds: float
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
    traffic = Traffic(port, process.pid, folder, model, (side[0], side[1]))
    traffic.start()
    samples = []
    begun = time.monotonic()
    with tqdm(total=round(seconds), unit="s", disable=None) as bar:
        while (passed := time.monotonic() - begun) < seconds:
            bar.update(round(passed) - bar.n)
            if process.poll() is not None:
                raise click.ClickException(f"the daemon ended with {process.returncode}")
            samples.append({"seconds": passed, **watched(process.pid, folder / "data")})
            time.sleep(EVERY)
    traffic.stop()
    return samples, traffic.codes


if __name__ == "__main__":
    main()
