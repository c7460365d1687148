"""Evaluation by several processes: each runs the network on some of the batches."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lloss.modeling.network import Forward, TappedNetwork
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import Checkpoint
from lloss.training.process_group import Processes
from lloss.training.shared_images import shared_images
from lloss.training.trainer import predict
from lloss.training.training_data import at_once


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
