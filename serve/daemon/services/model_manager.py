"""The model that serves, how it is replaced, and the models that jobs use."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services import memory_trim
from lloss.serve.daemon.services.batcher import Batcher, ClosedError
from lloss.serve.daemon.services.request_queue import Answer, Images
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.scoring.batch.slots import ComputeSlots
from lloss.serve.scoring.scorer import Scorer
from numpy.typing import NDArray

from lloss.errors import EngineError, LlossError, ModelFileError
from lloss.files import atomic_write, sha256_of, sweep


class Scored(NamedTuple):
    """An answer, and the model that gave it."""

    answer: Answer
    model: LoadedModel


class LoadedModel:
    """A model in memory; ``users`` are the server, through ``batcher``, and jobs that borrow it.

    ``note`` is a remark on how it runs, such as why not on a GPU; or "".
    """

    batcher: Batcher

    def __init__(self, sha256: str, scorer: Scorer) -> None:
        self.sha256, self.scorer = sha256, scorer
        self.manifest = scorer.manifest
        self.provider, self.note = scorer.engine.provider, scorer.engine.note
        self.users = 1


class ModelManager:
    """Serves one model, and keeps copies in ``data_dir/models`` for jobs that began with others."""

    def __init__(self, settings: ServeSettings, metrics: DaemonMetrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._folder = settings.data_dir / "models"
        self._serving: LoadedModel | None = None
        self._loaded: dict[str, LoadedModel] = {}
        self._lock = threading.Lock()  # of _loaded; held briefly
        self._loading = threading.Lock()  # one load at a time, for as long as it takes
        self._closed = False
        self._slots = ComputeSlots(settings.threads)

    def load(self) -> None:
        """Load ``settings.model``, the first time. Blocks. Raises as :meth:`reload`."""
        with self._loading:
            self._serve(self._load_checked(self._copy()))
        memory_trim.trim()

    def reload(self) -> tuple[str, str]:
        """Load ``settings.model`` again next to the serving model, check it, and swap. Blocks.

        Returns the SHA-256 of the model that served before, and of the one that serves now.
        No request fails: those in progress finish with the earlier model. Concurrent calls wait.
        After an ModelFileError or EngineError the earlier one serves on.
        """
        with self._loading:
            before = self.current.sha256
            try:
                sha256 = self._copy()
                if sha256 != before:
                    self._serve(self._load_checked(sha256))
            except BaseException:
                self._metrics.reloaded("refused")
                raise
            self._metrics.reloaded("unchanged" if sha256 == before else "swapped")
            memory_trim.trim()  # of the earlier one, unless a job uses it
            return before, sha256

    def not_ready(self) -> str:
        """Why nothing can be scored, such as a lost GPU; or ""."""
        if self._closed:
            return "the model was unloaded: the server is shutting down"
        serving = self._serving
        return serving.scorer.engine.failure() if serving else "the model is not loaded yet"

    @property
    def sha256(self) -> str:
        """The serving model's digest; "" before one is loaded."""
        serving = self._serving
        return serving.sha256 if serving else ""

    @property
    def current(self) -> LoadedModel:
        """The serving model. Raises RequestError: 503 none is loaded yet."""
        serving = self._serving
        if serving is None:
            raise RequestError(503, self.not_ready(), 1.0)
        return serving

    async def score(self, images: Images, seconds: float) -> Scored:
        """Score with the serving model; see :meth:`.batcher.Batcher.score`."""
        while True:
            serving = self.current
            batcher = serving.batcher
            try:
                return Scored(await batcher.score(images, seconds), serving)
            except ClosedError:  # it may have been replaced at this moment
                if batcher is self.current.batcher:
                    self._metrics.refused("draining", len(images))
                    raise

    @contextlib.contextmanager
    def borrowed(self, sha256: str) -> Iterator[Scorer]:
        """A scorer of this model for a job: the serving one, or loaded for it."""
        loaded = self._borrow(sha256)
        if loaded is None:
            with self._loading:
                loaded = self._borrow(sha256) or self._open(sha256)
        try:
            yield loaded.scorer
        finally:
            self._release(loaded)

    def prune(self, keep: set[str]) -> None:
        """Remove copies of models that are neither loaded nor kept; not during a load."""
        if self._loading.acquire(blocking=False):
            try:
                with self._lock:
                    keep = keep | set(self._loaded)
                if self._folder.is_dir():
                    sweep(self._folder)
                for path in self._folder.glob("*.onnx"):
                    if path.stem not in keep:
                        path.unlink(missing_ok=True)
            finally:
                self._loading.release()

    def close(self) -> None:
        """Finish waiting requests and free all models; borrowed ones when they are returned."""
        with self._loading:
            self._closed = True
            self._replace(None)

    def _serve(self, loaded: LoadedModel) -> None:
        """Serve a model that was borrowed for it."""
        if self._closed:
            self._release(loaded)
            raise ClosedError
        loaded.batcher = Batcher(loaded.scorer, self._settings.limits, self._metrics)
        self._metrics.model(loaded.manifest, loaded.sha256, loaded.scorer.engine.device)
        self._replace(loaded)

    def _replace(self, new: LoadedModel | None) -> None:
        """Serve another model or none; the earlier one is freed when its requests are done."""
        old = self._serving
        if new is not None:
            self._serving = new
        if old is not None:
            old.batcher.close()
            self._serving = new
            self._release(old)

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.onnx"

    def _copy(self) -> str:
        """Copy ``settings.model``, which may be overwritten from then on; returns its SHA-256."""
        model = self._settings.model
        try:
            if not model.is_file():
                make = f"make it with lloss export RUN -o {model}"
                raise ModelFileError(f"{model}: no such file; {make}")
            before, content = model.stat().st_mtime_ns, model.read_bytes()
            if model.stat().st_mtime_ns != before:  # half of it may be of another model
                raise ModelFileError(f"{model}: is being written; load it when that is done")
        except OSError as error:
            raise ModelFileError(f"{model}: cannot be read: {error.strerror or error}") from error
        sha256 = hashlib.sha256(content).hexdigest()
        with atomic_write(self._path(sha256)) as aside:
            aside.write_bytes(content)
        return sha256

    def _load_checked(self, sha256: str) -> LoadedModel:
        """Borrow a model for serving; errors name ``settings.model`` instead of the copy."""
        try:
            return self._borrow(sha256) or self._open(sha256)
        except LlossError as error:
            copy, model = self._path(sha256), str(self._settings.model)
            message = str(error).replace(str(copy.absolute()), model).replace(str(copy), model)
            kind = ModelFileError if isinstance(error, ModelFileError) else EngineError
            raise kind(message) from error

    def _open(self, sha256: str) -> LoadedModel:
        path, settings = self._path(sha256), self._settings
        if not path.is_file() or sha256_of(path) != sha256:
            raise ModelFileError(
                f"{path}: the copy of this model is gone or damaged; score the pool again with the "
                "model that serves now"
            )
        scorer = Scorer(
            path,
            settings.provider,
            settings.batch_size,
            settings.threads,
            telemetry=self._metrics.telemetry,
            slots=self._slots,
        )
        try:
            _check_model(scorer, self._serving.scorer if self._serving else None, path)
        except BaseException:
            scorer.close()
            raise
        with self._lock:
            loaded = self._loaded[sha256] = LoadedModel(sha256, scorer)
        return loaded

    def _borrow(self, sha256: str) -> LoadedModel | None:
        with self._lock:
            loaded = self._loaded.get(sha256)
            if loaded is not None:
                loaded.users += 1
            return loaded

    def _release(self, loaded: LoadedModel) -> None:
        with self._lock:
            loaded.users -= 1
            if loaded.users:
                return
            del self._loaded[loaded.sha256]
        loaded.scorer.close()


