"""``lloss serve``."""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import click

from lloss.cli.options import PATH, automatic_option, provider_option
from lloss.errors import SettingsError
from lloss.runtime import tf32
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.main import serve as run
from lloss.serve.daemon.observability import logs
from lloss.serve.daemon.settings import Limits, ServeSettings

TOKEN = "LLOSS_TOKEN"


class Amount(click.ParamType[float]):
    """A number with one of some units."""

    def __init__(self, name: str, units: dict[str, int], examples: str) -> None:
        self.name, self.units, self.examples = name, units, examples

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the number in the unit "", which may be left out."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]?)", str(value).strip().lower())
        if match is None or match[2] not in self.units:
            self.fail(f"{value!r}: give a {self.name}: {self.examples}", param, ctx)
        return float(match[1]) * self.units[match[2]]


DURATION = Amount(
    "duration", {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}, "90s, 30m, 24h or 7d"
)
SIZE = Amount("size", {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}, "500K, 64M or 1G")


@click.command("serve")
@click.argument("model", type=PATH)
@click.option(
    "--data-dir", type=PATH, required=True, help="Folder for pools, jobs, labels and scores."
)
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, help="Port; 0 picks a free one."
)
@click.option(
    "--token-file",
    type=PATH,
    help=f"File with the token that requests must send; or set {TOKEN}, which other processes of "
    "this user can read. Required unless --host is a loopback address.",
)
@click.option(
    "--pool-root",
    "pool_roots",
    multiple=True,
    help="Folder (or URL prefix) that pools must be inside. Repeatable.  [default: none]",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    help="Host name that clients use. Repeatable.  [default: the address itself]",
)
@click.option(
    "--public-url",
    default="",
    show_default="that of each request",
    help="URL of the server as clients behind a proxy see it: https://NAME. Used in links.",
)
@provider_option
@automatic_option("--batch-size", "measured best", "Images per batch.")
@automatic_option(
    "--job-batch-size", "what keeps requests fast", "Images per batch of background scoring."
)
@automatic_option("--threads", "one per core", "Threads that decode and (on the CPU) compute.")
@click.option(
    "--pending",
    "pending_seconds",
    type=DURATION,
    default="24h",
    help="How long a handed-out image is withheld from other labelers.",
)
@click.option(
    "--image-url",
    default="",
    show_default="this server",
    help="URL from which a labeling tool fetches an image, with {pool} and {id}.",
)
@click.option("--max-body", type=SIZE, default="64M", help="Largest request body in bytes.")
@click.option(
    "--queue",
    type=click.IntRange(1),
    default=Limits().queue_images,
    help="Images that may wait for the engine; further requests get status 429.",
)
@click.option("--timeout", type=DURATION, default="30s", help="Deadline of a request.")
@click.option(
    "--drain",
    "drain_seconds",
    type=DURATION,
    default="30s",
    help="How long running requests may take to finish after SIGTERM.",
)
def command(
    token_file: Path | None,
    max_body: float,
    queue: int,
    timeout: float,
    **settings: Any,
) -> None:
    """Score images on request and pools in the background; hand out the images to label next.

    Listens on loopback by default and prints its URL once it is ready. On SIGTERM it finishes the
    accepted requests and exits; on SIGHUP it reloads MODEL.
    """
    tf32.forbid()
    token, warning = read_token(token_file)
    limits = Limits(
        body_bytes=int(max_body),
        in_flight_bytes=max(Limits().in_flight_bytes, 4 * int(max_body)),
        queue_images=queue,
        request_seconds=timeout,
    )
    logs.configure()
    if warning:
        logs.event("token_file_readable", logging.WARNING, reason=warning)
    try:
        run(ServeSettings(token=token, limits=limits, **settings), _print_url)
    finally:
        logs.flush()


def _print_url(daemon: Daemon) -> None:
    click.echo(daemon.settings.url)
    sys.stdout.flush()


def read_token(file: Path | None) -> tuple[str, str]:
    """Return the token of the file or the environment, and a warning or "".

    Raises:
        SettingsError: the file cannot be read or is empty.
    """
    if file is None:
        # pop: child processes do not inherit it. /proc still shows it to this user; --token-file
        # avoids that.
        return os.environ.pop(TOKEN, "").strip(), ""
    try:
        text = file.read_text(encoding="utf-8").strip()
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SettingsError(f"--token-file {file}: cannot be read: {reason}") from error
    if not text:
        raise SettingsError(f"--token-file {file}: is empty; write a token into it")
    readable = mode & (stat.S_IRGRP | stat.S_IROTH)
    return text, f"other users can read {file}: chmod 600 {file}" if readable else ""
