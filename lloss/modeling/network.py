"""A target network with its head: what training trains and export exports."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lloss.modeling.head import LossPredictionHead
from lloss.modeling.objective import Objective
from lloss.modeling.pretrained_weights import Start
from lloss.modeling.taps import Tap

NETWORK = "network."
"""Precedes the names of the target network's parameters in :class:`TappedNetwork`."""

PRETRAINED = "pretrained."
"""Precedes those of its copy from before training."""


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward pass."""

    output: Any  # the target network's, whatever its objective takes
    loss: Tensor | None  # predicted loss, float [N]; None without a head
    embedding: Tensor  # the deepest tapped map averaged over its positions, float [N, C]


@dataclass(frozen=True, slots=True)
class Features:
    """What the head reads of one forward pass, and the output beside it."""

    output: Any  # the target network's
    pooled: list[Tensor]  # float [N, C_k] of each tap
    summary: Tensor | None  # float [N, S], detached


class TappedNetwork(nn.Module):
    """A network whose tapped feature maps are pooled as they appear, and the head that reads them.

    Pooling happens inside the hook: nothing holds on to a feature map, and a layer that later
    changes its input in place cannot change what the head sees. ``start`` is what the network took
    over of a state dict; None for random weights, or those of a network from outside.

    ``pretrained`` is a copy of the network as it was before training. It stays as it is: training
    does not run it, its weights are in the state dict, and its embedding is what it was.
    """

    start: Start | None = None
    pretrained: TappedNetwork | None

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        taps: Sequence[Tap],
        head: LossPredictionHead | None,
        pretrained: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.objective = objective
        self.taps = tuple(taps)
        self.sees_summary = head is not None and len(head.inputs) > len(self.taps)
        self.pretrained = None
        if pretrained is not None:
            frozen = pretrained.requires_grad_(False)
            self.pretrained = TappedNetwork(frozen, objective, self.taps[-1:], None)
        self._pooled: dict[str, Tensor] | None = None  # of the taps so far, in a forward pass
        for tap in self.taps:
            network.get_submodule(tap.module).register_forward_hook(
                functools.partial(self._keep, tap)
            )

    def _keep(self, tap: Tap, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if self._pooled is not None:  # else the network runs by itself
            self._pooled[tap.module] = tap.pool(output)

    def forward(self, images: Tensor, stop_gradient: bool = False) -> Forward:
        """Run both on images float [N, 3, H, W]; the head's gradient may end at the taps."""
        features = self.features(images)
        output, pooled, summary = features.output, features.pooled, features.summary
        embedding = pooled[-1]
        if self.head is None:
            return Forward(output, None, embedding)
        seen = [values.detach() for values in pooled] if stop_gradient else pooled
        device = embedding.device.type
        if not torch.is_autocast_enabled(device):
            return Forward(output, self.head(seen, summary), embedding)
        # bf16 has 8 bits: near predictions would tie, and ties have no rank.
        with torch.autocast(device, enabled=False):
            return Forward(output, self.head(seen, summary), embedding)

    def features(self, images: Tensor) -> Features:
        """Run the network alone."""
        found: dict[str, Tensor] = {}
        self._pooled = found
        output = self.objective.run(self.network, images)
        self._pooled = None
        for tap in self.taps:
            if tap.module not in found:
                raise RuntimeError(
                    f"the network did not run the tapped module {tap.module!r}: another head may "
                    "have been attached to it since; attach again"
                )
        pooled = [found[tap.module] for tap in self.taps]
        summary = self.objective.summary(output) if self.sees_summary else None
        return Features(output, pooled, summary)


class Normalize(nn.Module):
    """uint8 [N, H, W, 3] to normalised float [N, 3, H, W]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # (x / 255 - mean) / std as one multiplication and one addition.
        scale = [1 / (255 * s) for s in std]
        shift = [-m / s for m, s in zip(mean, std)]
        self.register_buffer("scale", torch.tensor(scale).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(shift).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise a batch."""
        scaled: Tensor = images.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return scaled
