"""A network from outside with a loss prediction head, for a training loop of one's own."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lloss.errors import SettingsError
from lloss.images.decode import ImageSpec
from lloss.modeling.network import TappedNetwork
from lloss.modeling.objective import Objective, one_per_image
from lloss.modeling.taps import Tap
from lloss.statistics.loss_unit import LossUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How an image becomes the network's input."""

    image: ImageSpec  # how it is decoded and resized
    mean: tuple[float, ...]  # of the channels in 0..1, subtracted
    std: tuple[float, ...]  # of the channels, divided by


def refuse_unattached(model: Any) -> None:
    """Raise SettingsError for what is not a model of ``lloss.attach``, such as a bare network."""
    if not isinstance(model, AttachedModel):
        raise SettingsError(f"a {type(model).__name__}: give a model from lloss.attach")


class AttachedModel(nn.Module):
    """A network with a loss prediction head; :func:`lloss.attach` makes it.

    ``out, predicted = model(images)`` gives the network's own output, whatever it is, and the
    predicted loss, float [N]: a score to rank by, in no unit. The network keeps its class, its
    weights and its ``state_dict``; a module of ``taps`` also passes its output to the head.

    Attributes:
        taps: the modules that the head reads, with layout and channels.
        task: the task's name.
        classes: the class names, in the order of the network's outputs; () where unknown.
        preparation: how images become the network's input.
    """

    _fitted: tuple[LossUnit, str] | None = None  # and of what weights

    def __init__(
        self, tapped: TappedNetwork, task: str, classes: Sequence[str], preparation: Preparation
    ) -> None:
        super().__init__()
        self.tapped = tapped
        self.task = task
        self.classes = tuple(classes)
        self.preparation = preparation

    @property
    def network(self) -> nn.Module:
        """The network, as it was given."""
        return self.tapped.network

    @property
    def head(self) -> nn.Module:
        """The loss prediction head."""
        assert self.tapped.head is not None, "attached models have a head"
        return self.tapped.head

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The modules that the head reads."""
        return self.tapped.taps

    @property
    def objective(self) -> Objective:
        """The loss and the scores of the network's output."""
        return self.tapped.objective

    @property
    def unit(self) -> LossUnit:
        """How the predicted loss becomes a loss in the task's unit, as an export gives it.

        :func:`lloss.fit_head` fits it, for the weights of that time: after further training there
        is none.
        """
        if self._fitted is None:
            return LossUnit(note="only fit_head fits one, or pass that of lloss.evaluate")
        unit, weights = self._fitted
        if state_sha256(self.tapped) != weights:
            return LossUnit(note="the weights have changed since it was fitted")
        return unit

    @unit.setter
    def unit(self, unit: LossUnit) -> None:
        self._fitted = unit, state_sha256(self.tapped)

    def forward(self, images: Tensor, stop_gradient: bool = True) -> tuple[Any, Tensor]:
        """Run network and head on normalized images, float [N, 3, H, W].

        The head's gradient ends at the taps, so that it changes the head alone; without
        ``stop_gradient`` it reaches the network, as in the paper.
        """
        forward = self.tapped(images, stop_gradient)
        return forward.output, forward.loss

    def loss_per_image(self, output: Any, targets: Any) -> Tensor:
        """Compute the network's loss on each image, float [N]: what the head is to predict.

        Raises ``SettingsError`` for a task's loss of another shape: one number for the whole batch
        would teach the head nothing.
        """
        return one_per_image(self.objective.loss_per_image(output, targets), self.task)

    def extra_repr(self) -> str:
        """List the taps."""
        image = self.preparation.image
        taps = ", ".join(f"{tap.module} ({tap.channels})" for tap in self.taps)
        return f"task={self.task}, size={image.height}×{image.width}, taps: {taps}"


def state_sha256(model: nn.Module) -> str:
    """Digest a state dict: the names, kinds, shapes and values of weights and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {list(array.shape)}".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def release_taps(network: nn.Module) -> None:
    """Remove the hooks of an earlier :class:`.TappedNetwork`, whose head then reads nothing."""
    for module in network.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, functools.partial) and isinstance(
                getattr(hook.func, "__self__", None), TappedNetwork
            ):
                del module._forward_hooks[key]
