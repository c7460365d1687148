"""Feature maps of a frozen network, for tasks whose labels have places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lloss.errors import SettingsError
from lloss.images.decode import Pixels
from lloss.modeling.network import TappedNetwork
from lloss.modeling.network_source import is_outside
from lloss.modeling.taps import Tap, evaluating, feature_map
from lloss.simulation.frozen_network import FrozenBackbone
from lloss.tasks import get_task
from lloss.tasks.frozen_heads import MapSize
from lloss.tasks.train_settings import TrainSettings

FINEST = 8
"""Stride of the finest maps that are kept; of finer ones the mean alone, but for the deepest."""


@dataclass(frozen=True)
class MapsLayout:
    """What a flat vector of features holds: means of the finest taps, then the other taps' maps.

    Attributes:
        means: channels of the taps that are kept as their mean.
        maps: sizes of the others, the deepest last.
    """

    means: tuple[int, ...]
    maps: tuple[MapSize, ...]

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each tap."""
        return (*self.means, *(size.channels for size in self.maps))

    def split(self, features: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return means, float [N, C], and maps, float [N, C, H, W], of features [N, width]."""
        means, maps, start = [], [], 0
        for count in self.means:
            means.append(features[:, start : start + count].float())
            start += count
        for size in self.maps:
            count = size.channels * size.height * size.width
            flat = features[:, start : start + count].float()
            maps.append(flat.view(-1, size.channels, size.height, size.width))
            start += count
        return means, maps

    def pooled(self, features: Tensor) -> list[Tensor]:
        """Return each tap averaged over its positions, float [N, C]."""
        means, maps = self.split(features)
        return [*means, *(each.mean((2, 3)) for each in maps)]


class FrozenMapsNetwork(FrozenBackbone):
    """A frozen network as a maker of flat feature vectors, float16."""

    layout: MapsLayout

    def __init__(self, settings: TrainSettings, classes: Sequence[str], device: str) -> None:
        super().__init__(settings, lambda: _backbone(settings, classes), device)
        self._found: dict[str, Tensor] = {}
        for tap in self.tapped.taps:
            module = self.tapped.network.get_submodule(tap.module)
            module.register_forward_hook(self._keeping(tap))
        blank = np.zeros((2, settings.size, settings.size, 3), np.uint8)
        self.layout = self._layout(self._maps(blank))

    def features(self, images: Pixels) -> NDArray[np.float16]:
        """Compute the features of images uint8 [N, H, W, 3]: float16 [N, width]."""
        parts = []
        for number, found in enumerate(self._maps(images)):
            kept = found.mean((2, 3)) if number < len(self.layout.means) else found.flatten(1)
            parts.append(kept.half())
        joined: NDArray[np.float16] = torch.cat(parts, 1).cpu().numpy()
        return joined

    def _keeping(self, tap: Tap) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            found = feature_map(output)
            assert found is not None, f"{tap.module}: gave a feature map when it was chosen"
            found = found.permute(0, 3, 1, 2) if tap.layout == "NHWC" else found
            self._found[tap.module] = found.detach().float()

        return keep

    def _maps(self, images: Pixels) -> list[Tensor]:
        """The maps of the taps, the finest first."""
        with evaluating(self.tapped):
            chunk = self._normalize(torch.from_numpy(images).to(self._device))
            self.tapped.network(chunk.contiguous(memory_format=torch.channels_last))
        found = [self._found[tap.module].clamp(-6e4, 6e4) for tap in self.tapped.taps]
        if wrong := [tap for tap in self.tapped.taps if tap.layout == "NTC"]:
            raise SettingsError(
                f"--frozen: {self.settings.model} has tokens instead of feature maps "
                f"({wrong[0].module!r}); choose a convolutional network, or --full"
            )
        return sorted(found, key=lambda each: -each.shape[2])

    def _layout(self, maps: Sequence[Tensor]) -> MapsLayout:
        largest = -(-self.settings.size // FINEST)
        means = [each.shape[1] for each in maps[:-1] if each.shape[2] > largest]
        return MapsLayout(
            tuple(means), tuple(MapSize(*each.shape[1:]) for each in maps[len(means) :])
        )


def _backbone(settings: TrainSettings, classes: Sequence[str]) -> TappedNetwork:
    """Build a classifier from outside, or the task's own network, with trained weights."""
    if not is_outside(settings.model):
        return get_task(settings.task).network(settings, classes)
    names = ("model", "model_args", "weights", "size", "fit", "taps", "mean", "std", "seed")
    kept = {name: getattr(settings, name) for name in names}
    given = TrainSettings(task="classification", freeze=True, **kept)
    return get_task("classification").network(given, ("0", "1"))
