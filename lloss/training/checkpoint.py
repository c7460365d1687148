"""A training run on disk: one file that holds all that resuming, evaluating and exporting need."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from lloss.errors import CheckpointError
from lloss.files import atomic_write, sha256_of
from lloss.modeling import IMAGENET_MEAN, IMAGENET_STD
from lloss.modeling.classifiers import HALVES
from lloss.modeling.network import TappedNetwork
from lloss.modeling.network_source import TIMM, is_outside
from lloss.statistics.loss_unit import LossUnit
from lloss.tasks import get_task
from lloss.tasks.train_settings import PLAIN, TrainSettings
from lloss.training.probe import Probe, probe, same

FORMAT = 1
FILE = "checkpoint.pt"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after some step."""

    settings: TrainSettings  # of the run; `size` and `taps` are filled in
    classes: tuple[str, ...]  # the class names, in the order of the outputs
    labeled: int  # number of images trained on
    labels_sha256: str  # identifies them and their labels
    # Some of them at the input's size, uint8 [S, H, W, 3], to check an export on
    sample: NDArray[np.uint8]
    images_sha256: str  # identifies their pixels, as they were decoded
    # Of the checkpoint that the first weights came from; "" if they were fresh
    start_sha256: str
    # Of the images, and of those that a warm start was trained on, as
    # `lloss.data.image_overlap.traces` gives them
    traces: NDArray[np.int64]
    state: dict[str, Any]  # of the `lloss.training.trainer.Trainer`
    path: Path | None = None  # the file it was read from
    # Whether the network was given to `lloss.fit`: then the settings' model is its class's name
    outside: bool = False
    probe: Probe | None = None  # what the network computed, if it is one that a factory makes
    # How what the head gives becomes a loss, where training held images out for it
    unit: LossUnit | None = None

    @property
    def epoch(self) -> int:
        """Epochs that were finished."""
        return int(self.state["epoch"])

    @property
    def finished(self) -> bool:
        """Whether the run went through all its epochs."""
        return self.epoch >= self.settings.epochs

    @property
    def sha256(self) -> str:
        """The digest of the file it was read from."""
        assert self.path is not None, "only a checkpoint that was loaded has a file"
        return sha256_of(self.path)

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        content = {
            **vars(self),
            "format": FORMAT,
            "settings": self.settings.as_dict(),
            "unit": self.unit and dataclasses.asdict(self.unit),
            "classes": list(self.classes),
            "traces": torch.from_numpy(np.array(self.traces)),
            "sample": torch.from_numpy(self.sample),
        }
        del content["path"]
        with atomic_write(path) as aside, aside.open("wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:
                # torch hides the file's own error, such as a full disk, in one of its own.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def network(self) -> TappedNetwork:
        """Build the trained network with its head, ready to predict, on the CPU.

        Raises ``CheckpointError`` where the settings do not name the network.
        """
        if self.outside:
            raise CheckpointError(
                f"{self.path}: is of a network given to lloss.fit, {self.settings.model!r}, which "
                "only its own code can build; attach it in Python and call lloss.fit with the same "
                "settings, run= and resume=True: it gets these weights"
            )
        # Weights come from the checkpoint: nothing is downloaded again.
        settings = dataclasses.replace(self.settings, weights="none")
        with torch.random.fork_rng(devices=[]):  # it is built on the CPU
            model = get_task(settings.task).unchecked_network(settings, self.classes)
        try:
            model.load_state_dict(self.state["model"])
        except RuntimeError as error:
            raise CheckpointError(self._unfit()) from error
        self.check_code(model)
        return model.eval()

    def check_code(self, model: TappedNetwork) -> None:
        """Refuse a network of these weights that computes something else than it did.

        Raises ``CheckpointError``.
        """
        found = probe(model, self.settings, self.sample) if self.probe else None
        if self.probe and found and not same(found, self.probe):
            raise CheckpointError(
                f"{self.path}: the network {self.settings.model!r} computes something else than "
                "when it was trained: its code, or its package, has changed; restore that, or "
                "train again"
            )

    def _unfit(self) -> str:
        model = self.settings.model
        line = f"{self.path}: its weights do not fit the network {model!r}"
        if is_outside(model):
            what = "another version of timm" if model.startswith(TIMM) else "other code of it"
            return f"{line} as it is built here: it was trained with {what}; restore that"
        return f"{line}; it was written by another version of lloss or torchvision: train again"


def load_checkpoint(run: Path) -> Checkpoint:
    """Read a run's folder or its ``checkpoint.pt``; raise ``CheckpointError`` if unreadable."""
    path = run / FILE if run.is_dir() else run
    if not path.is_file():
        raise CheckpointError(f"{run}: holds no {FILE}; train first: lloss train DATA -o {run}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise CheckpointError(
                f"{path}: is of format {content['format']}, this lloss reads {FORMAT}"
            )
        state = dict(content["state"])
        return Checkpoint(
            _settings(content["settings"], state, path),
            tuple(content["classes"]),
            int(content["labeled"]),
            str(content["labels_sha256"]),
            content["sample"].numpy(),
            str(content["images_sha256"]),
            str(content["start_sha256"]),
            content["traces"].numpy(),
            state,
            path,
            bool(content.get("outside", False)),
            content.get("probe"),
            msgspec.convert(content.get("unit"), LossUnit | None),
        )
    except CheckpointError:
        raise
    except Exception as error:  # unpickling a foreign file fails in any way it likes
        raise CheckpointError(f"{path}: is damaged or not a checkpoint of lloss") from error


def _settings(values: dict[str, Any], state: dict[str, Any], path: Path) -> TrainSettings:
    """Read settings; those of earlier versions may leave the normalisation to the network."""
    values.pop("flip_test", None)
    before = {"clip": 0.0, "fresh_lr": 1.0, **PLAIN}  # how earlier versions trained
    settings = TrainSettings.from_dict({**before, **values}, str(path))
    if not state.pop("transform_input", False):
        return settings
    if (settings.mean, settings.std) != (IMAGENET_MEAN, IMAGENET_STD):
        raise CheckpointError(f"{path}: scales its input twice; train again with this version")
    return dataclasses.replace(settings, mean=HALVES, std=HALVES)
