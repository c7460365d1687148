"""A bucket on a real server that speaks S3, and what is in a scores folder, there or on a disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lloss.scores.scores_folder import ScoresFolder

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "hush-hush"}
QUICK = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1",
         "AWS_MAX_ATTEMPTS": "1"}  # fmt: skip


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A bucket's URL on a server."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    settings = {**KEYS, **QUICK, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    for name, value in settings.items():
        patch.setenv(name, value)
    import fsspec

    fsspec.filesystem("s3").mkdir("bucket")
    yield "s3://bucket"
    patch.undo()
    server.stop()


def contents(folder: Path | str) -> dict[str, bytes]:
    """The bytes of each file."""
    files = ScoresFolder(folder).files
    return {name: files.read(name) or b"" for name in files.names()}
