"""A network with trained weights before anything is labeled: what it makes of a pool's images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lloss.data.decode_ahead import decoded
from lloss.errors import ImageError
from lloss.images.decode import Pixels
from lloss.modeling.network import Normalize, TappedNetwork
from lloss.modeling.network_source import is_outside
from lloss.pools import Item
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.decisions import decide_input
from lloss.training.last_layer import built, fresh_layers
from lloss.training.trainer import device_of

BATCH = 32

CLASSES = ("0", "1")
"""In the place of the classes, which nobody knows yet: layers of classes are not read."""

MOSTLY = 0.5
"""Of a network's layers, the share that may be random in one that loads trained weights itself."""


@dataclass(frozen=True)
class Embedded:
    """Embeddings of images that follow each other in a pool."""

    ids: list[str]
    embeddings: NDArray[np.float32]  # [N, D]
    skipped: list[tuple[str, str]]  # ids of images that cannot be read, and why


@dataclass(frozen=True)
class PretrainedBackbone:
    """A network in eval mode whose weights were trained elsewhere.

    Attributes:
        network: the target network, without a head.
        settings: with weights and size decided.
        lines: on what was decided and taken over, for the user.
    """

    network: TappedNetwork
    settings: TrainSettings
    lines: list[str]

    def embed(self, items: Iterable[Item]) -> Iterator[Embedded]:
        """Average the deepest tapped feature map of each image, a batch at a time."""
        device = device_of("")
        network = self.network.to(device)
        normalize = Normalize(self.settings.mean, self.settings.std).to(device)

        def run(images: list[Pixels]) -> NDArray[np.float32]:
            batch = torch.from_numpy(np.stack(images)).to(device)
            with torch.no_grad():
                inputs = normalize(batch).contiguous(memory_format=torch.channels_last)
                pooled = network.features(inputs).pooled[-1]
            values: NDArray[np.float32] = pooled.float().cpu().numpy()
            return values

        ids: list[str] = []
        images: list[Pixels] = []
        skipped: list[tuple[str, str]] = []
        for id, image in decoded(items, self.settings.image_spec()):
            if isinstance(image, ImageError):
                skipped.append((id, str(image)))
                continue
            ids.append(id)
            images.append(image)
            if len(ids) == BATCH:
                yield Embedded(ids, run(images), skipped)
                ids, images, skipped = [], [], []
        if ids or skipped:
            empty = np.empty((0, self.network.taps[-1].channels), np.float32)
            yield Embedded(ids, run(images) if images else empty, skipped)


def pretrained_backbone(
    settings: TrainSettings, items: Sequence[Item]
) -> tuple[PretrainedBackbone | None, list[str]]:
    """Build the network of the settings with trained weights, and say in lines what they are.

    None where it has none: there are none published, they cannot be downloaded, or the settings ask
    for random ones; the lines say which. ``items`` are some images, whose size decides the
    input's where that is automatic.

    Raises:
        SettingsError: unknown settings, or weights that do not fit.
    """
    task = get_task(settings.task)
    decided = decide_input(task, settings, items)
    settings = decided.settings
    if settings.weights == "none" and not is_outside(settings.model):
        return None, decided.lines
    network = built(settings, CLASSES, 0).eval()
    if network.start:
        lines = [*decided.lines, network.start.line]
        return PretrainedBackbone(network, settings, lines), lines
    if is_outside(settings.model):  # its factory may load weights
        fresh = fresh_layers(network.network, built(settings, CLASSES, 1).network)
        layers = {name.rpartition(".")[0] for name in network.network.state_dict()}
        if len(fresh) <= MOSTLY * len(layers):
            taken = f"{len(layers) - len(fresh)} of its {len(layers)} layers have trained weights"
            lines = [*decided.lines, f"{settings.model}: {taken}"]
            return PretrainedBackbone(network, settings, lines), lines
    return None, decided.lines
