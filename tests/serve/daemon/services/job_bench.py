"""A daemon without a socket that tests start again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.records import JobRow

from ..waiting import until

ENDED = ("done", "failed", "cancelled")


class Bench:
    """A daemon that is started again and again; ``pause`` is seconds of each batch of a job."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.pause = 0.0
        self.daemon: Daemon | None = None

    def start(self, **changes: Any) -> Daemon:
        self.close()
        settings: dict[str, Any] = {
            "model": self.folder / "model.onnx",
            "data_dir": self.folder / "data",
            "pool_roots": (str(self.root),),
            "provider": "cpu",
            "threads": 1,
        }
        self.daemon = Daemon(ServeSettings(**{**settings, **changes}))
        self.daemon.start()
        for name in ("pool", "array.npy"):
            self.daemon.pools.put(name, str(self.root / name))
        return self.daemon

    def close(self) -> None:
        if self.daemon is not None:
            self.daemon.close()

    def until(self, job: JobRow, *states: str) -> JobRow:
        """The job, once it is in one of these states, or has ended."""
        assert self.daemon is not None
        jobs = self.daemon.catalog.jobs
        until(lambda: jobs.row(job.id).state in (states or ENDED))
        return jobs.row(job.id)

    def score(self, pool: str, **options: Any) -> JobRow:
        """A job that has ended."""
        assert self.daemon is not None
        return self.until(self.daemon.jobs.submit(pool, **options))

    def interrupted(self, pool: str, parts: int = 2, **changes: Any) -> JobRow:
        """A job of a daemon that was closed after some parts."""
        self.pause = 0.02
        daemon = self.start(**changes)
        job = daemon.jobs.submit(pool)
        until(lambda: len(list(job.folder.glob("part-*"))) >= parts)
        daemon.close()
        self.pause = 0.0
        return job
