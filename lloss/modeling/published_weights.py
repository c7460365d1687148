"""Trained weights that torchvision and timm publish."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchvision.models import WeightsEnum, get_model, get_model_weights

from lloss.modeling.weights_cache import WeightsUnavailableError, answers, cached, one_line


class Published(ABC):
    """Weights of one network; what cannot be had is a :class:`.WeightsUnavailableError`."""

    part: str = ""  # the submodule of lloss's network that takes them; "" for all of it
    fresh: tuple[str, ...] = ()  # starts of names in it that they may lack, besides the classes'

    @property
    @abstractmethod
    def title(self) -> str:
        """Whose they are, and their name."""

    @abstractmethod
    def fetch(self) -> None:
        """Download them, if they are not on this machine yet."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the state dict, downloaded if need be."""


@dataclass(frozen=True)
class TorchvisionWeights(Published):
    """torchvision's weights of a network, or of a part of it that has a network's name of its own.

    ``donor`` are the arguments of the network that takes them first, since torchvision knows names
    of older files; only its submodule ``donor_part`` is meant.
    """

    model: str
    weights: str = "DEFAULT"
    part: str = ""
    donor: Mapping[str, Any] = field(default_factory=dict)
    donor_part: str = ""
    drawn: tuple[str, ...] = ()  # starts of names there that the donor draws at random
    fresh: tuple[str, ...] = ()

    @property
    def _source(self) -> WeightsEnum:
        return get_model_weights(self.model)[self.weights]

    @property
    def title(self) -> str:
        """As ``torchvision's ResNet18_Weights.IMAGENET1K_V1``."""
        return f"torchvision's {self._source}"

    def fetch(self) -> None:
        """Leave the file in PyTorch's cache."""
        cached(self._source.url)

    def state(self) -> dict[str, Tensor]:
        """Return the state dict, without what the donor draws at random."""
        self.fetch()
        arguments = self.donor or {"name": self.model, "weights": self._source}
        with _unavailable(), torch.random.fork_rng(devices=[]):
            donor = get_model(**arguments, progress=False)
        state = donor.get_submodule(self.donor_part).state_dict()
        return {name: v for name, v in state.items() if not name.startswith(self.drawn)}


@dataclass(frozen=True)
class TimmWeights(Published):
    """timm's weights of a network; ``arguments`` are those that it is made with."""

    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """As ``timm's resnet18.a1_in1k``."""
        return f"timm's {self.model}"

    def fetch(self) -> None:
        """Leave the file in the hub's cache."""
        self.state()

    def state(self) -> dict[str, Tensor]:
        """Return the state dict of a network that timm makes."""
        import timm

        source = timm.get_pretrained_cfg(self.model)
        repository = source.hf_hub_id if source else None
        if source and isinstance(source.url, str) and not repository:
            cached(source.url)  # where timm finds it, which would wait for an answer without end
        with _unavailable(), _offline_without_answer(repository), torch.random.fork_rng(devices=[]):
            donor = timm.create_model(self.model, pretrained=True, **self.arguments)
        return dict(donor.state_dict())


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a hub fails in many ways
        raise WeightsUnavailableError(one_line(error)) from error


@contextlib.contextmanager
def _offline_without_answer(repository: str | None) -> Iterator[None]:
    """Let the hub's client use its cache alone where the repository's file does not answer.

    By itself it would try for minutes. Files may be on another host than the hub, which redirects.
    """
    from huggingface_hub import constants, hf_hub_url

    before = constants.HF_HUB_OFFLINE
    try:
        answers(
            hf_hub_url(repository, constants.SAFETENSORS_SINGLE_FILE)
            if repository
            else constants.ENDPOINT
        )
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
