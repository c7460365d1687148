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

from lloss.cli.device_option import provider_option
from lloss.errors import SettingsError
from lloss.runtime import tf32
from lloss.serve.daemon.deps import Daemon
from lloss.serve.daemon.main import serve as run
from lloss.serve.daemon.observability import logs
from lloss.serve.daemon.settings import Limits, ServeSettings

TOKEN = "LLOSS_TOKEN"
PATH = click.Path(path_type=Path)

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Duration(click.ParamType[float]):
    """``90s``, ``30m``, ``24h``, ``7d``; a bare number is of seconds."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Seconds."""
        if isinstance(value, float | int):
            return float(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(value).strip().lower())
        if found is None:
            self.fail(f"{value!r}: give a duration such as 90s, 30m, 24h or 7d", param, ctx)
        return float(found[1]) * _SECONDS[found[2] or "s"]


class Size(click.ParamType[int]):
    """``500K``, ``64M``, ``1G`` (of 1024); a bare number is of bytes."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+)\s*([KMG]?)(?:I?B)?", str(value).strip().upper())
        if found is None:
            self.fail(f"{value!r}: give a size such as 500K, 64M or 1G", param, ctx)
        return int(found[1]) * _BYTES[found[2]]


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--data-dir", type=PATH, required=True, help="Where pools, jobs, labels and scores are kept."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--token-file",
    type=PATH,
    help=f"File with the token that requests must bear; or set {TOKEN}, which other processes of "
    "this user can read. Needed off loopback.",
)
@click.option(
    "--pool-root",
    "pool_roots",
    multiple=True,
    help="Folder (or URL prefix) under which pools may lie; may be repeated.  [default: none]",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    help="Name by which clients reach the server; may be repeated.  [default: the address itself]",
)
@click.option(
    "--public-url",
    default="",
    help="Under which clients reach it behind a proxy, such as https://NAME: of links, and of what "
    "browsers are told.  [default: that of each request]",
)
@provider_option
@click.option(
    "--batch-size",
    type=click.IntRange(0),
    default=0,
    help="Images a run.  [default: measured best]",
)
@click.option(
    "--job-batch-size",
    type=click.IntRange(0),
    default=0,
    help="Images a run of pools scored in the background.  [default: what keeps requests quick]",
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    help="Threads that decode and (on the CPU) compute.  [default: one a core]",
)
@click.option(
    "--pending",
    type=Duration(),
    default="24h",
    show_default=True,
    help="For how long an image that was handed out is kept from others.",
)
@click.option(
    "--image-url",
    default="",
    help="By what a labeling tool fetches an image, with {pool} and {id}.  [default: this server]",
)
@click.option(
    "--max-body", type=Size(), default="64M", show_default=True, help="Bytes of a request at most."
)
@click.option(
    "--queue",
    type=click.IntRange(1),
    default=Limits().queue_images,
    show_default=True,
    help="Images that wait for the engine at most; more are answered 429.",
)
@click.option(
    "--timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="Within which an answer must be found.",
)
@click.option(
    "--drain",
    type=Duration(),
    default="30s",
    show_default=True,
    help="For how long requests under way may go on after SIGTERM.",
)
@click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    default="json",
    show_default=True,
    help="Of the log, on standard error.",
)
def serve(
    token_file: Path | None,
    max_body: int,
    queue: int,
    timeout: float,
    pending: float,
    drain: float,
    log_format: logs.Format,
    **given: Any,
) -> None:
    """Score images on request and pools in the background, and tell which are next.

    Listens on loopback unless told otherwise; prints its URL when it does. SIGTERM ends it when
    what was accepted is answered; SIGHUP has it load MODEL again.
    """
    tf32.forbid()
    token, warning = read_token(token_file)
    default = Limits()
    limits = Limits(
        body_bytes=max_body,
        inflated_bytes=max(default.inflated_bytes, max_body),
        in_flight_bytes=max(default.in_flight_bytes, 4 * max_body),
        queue_images=queue,
        request_seconds=timeout,
    )
    settings = ServeSettings(
        token=token, limits=limits, pending_seconds=pending, drain_seconds=drain, **given
    )
    logs.configure(log_format)
    if warning:
        logs.event("token file", logging.WARNING, reason=warning)
    try:
        run(settings, _tell)
    finally:
        logs.flush()


def _tell(daemon: Daemon) -> None:
    click.echo(daemon.settings.url)
    sys.stdout.flush()


def read_token(file: Path | None) -> tuple[str, str]:
    """The token of a file or of the environment, and what is to be warned of.

    Raises:
        SettingsError: the file cannot be read or is empty.
    """
    if file is None:
        # So that no child process inherits it. /proc shows what this one was started with all the
        # same, to this user: whoever minds that gives --token-file.
        return os.environ.pop(TOKEN, "").strip(), ""
    try:
        text = file.read_text(encoding="utf-8").strip()
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise SettingsError(f"--token-file {file}: cannot be read: {reason}") from error
    if not text:
        raise SettingsError(f"--token-file {file}: is empty; write a token into it")
    readable = mode & (stat.S_IRGRP | stat.S_IROTH)
    return text, f"{file} can be read by others: chmod 600 {file}" if readable else ""
