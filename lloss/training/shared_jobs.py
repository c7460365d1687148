"""What the processes of one command do together.

In training each takes its rows of every batch, in an evaluation some of the batches.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lloss.errors import InterruptedRunError, SettingsError
from lloss.modeling.network import Forward, TappedNetwork
from lloss.modeling.pretrained_weights import Start
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import Checkpoint
from lloss.training.process_group import Processes
from lloss.training.run_folder import interruptible, with_taps
from lloss.training.shared_images import shared_images
from lloss.training.trainer import Trainer, predict
from lloss.training.training_data import Batches, TrainingData, at_once


@dataclass(frozen=True)
class TrainingJob:
    """What a process needs to train along, besides the images."""

    settings: TrainSettings
    targets: Sequence[Any]
    classes: tuple[str, ...]
    start: Start | None  # what the network took over: it decides on learning rates
    state: bytes  # of the leading trainer, by `torch.save`

    def run(self, processes: Processes) -> None:
        """Take all steps with the other processes; raises ``InterruptedRunError``."""
        images = shared_images(processes, None, None)
        data = TrainingData(images, self.targets, self.classes)
        # Weights come with the state: nothing is downloaded, and no factory's chance differs.
        own = dataclasses.replace(self.settings, weights="none")
        with torch.random.fork_rng(devices=[]):
            network = get_task(own.task).unchecked_network(own, self.classes)
        network.start = self.start
        trainer = Trainer(self.settings, data, processes.device.type, network)
        trainer.load_state(torch.load(io.BytesIO(self.state), map_location="cpu"))
        trainer.join(processes)
        with interruptible() as interrupted:
            while not trainer.finished:
                trainer.advance()
                if processes.any(interrupted.is_set()):
                    raise InterruptedRunError("stopped")


def send_training(
    processes: Processes, trainer: Trainer, data: TrainingData, scratch: Path
) -> None:
    """Send the other processes a trainer's settings, data and state, and join it with theirs."""
    state = io.BytesIO()
    torch.save(trainer.state(), state)
    settings = with_taps(trainer.settings, trainer.model)
    start = trainer.model.start
    targets = list(data.targets)
    processes.sent(TrainingJob(settings, targets, data.classes, start, state.getvalue()))
    images = shared_images(processes, data.images, scratch)
    assert isinstance(trainer.batches, Batches), "lloss train makes its batches of decoded images"
    trainer.batches.data = dataclasses.replace(data, images=images)
    trainer.join(processes)


def refuse_small_batches(trainer: Trainer, processes: int) -> None:
    """Raise ``SettingsError`` where a process would have no image of some batch."""
    smallest = trainer.batches.images // trainer.steps
    if smallest < processes:
        raise SettingsError(
            f"batch_size = {trainer.settings.batch_size}: cuts {trainer.batches.images} images "
            f"into batches of {smallest} and more, too few for {processes} processes; the batch is "
            "that of all processes together: make it larger, or start fewer"
        )


@dataclass(frozen=True)
class EvaluationJob:
    """What a process needs to run the network, besides the images."""

    checkpoint: Checkpoint

    def run(self, processes: Processes) -> None:
        """Run this process's batches."""
        images = shared_images(processes, None, None)
        network = self.checkpoint.network().to(processes.device)
        for _ in shared_predict(processes, network, self.checkpoint.settings, images):
            pass


def send_evaluation(
    processes: Processes, checkpoint: Checkpoint, images: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Send the other processes a checkpoint and images; return the images as all have them."""
    model = {"model": checkpoint.state["model"]}
    processes.sent(EvaluationJob(dataclasses.replace(checkpoint, state=model)))
    return shared_images(processes, images, None)


def shared_predict(
    processes: Processes, model: TappedNetwork, settings: TrainSettings, images: NDArray[np.uint8]
) -> Iterator[tuple[slice, Forward]]:
    """Yield what :func:`.predict` yields, in its order, in the leading process; nothing elsewhere.

    Batches are those of one process, dealt out in turn: each image is seen once.
    """
    rank, count = processes.process.rank, processes.count
    size = at_once(*images.shape[1:3])
    starts = range(0, len(images), size)
    own = predict(model, settings, images, size, starts[rank::count])
    for _ in range(-(-len(starts) // count)):
        found = processes.collected(_packed(next(own, None)))
        for each in found or ():
            if (batch := _unpacked(each, processes.device)) is not None:
                yield batch


def _packed(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _unpacked(packed: bytes, device: torch.device) -> Any:
    """Unpack what another process of this command packed."""
    return torch.load(io.BytesIO(packed), map_location=device, weights_only=False)
