"""Published weights by their URL: downloaded once, and checked by the hash in their name."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import queue
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from tqdm import tqdm

from lloss.errors import LlossError
from lloss.files import atomic_write, sha256_of

ANSWER_SECONDS = 10.0
"""How long a server may take to begin its answer, names and all addresses of it together; then how
long it may pause."""

BLOCK = 1 << 20  # Bytes

_HASH = re.compile(r"-([0-9a-f]{8,})\.")  # As in resnet18-f37072fd.pth, of SHA-256


class WeightsUnavailableError(LlossError):
    """Published weights that cannot be had; the message says why."""


def cached(url: str) -> Path:
    """Return the file of a URL in PyTorch's cache, where torchvision and timm look for it too.

    A file that is there and has the hash of its name is not downloaded again. Raises
    :class:`WeightsUnavailableError`: no answer, not found, damaged on the way, no place to write.
    """
    name = Path(urlsplit(url).path).name
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    found = _HASH.search(name)
    digest = found.group(1) if found else ""
    there = path.is_file()
    if there and sha256_of(path).startswith(digest):
        return path
    damaged = f"{path} is damaged, and " if there else ""
    try:
        _download(url, path, digest)
    except (OSError, ValueError, http.client.HTTPException, LlossError) as error:
        raise WeightsUnavailableError(
            f"{damaged}{name} cannot be downloaded from {urlsplit(url).netloc}: {one_line(error)}"
        ) from error
    return path


def answers(url: str) -> None:
    """Return if a server answers, whatever it says; ``OSError`` if it does not in time.

    One byte is read: hosts may answer HEAD where what serves the content does not.
    """
    with (
        contextlib.suppress(urllib.error.HTTPError),
        _open(urllib.request.Request(url, headers={"Range": "bytes=0-0"})) as reply,
    ):
        reply.read(1)


def _download(url: str, path: Path, digest: str) -> None:
    reply, sha256 = _open(url), hashlib.sha256()
    total = int(reply.headers.get("Content-Length") or 0)
    with (
        reply,
        atomic_write(path) as aside,
        aside.open("wb") as file,
        tqdm(total=total or None, unit="B", unit_scale=True, disable=None, desc=path.name) as bar,
    ):
        while block := reply.read(BLOCK):
            file.write(block)
            sha256.update(block)
            bar.update(len(block))
        if total and file.tell() != total:
            raise WeightsUnavailableError(f"only {file.tell()} of {total} bytes came")
        if not sha256.hexdigest().startswith(digest):
            found = sha256.hexdigest()[: len(digest)]
            raise WeightsUnavailableError(f"the file has the hash {found}, not {digest}")


def _open(url: str | urllib.request.Request) -> Any:
    """Open a URL within :data:`ANSWER_SECONDS`; a thread that waits longer ends by itself.

    The timeout of ``urlopen`` is of each address of a host, and not of looking up its name.
    """
    results: queue.Queue[Any] = queue.Queue(1)

    def run() -> None:
        try:
            results.put(urllib.request.urlopen(url, timeout=ANSWER_SECONDS))
        except Exception as error:  # raised again below
            results.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        reply = results.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {ANSWER_SECONDS:g} s") from None
    if isinstance(reply, Exception):
        raise reply
    return reply


def one_line(error: BaseException) -> str:
    """Say what an error says, in one line; urllib puts the system's error into its own."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError):
        error = error.reason
    system = isinstance(error, OSError) and not isinstance(error, urllib.error.HTTPError)
    text = error.strerror if system and error.strerror else str(error)  # type: ignore[attr-defined]
    return " ".join(text.split()) or type(error).__name__