def _check_model(scorer: Scorer, serving: Scorer | None, path: Path) -> None:
    """Refuse a model whose outputs are not finite or of the wrong shape.

    Also one that runs on the CPU, unless it is int8, while ``serving`` runs on a GPU: it was lost.
    """
    engine = scorer.engine
    lost = serving is not None and engine.on_host and not serving.engine.on_host
    if serving is not None and lost and engine.manifest.precision != "int8":
        why = f" ({engine.note})" if engine.note else ""
        raise EngineError(
            f"{path}: would run on the CPU{why}, but the model that serves runs on "
            f"{serving.engine.device}; restart the daemon to continue on the CPU"
        )
    image, most = scorer.manifest.image, scorer.batch_size
    noise = np.random.default_rng(0)
    for count in sorted({1, min(2, most), -(-most // 2), most}):
        shape = (count, image.height, image.width, 3)
        for pixels in (np.zeros(shape, np.uint8), noise.integers(0, 256, shape, np.uint8)):
            outputs = engine.run(pixels)
            for name, trailing in scorer.manifest.outputs.items():
                _check_output(name, outputs[name], (count, *trailing), path)


def _check_output(
    name: str, values: NDArray[np.float32], shape: tuple[int, ...], path: Path
) -> None:
    if values.shape != shape:
        raise EngineError(
            f"{path}: gives {name} of shape {list(values.shape)} for {shape[0]} images, "
            f"not {list(shape)}; export it again"
        )
    if not np.isfinite(values).all():
        raise EngineError(
            f"{path}: gives {name} that is not finite for a batch of {shape[0]}; "
            "did its training diverge?"
        )
