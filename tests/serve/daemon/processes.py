"""``lloss serve`` itself as a process, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .waiting import PATIENCE, until


class Process:
    """``lloss serve`` on a port of its own; the first pool root is its folder.

    Args:
        folder: for its log; there are the model and the data dir, unless others are given.
        options: of the command line.
        model: that it serves.
        data: its data dir.
        token: that it asks for, and that requests send.
        program: Python's arguments before those of the command line.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        model: Path | None = None,
        data: Path | None = None,
        token: str = "",
        program: Sequence[str] = ("-m", "lloss"),
    ) -> None:
        self.model, self.data = model or folder / "model.onnx", data or folder / "data"
        self.headers = {"Content-Type": "application/json"}
        environment = {**os.environ}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
            environment["LLOSS_TOKEN"] = token
        self._log = folder / "log"

        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, "serve", str(self.model), "--port=0",
                 f"--data-dir={self.data}", f"--pool-root={folder}", "--provider=cpu", *options],
                stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
            )  # fmt: skip
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2] or 0)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, raw, {**self.headers, **headers})
            reply = connection.getresponse()
            content = reply.read()
            kind = reply.headers["content-type"] or ""
            is_json = kind.startswith("application/json")
            return reply.status, json.loads(content) if is_json else content

    def infer(self, count: int = 1) -> tuple[int, Any]:
        headers, body = inference(count)
        return self.ask("POST", "/v2/models/lloss/infer", body, **headers)

    def ready(self) -> Process:
        return self.until(lambda: self.ask("GET", "/readyz")[0] == 200)

    def until(self, done: Callable[[], Any]) -> Process:
        def found() -> Any:
            assert self.process.poll() is None, self.log_text()
            return done()

        until(found, describe=self.log_text)
        return self

    def scored(self, name: str, uri: Path) -> dict[str, Any]:
        """The job of a pool, when it is done."""
        assert self.ask("PUT", f"/v1/pools/{name}", {"uri": str(uri)})[0] == 200
        status, job = self.ask("POST", f"/v1/pools/{name}/score")
        assert status == 202, job
        return self.ended(job["id"])

    def ended(self, job: str) -> dict[str, Any]:
        def done() -> bool:
            return self.ask("GET", f"/v1/jobs/{job}")[1]["state"] not in ("queued", "running")

        self.until(done)
        found: dict[str, Any] = self.ask("GET", f"/v1/jobs/{job}")[1]
        return found

    def metric(self, name: str) -> float:
        """Its value; 0 when labels were given that nothing was counted under yet."""
        text = self.ask("GET", "/metrics")[1].decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        family, labels, _ = name.partition("{")
        assert found or (labels and f"# TYPE {family} " in text), f"no metric {name}"
        return float(found[1]) if found else 0.0

    def log_text(self) -> str:
        """Return what it has logged by now; a line comes a moment after its event."""
        return self._log.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def inference(count: int) -> tuple[dict[str, str], bytes]:
    """A binary tensor of some pixels."""
    data = random.Random(count).randbytes(count * 192)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [count, 8, 8, 3],
              "parameters": {"binary_data_size": len(data)}}  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    kind = "application/octet-stream"
    return {"Content-Type": kind, "Inference-Header-Content-Length": str(len(head))}, head + data


def raw_inference(count: int) -> bytes:
    headers, body = inference(count)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = ["POST /v2/models/lloss/infer HTTP/1.1", "Host: localhost", *lines]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body
