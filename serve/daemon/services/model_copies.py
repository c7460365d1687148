"""Copies of the models that are or were served, named by the SHA-256 of their bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lloss.errors import ArtifactError
from lloss.files import atomic_write, sha256_of, sweep


class ModelCopies:
    """Models as ``<sha256>.onnx`` in a folder, which is created with the first.

    The copies are what is loaded, so that replacing or overwriting a model file is harmless.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """The path of a copy, whether it exists or not."""
        return self.folder / f"{sha256}.onnx"

    def copy(self, model: Path) -> str:
        """Copy a file, unless an intact copy exists; returns its SHA-256."""
        if not model.is_file():
            raise ArtifactError(f"{model}: no such file; make it with lloss export RUN -o {model}")
        try:
            content = model.read_bytes()
        except OSError as error:
            raise ArtifactError(f"{model}: cannot be read: {error.strerror or error}") from error
        sha256 = hashlib.sha256(content).hexdigest()
        if not self._is_intact(sha256):
            with atomic_write(self.path(sha256)) as aside:
                aside.write_bytes(content)
        return sha256

    def intact(self, sha256: str) -> Path:
        """The path of a copy. Raises ArtifactError: it is missing or its bytes are others."""
        if not self._is_intact(sha256):
            raise ArtifactError(
                f"{self.path(sha256)}: the copy of this model is gone or damaged; score the pool "
                "again with the model that serves now"
            )
        return self.path(sha256)

    def prune(self, keep: set[str]) -> None:
        """Remove all other copies, and files of killed processes."""
        if self.folder.is_dir():
            sweep(self.folder)
            for path in self.folder.glob("*.onnx"):
                if path.stem not in keep:
                    path.unlink(missing_ok=True)

    def _is_intact(self, sha256: str) -> bool:
        try:
            return sha256_of(self.path(sha256)) == sha256
        except OSError:
            return False
