"""Training by several processes, in which each takes its rows of every batch."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lloss.errors import InterruptedRunError, SettingsError
from lloss.modeling.pretrained_weights import Start
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.process_group import Processes
from lloss.training.run_folder import interruptible, with_taps
from lloss.training.shared_images import shared_images
from lloss.training.trainer import Trainer
from lloss.training.training_data import Batches, TrainingData


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
