"""A frozen pretrained network: what a small target head and the loss head read of each image."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lloss.errors import SettingsError
from lloss.images.decode import Pixels
from lloss.modeling.network import Normalize, TappedNetwork
from lloss.modeling.taps import blank_images, evaluating
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.trainer import device_of
from lloss.training.training_data import seed_of


def refuse_frozen(settings: TrainSettings) -> None:
    """Raise ``SettingsError`` for a frozen network without trained weights."""
    if settings.weights == "none":
        raise SettingsError(
            f"--frozen: {settings.model!r} has no trained weights, and features of random ones say "
            "little; pass --weights imagenet or the path of a state dict, or choose --full"
        )


@dataclass(frozen=True)
class Layout:
    """Where each part of a feature vector is.

    Attributes:
        taps: the channels of each tap, the deepest last.
        inputs: of the target head: what the network's own last linear layer reads; 0 where it has
            none, and the deepest tap is read instead.
    """

    taps: tuple[int, ...]
    inputs: int

    def pooled(self, features: Tensor) -> list[Tensor]:
        """Return the taps of features [N, width]: float [N, C_k] each."""
        ends = np.cumsum(self.taps)
        return [features[:, end - size : end] for size, end in zip(self.taps, ends.tolist())]

    def of_last_layer(self, features: Tensor) -> Tensor:
        """Return what the target head reads, float [N, C]."""
        return features[:, -(self.inputs or self.taps[-1]) :]


class FrozenBackbone:
    """A network that stays as it is, in eval mode; its ``layout`` says what is kept of its maps."""

    layout: Any

    def __init__(
        self, settings: TrainSettings, build: Callable[[], TappedNetwork], device: str
    ) -> None:
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(settings.seed))
            self.tapped = build()
        self._device = device_of(device)
        self.tapped.to(self._device).eval().requires_grad_(False)
        self._normalize = Normalize(settings.mean, settings.std).to(self._device)

    @property
    def line(self) -> str:
        """Say what the network started from; "" where it loads its weights itself."""
        return self.tapped.start.line if self.tapped.start else ""

    def key(self) -> str:
        """Digest what decides a feature vector besides the image."""
        settings, tapped = self.settings, self.tapped
        said: dict[str, Any] = {
            "model": settings.model, "args": settings.model_args, "mean": settings.mean,
            "std": settings.std, "image": dataclasses.astuple(settings.image_spec()),
            "taps": [dataclasses.astuple(tap) for tap in tapped.taps], "layout": repr(self.layout),
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(said, default=list).encode())
        fresh = tapped.start.left if tapped.start else ()
        for name, value in tapped.network.state_dict().items():
            if name.rpartition(".")[0] not in fresh:  # the last layer, drawn at random
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(value.cpu().numpy()).data)
        return digest.hexdigest()[:16]


class FrozenNetwork(FrozenBackbone):
    """The network of some settings as a maker of feature vectors."""

    layout: Layout

    def __init__(self, settings: TrainSettings, classes: Sequence[str], device: str) -> None:
        settings = dataclasses.replace(settings, freeze=True, head=True)
        super().__init__(
            settings, lambda: get_task(settings.task).network(settings, classes), device
        )
        self._last = _last_linear(self.tapped.network, settings.size, len(classes))
        inputs = self._last.in_features if self._last else 0
        self.layout = Layout(tuple(tap.channels for tap in self.tapped.taps), inputs)

    def features(self, images: Pixels) -> NDArray[np.float32]:
        """Compute the feature vectors of images uint8 [N, H, W, 3]: float32 [N, width]."""
        inputs: list[Tensor] = []
        handle = None
        if self._last is not None:
            handle = self._last.register_forward_pre_hook(
                lambda _, seen: inputs.append(seen[0].float())
            )
        try:
            with torch.no_grad():
                chunk = self._normalize(torch.from_numpy(images).to(self._device))
                found = self.tapped.features(chunk.contiguous(memory_format=torch.channels_last))
        finally:
            if handle is not None:
                handle.remove()
        joined: NDArray[np.float32] = torch.cat([*found.pooled, *inputs[-1:]], 1).cpu().numpy()
        return joined


def _last_linear(network: nn.Module, size: int, classes: int) -> nn.Linear | None:
    """Return the linear layer whose output is the network's; None without one."""
    made: list[tuple[nn.Linear, Tensor]] = []
    handles = [
        module.register_forward_hook(lambda layer, _, output: made.append((layer, output)))
        for module in network.modules()
        if isinstance(module, nn.Linear) and module.out_features == classes
    ]
    try:
        with evaluating(network):
            output = network(blank_images(network, (size, size)))
    finally:
        for handle in handles:
            handle.remove()
    for layer, value in reversed(made):
        if (
            isinstance(output, Tensor)
            and value.shape == output.shape
            and torch.equal(value, output)
        ):
            return layer
    return None
