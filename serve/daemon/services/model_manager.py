"""The artifact that scores now, and how it is exchanged for another."""

from __future__ import annotations

import contextlib
import hashlib
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services import memory_trim as heap
from lloss.serve.daemon.services.batch_parts import Answer, Images
from lloss.serve.daemon.services.batcher import Batcher, ClosedError
from lloss.serve.daemon.services.inference_statistics import Statistics
from lloss.serve.daemon.services.model_check import probe, refuse_fall_back
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.scoring.batch.worker_pool import WorkerPools
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import ArtifactError, EngineError, LlossError
from lloss.files import sha256_of, sweep, written_aside
from lloss.manifest import Manifest


@dataclass(frozen=True)
class Reloaded:
    """What a reload did.

    Attributes:
        before: sha256 of the model that served.
        now: sha256 of the one that serves.
    """

    before: str
    now: str


@dataclass(frozen=True)
class Scored:
    """An answer, and the model it is of."""

    answer: Answer
    sha256: str
    manifest: Manifest


class Models:
    """Serves one model; keeps a copy of each under ``data_dir/models/<sha256>.onnx``.

    The copies are what is really loaded, so that a file that is written over harms nothing, and
    what a job goes on with that was begun by an earlier model.

    Attributes:
        statistics: of requests, for who counts them.
    """

    def __init__(self, settings: ServeSettings, metrics: DaemonMetrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._copies = Copies(settings.data_dir / "models")
        self._serving: _Serving | None = None
        self._loaded: dict[str, _Loaded] = {}
        self._lock = threading.Lock()  # of what is loaded; held for moments
        self._loading = threading.Lock()  # one at a time, for as long as it takes
        self._closed = False
        self._workers = WorkerPools()
        self.statistics = Statistics()
        self._batches = 0

    def load(self) -> None:
        """Load ``settings.model``, the first time. Blocks.

        Raises:
            ArtifactError: the file is no artifact, or cannot be read.
            EngineError: the provider cannot run it, or what it computes cannot be.
        """
        with self._loading:
            self._swap_to(self._checked(*self._copies.take(self._settings.model)))
        heap.give_back()

    def reload(self) -> Reloaded:
        """Load ``settings.model`` again beside the one that serves, check it, swap. Blocks.

        No request fails: those under way end with the model they began with. When two ask at a
        time, one waits for the other.

        Raises:
            LlossError: the new one is no artifact or fails its check; the old one goes on.
        """
        with self._loading:
            before = self._current().loaded
            try:
                sha256, fresh = self._copies.take(self._settings.model)
                if sha256 != before.sha256:
                    self._swap_to(self._checked(sha256, fresh))
            except BaseException:
                self._metrics.reloaded("refused")
                raise
            self._metrics.reloaded("unchanged" if sha256 == before.sha256 else "swapped")
            done = Reloaded(before.sha256, sha256)
            del before
            heap.give_back()  # the old one's, unless a job has it
            return done

    def not_ready(self) -> str:
        """Why nothing can be scored, such as that the GPU was lost; "" when it can."""
        if self._closed:
            return "the model was unloaded: the server ends"
        serving = self._serving
        if serving is None:
            return "the model is not loaded yet"
        return serving.loaded.scorer.engine.failure()

    @property
    def sha256(self) -> str:
        """Of the model that serves; "" before the first is loaded."""
        serving = self._serving
        return serving.loaded.sha256 if serving else ""

    @property
    def manifest(self) -> Manifest:
        """Of the model that serves.

        Raises:
            RequestError: 503, none is loaded yet.
        """
        return self._current().loaded.scorer.manifest

    @property
    def provider(self) -> str:
        """What computes it.

        Raises:
            RequestError: 503, none is loaded yet.
        """
        return self._current().loaded.scorer.engine.provider

    @property
    def note(self) -> str:
        """What there is to say about how it runs, such as why no GPU does; often nothing."""
        serving = self._serving
        return serving.loaded.scorer.engine.note if serving else ""

    @property
    def batches(self) -> int:
        """That were run for requests."""
        serving = self._serving
        return self._batches + (serving.batcher.batches if serving else 0)

    async def score(self, images: Images, seconds: float) -> Scored:
        """Score with the model that serves; see :meth:`.batcher.Batcher.score`."""
        while True:
            serving = self._current()
            try:
                answer = await serving.batcher.score(images, seconds)
            except ClosedError:
                if serving is self._serving:
                    self._metrics.refused("draining", len(images))
                    raise
                continue  # it was exchanged at this very moment
            loaded = serving.loaded
            return Scored(answer, loaded.sha256, loaded.scorer.manifest)

    @contextmanager
    def borrowed(self, sha256: str) -> Iterator[Scorer]:
        """A scorer of this very model, for a job: the one that serves, or one loaded for it.

        Raises:
            LlossError: its copy is gone.
        """
        loaded = self._borrow(sha256)
        if loaded is None:
            with self._loading:
                loaded = self._borrow(sha256)  # perhaps meanwhile
                if loaded is None:
                    loaded = self._keep(self._opened(sha256))
        try:
            yield loaded.scorer
        finally:
            self._give_back(loaded)

    def prune(self, keep: set[str]) -> None:
        """Remove copies but those that serve, are borrowed, or are to be kept.

        Not while a model is loaded, which takes long: the load prunes when it is done.
        """
        if self._loading.acquire(blocking=False):
            try:
                with self._lock:
                    self._copies.prune(keep | set(self._loaded))
            finally:
                self._loading.release()

    def close(self) -> None:
        """Finish what is queued and free everything; a model that is borrowed when it is back."""
        with self._loading:
            self._closed, serving = True, self._serving
            if serving is not None:
                serving.batcher.close()
                with self._lock:
                    self._serving = None
                    self._batches += serving.batcher.batches
                self._give_back(serving.loaded)
            self._workers.close()

    def _current(self) -> _Serving:
        serving = self._serving
        if serving is None:
            raise RequestError(503, self.not_ready(), 1.0)
        return serving

    def _swap_to(self, new: _Loaded) -> None:
        """Serve it from now on; the old one is freed when what it began is done."""
        if self._closed:
            self._give_back(new)
            raise ClosedError
        batcher = Batcher(new.scorer, self._settings.limits, self._metrics)
        with self._lock:
            old, self._serving = self._serving, _Serving(new, batcher)
        manifest, engine = new.scorer.manifest, new.scorer.engine
        self._metrics.model(manifest, new.sha256, engine.device)
        if old is not None:
            old.batcher.close()
            self._batches += old.batcher.batches
            self._give_back(old.loaded)

    def _checked(self, sha256: str, fresh: bool) -> _Loaded:
        """The model of a copy, which gives sound outputs; held by the caller.

        Raises:
            LlossError: about ``settings.model``; a fresh copy is removed.
        """
        held = self._borrow(sha256)  # by a job
        if held is not None:
            return held
        try:
            return self._keep(self._opened(sha256))
        except LlossError as error:
            copy = self._copies.path(sha256)
            if fresh:
                with contextlib.suppress(OSError):
                    copy.unlink()
            text = str(error).replace(str(copy.absolute()), str(self._settings.model))
            kind = ArtifactError if isinstance(error, ArtifactError) else EngineError
            raise kind(text.replace(str(copy), str(self._settings.model))) from error

    def _opened(self, sha256: str) -> _Loaded:
        path, settings = self._copies.checked(sha256), self._settings
        scorer = Scorer(
            path,
            settings.provider,
            settings.batch_size,
            settings.threads,
            telemetry=self._metrics.telemetry,
            workers=self._workers,
        )
        try:
            serving = self._serving
            refuse_fall_back(scorer, serving.loaded.scorer if serving else None, path)
            probe(scorer, path)
            return _Loaded(sha256, scorer)
        except BaseException:
            scorer.close()
            raise

    def _keep(self, loaded: _Loaded) -> _Loaded:
        with self._lock:
            self._loaded[loaded.sha256] = loaded
        return loaded

    def _borrow(self, sha256: str) -> _Loaded | None:
        with self._lock:
            loaded = self._loaded.get(sha256)
            if loaded is not None:
                loaded.holders += 1
            return loaded

    def _give_back(self, loaded: _Loaded) -> None:
        with self._lock:
            loaded.holders -= 1
            if loaded.holders:
                return
            del self._loaded[loaded.sha256]
        loaded.scorer.close()


class _Loaded:
    """A model in memory; ``holders`` are who serves it and the jobs that borrow it."""

    def __init__(self, sha256: str, scorer: Scorer) -> None:
        self.sha256, self.scorer = sha256, scorer
        self.holders = 1


@dataclass(frozen=True)
class _Serving:
    """The model that serves, and the queue before it."""

    loaded: _Loaded
    batcher: Batcher


class Copies:
    """The artifacts that are or were served, by the sha256 of their bytes.

    Args:
        folder: of them; it is made when the first one comes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where the copy of these bytes lies, or would."""
        return self.folder / f"{sha256}.onnx"

    def take(self, model: Path) -> tuple[str, bool]:
        """Copy a file, unless its copy is there and sound.

        Returns:
            The sha256, and whether the copy was made now.

        Raises:
            ArtifactError: it cannot be read, or was written to meanwhile.
            LlossError: the copy cannot be written.
        """
        try:
            before = model.stat()
            if not stat.S_ISREG(before.st_mode):
                raise ArtifactError(f"{model}: is no file; give the one that lloss export wrote")
            content = model.read_bytes()
            after = model.stat()
        except FileNotFoundError as error:
            raise ArtifactError(
                f"{model}: no such file; make it with lloss export RUN -o {model}"
            ) from error
        except OSError as error:
            raise ArtifactError(f"{model}: cannot be read: {error.strerror or error}") from error
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise ArtifactError(f"{model}: is being written to; load it when that is done")
        sha256 = hashlib.sha256(content).hexdigest()
        if self._is_sound(sha256):
            return sha256, False
        with written_aside(self.path(sha256)) as aside:
            aside.write_bytes(content)
        return sha256, True

    def checked(self, sha256: str) -> Path:
        """The copy, which holds what its name says.

        Raises:
            ArtifactError: it does not, or is gone.
        """
        if not self._is_sound(sha256):
            raise ArtifactError(
                f"{self.path(sha256)}: the copy of this model is gone or damaged; score the pool "
                "again with the model that serves now"
            )
        return self.path(sha256)

    def prune(self, keep: set[str]) -> None:
        """Remove all but these, and what killed processes left."""
        if not self.folder.is_dir():
            return
        sweep(self.folder)
        for path in self.folder.glob("*.onnx"):
            if path.stem not in keep:
                path.unlink(missing_ok=True)

    def _is_sound(self, sha256: str) -> bool:
        try:
            return sha256_of(self.path(sha256)) == sha256
        except OSError:
            return False
