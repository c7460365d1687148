"""A daemon with pictures and a stub of a model: real catalog, scores and HTTP."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lloss.serve.daemon.app import create_app
from lloss.serve.daemon.http.middleware import RequestMiddleware
from lloss.serve.daemon.store.records import JobRow, PoolScores
from PIL import Image
from starlette.testclient import TestClient

from lloss.images.decode import ImageSpec
from lloss.manifest import Manifest

from ..running_server import RunningServer
from ..scores import write_scores
from ..stub_daemon import StubDaemon

SHA256 = "5f" * 32

HOSTILE = (
    "<script>alert(1)</script>.png",
    "\"' onerror=alert(1) x='.png",
    "\u202egnp.exe",
    "line\nbreak\r\nand\ttab.png",
    "&amp;&lt;%2e%2e+&id=x#y?z.png",
    "x" * 4000,
    "名前-ÅÄÖ-🙂.png",
    "../../etc/passwd",
)

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1280,1000",
    # To a browser a name is another machine, which it trusts less than loopback.
    "--host-resolver-rules=MAP scores.example 127.0.0.1",
)  # fmt: skip


class World(StubDaemon):
    """A daemon with a classifier, and what tests do to it."""

    def __init__(
        self, folder: Path, classes: tuple[str, ...] = ("cat", "dog", "owl"), **settings: Any
    ):
        (folder / "images").mkdir(parents=True)
        self.manifest = Manifest(
            task="classification", model="resnet18", classes=classes,
            image=ImageSpec(32, 32), mean=(0, 0, 0), std=(1, 1, 1),
            outputs={"loss": (), "prediction": (), "confidence": ()},
        )  # fmt: skip
        model = SimpleNamespace(
            sha256=SHA256, manifest=self.manifest, provider="CPUExecutionProvider"
        )
        models = SimpleNamespace(sha256=SHA256, current=model)
        super().__init__(folder, models, **settings)
        self.jobs: Any = SimpleNamespace(
            submit=self._submit, cancel=self.catalog.jobs.cancel,
            live=lambda row: replace(row, rate=row.done / 2 or None),
        )  # fmt: skip
        self.app = create_app(cast(Any, self))

    def pool(self, name: str = "photos", count: int = 100, scored: bool = True) -> list[str]:
        """A folder of pictures, scored with falling loss; its ids, the most promising first."""
        images = self.folder / "images" / name
        images.mkdir(exist_ok=True)
        ids = [f"{number:04d}.png" for number in range(count)]
        for number, id in enumerate(ids):
            drawn(number).save(images / id)
        self.pools.put(name, str(images))
        if scored:
            losses = np.sort(np.random.default_rng(len(name)).gamma(3, 0.5, count))[::-1]
            self.score(name, ids, losses.astype(np.float32))
        return ids

    def array_pool(self, name: str, pixels: np.ndarray[Any, Any]) -> None:
        np.save(self.folder / f"{name}.npy", pixels)
        self.pools.put(name, str(self.folder / f"{name}.npy"))

    def table_pool(self, name: str, images: dict[str, bytes]) -> None:
        """Encoded images under any ids, scored in the order given."""
        path = self.folder / f"{name}.parquet"
        table = pa.table({"id": list(images), "image": pa.array(images.values(), pa.binary())})
        pq.write_table(table, path)
        self.pools.put(name, f"{path}?id=id&image=image")
        self.score(name, list(images), np.linspace(3, 1, len(images), dtype=np.float32))

    def score(self, name: str, ids: list[str], losses: np.ndarray[Any, Any]) -> None:
        """Scores as a job leaves them."""
        row = self.catalog.pools.row(name)
        path = self.settings.data_dir / "pools" / name / "scores" / "1"
        rows = np.arange(len(ids))
        columns = {
            "loss": losses,
            "prediction": (rows % max(len(self.manifest.classes), 1)).astype(np.float32),
            "confidence": (0.3 + rows % 7 / 10).astype(np.float32),
        }
        write_scores(path, ids, columns, pool=row.uri, model_sha256=SHA256)
        self.catalog.pools.put(name, row.uri, PoolScores(path, SHA256, len(ids), 0))

    def _submit(self, name: str, anew: bool = False) -> JobRow:
        return self.catalog.jobs.submit(name, SHA256, 8, anew)

    def run_job(self, name: str, done: int, total: int | None) -> JobRow:
        """A job that is under way, though nobody works on it."""
        job = self._submit(name)
        self.catalog.jobs.begin(job.id, 8)
        self.catalog.jobs.progress(job.id, done, 0, total)
        return job

    def browser(self) -> TestClient:
        """A client with cookies of its own, without a socket."""
        app = RequestMiddleware(self.app, cast(Any, self))
        return TestClient(app, base_url="http://127.0.0.1:8000", follow_redirects=False)


def drawn(number: int) -> Image.Image:
    """A picture that differs from others."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST)


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Worlds, each in a folder of its own."""
    made: list[World] = []

    def make(**options: Any) -> World:
        made.append(World(tmp_path / f"world{len(made)}", **options))
        return made[-1]

    yield make
    for world in made:
        world.catalog.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture
def client(world: World) -> TestClient:
    return world.browser()


@pytest.fixture
def served(world: World) -> Iterator[SimpleNamespace]:
    """A world that listens on loopback."""
    server = RunningServer(RequestMiddleware(world.app, cast(Any, world)), world.settings)
    yield SimpleNamespace(world=world, url=f"http://127.0.0.1:{server.port}")
    server.close()


@pytest.fixture
def hostile() -> dict[str, bytes]:
    """Images whose ids try everything."""
    return {id: encoded(drawn(number)) for number, id in enumerate(HOSTILE)}


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, driven by selenium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.get("about:blank")  # its first page asks for this and that
    yield browser
    browser.quit()
