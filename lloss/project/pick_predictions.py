"""Where predictions on selected images come from: the scores, or the network that made them."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lloss.annotations.prediction import Prediction
from lloss.errors import ScoresError, SettingsError
from lloss.files import sha256_of
from lloss.images.decode import Raw
from lloss.manifest import Manifest, class_name, read_manifest
from lloss.pools import Item
from lloss.scores.score_source import ScoreSource
from lloss.scores.scores_folder import ScoresFolder

if TYPE_CHECKING:
    from lloss.training.checkpoint import Checkpoint

CHECKPOINT, MODEL = "checkpoint.pt", "model.onnx"
_REMEDY = "give the training run with --run"


class Predictions(Protocol):
    """Something that knows what is on images."""

    def of(self, images: Sequence[tuple[Item, Raw]]) -> list[Prediction | None]:
        """Predict a batch: places in pixels of each item's own image; None without a prediction."""


@dataclass(frozen=True)
class ScoredClasses:
    """The classes that a scores folder has already, by id."""

    by_id: dict[str, Prediction]

    @classmethod
    def read(
        cls, ids: Collection[str], scores: ScoreSource, classes: Sequence[str]
    ) -> ScoredClasses:
        """Read the columns ``prediction`` and ``confidence`` of these ids."""
        columns, found = ["id", "prediction", "confidence"], {}
        for batch in scores.scan(columns, list(ids)):
            for row in batch.to_pylist():
                if name := class_name(classes, row["prediction"]):
                    sure = np.array([row["confidence"]], np.float32)
                    found[row["id"]] = Prediction(name, sure)
        return cls(found)

    def of(self, images: Sequence[tuple[Item, Raw]]) -> list[Prediction | None]:
        """Return what the scores say of these images."""
        return [self.by_id.get(item.id) for item, _ in images]


@dataclass(frozen=True)
class PickModel:
    """The model that images were selected by, as far as it is known."""

    task: str = ""
    classes: tuple[str, ...] = ()
    version: str = ""  # short digest of its checkpoint
    predictions: Predictions | None = None
    note: str = ""  # why there are no predictions, or what could not be checked


def find_model(
    ids: Collection[str], scores: ScoresFolder | None, run: Any = None, predict: bool = True
) -> PickModel:
    """Find the model, and what can predict with it.

    Args:
        ids: of the selected images.
        scores: that they were selected from; ``run.json`` names the model file.
        run: a training run, its ``checkpoint.pt`` or ``model.onnx``, or an attached model; by
            default what made the scores, if it is where it was then.
        predict: whether predictions are wanted, and not task and classes alone.

    Raises:
        CheckpointError: the run cannot be opened.
        ScoresError: it did not make the scores.
        SettingsError: it is none of these.
    """
    if run is not None and not isinstance(run, (str, Path)):
        return _of_attached(run)
    path = None if run is None else Path(run)
    asked = path if path is not None and path.suffix == ".onnx" else None
    model = asked or _model_of(scores)
    manifest = None if model is None else read_manifest(model)
    if asked is not None and scores is not None:
        _check_model(asked, scores)
    if path is not None and path is not asked:
        return _of_run(path, manifest, scores)
    if manifest is None or model is None:
        lost = f"the model that made {scores} was not found; {_REMEDY}" if scores else ""
        return PickModel(note=lost or "no model is given")
    if not predict:
        return _known(manifest)
    scored = known_model(manifest, ids, scores) if scores is not None else None
    return scored or _of_neighbour(model, manifest)


def known_model(manifest: Manifest, ids: Collection[str], scores: ScoreSource) -> PickModel | None:
    """Return the model with the classes that its scores have; None where they have none."""
    if not {"prediction", "confidence"} <= manifest.outputs.keys():
        return None
    return _known(manifest, ScoredClasses.read(ids, scores, manifest.classes))


def trained_model(checkpoint: Checkpoint, note: str = "") -> PickModel:
    """Return the model of a training run, which predicts with torch."""
    from lloss.training.predictor import Predictor

    version, predictor = _short(checkpoint.sha256), Predictor.of_checkpoint(checkpoint)
    return PickModel(checkpoint.settings.task, checkpoint.classes, version, predictor, note)


def _model_of(scores: ScoresFolder | None) -> Path | None:
    """The file that ``run.json`` names, or the one beside the folder, as in a cycle."""
    run = (scores.run() if scores else None) or {}
    places = [Path(run["model"])] if run.get("model") else []
    folder = scores.local if scores else None
    places += [folder.absolute().parent / MODEL] if folder else []
    for place in places:
        if place.is_file() and sha256_of(place) == run.get("model_sha256"):
            return place
    return None


def _check_model(model: Path, scores: ScoresFolder) -> None:
    if sha256_of(model) != (scores.run() or {}).get("model_sha256"):
        raise ScoresError(f"{model}: is not the model that made {scores}; give that")


def _of_run(run: Path, manifest: Manifest | None, scores: ScoresFolder | None) -> PickModel:
    from lloss.training.checkpoint import load_checkpoint  # torch

    checkpoint, note = load_checkpoint(run), ""
    if manifest is not None and _digest_of(manifest) != checkpoint.sha256:
        made = f"made {scores}" if scores else "is exported there"
        raise ScoresError(f"{run}: is not the run whose model {made}; give that one")
    if manifest is None and scores is not None:
        note = f"the model of {scores} was not found: not checked that {run} made it"
    return trained_model(checkpoint, note)


def _of_neighbour(model: Path, manifest: Manifest) -> PickModel:
    """Use the checkpoint beside a model file, if that was exported from it."""
    checkpoint = model.parent / CHECKPOINT
    if not checkpoint.is_file() or sha256_of(checkpoint) != _digest_of(manifest):
        return _known(manifest, note=f"{model}: its {CHECKPOINT} is not beside it; {_REMEDY}")
    if importlib.util.find_spec("torch") is None:
        what = "predicting needs the package 'torch', which is not installed"
        return _known(manifest, note=f"{what}: pip install 'lloss[train]'")
    return _of_run(checkpoint, manifest, None)


def _of_attached(model: Any) -> PickModel:
    from lloss.modeling.attached_model import AttachedModel, state_sha256  # torch
    from lloss.training.predictor import Predictor

    if not isinstance(model, AttachedModel):
        kind = type(model).__name__
        raise SettingsError(f"a {kind}: give a run's folder, a model.onnx or a model of attach")
    version = _short(state_sha256(model.tapped))
    return PickModel(model.task, model.classes, version, Predictor.of_attached(model))


def _known(manifest: Manifest, predictions: Predictions | None = None, note: str = "") -> PickModel:
    version = _short(_digest_of(manifest))
    return PickModel(manifest.task, manifest.classes, version, predictions, note)


def _digest_of(manifest: Manifest) -> str:
    return str(manifest.provenance.get("checkpoint_sha256", ""))


def _short(digest: str) -> str:
    return digest[:12]
