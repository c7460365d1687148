"""What a trained network finds on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lloss.annotations.prediction import Prediction
from lloss.errors import ImageError
from lloss.images.decode import ImageSpec, Pixels, Raw, decode, size_of
from lloss.modeling.attached_model import AttachedModel
from lloss.modeling.network import Normalize, TappedNetwork
from lloss.pools import Item
from lloss.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Predictor:
    """A network in eval mode, and how images become its input."""

    network: TappedNetwork
    image: ImageSpec
    mean: Sequence[float]
    std: Sequence[float]

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint) -> Predictor:
        """Build the network of a training run."""
        settings = checkpoint.settings
        network = checkpoint.network().eval()
        return cls(network, settings.image_spec(), settings.mean, settings.std)

    @classmethod
    def of_attached(cls, model: AttachedModel) -> Predictor:
        """Take a model of :func:`lloss.attach`; it is set to eval mode."""
        how = model.preparation
        return cls(model.tapped.eval(), how.image, how.mean, how.std)

    def of(self, images: Sequence[tuple[Item, Raw]]) -> list[Prediction | None]:
        """Predict a batch: places in pixels of each item's own image, unsure objects included.

        None where an image cannot be decoded, or the network's task has no labels to show.
        """
        inputs = [self._input(raw) for _, raw in images]
        usable = [at for at, one in enumerate(inputs) if one is not None]
        found: list[Prediction | None] = [None] * len(images)
        if not usable:
            return found
        batch = np.stack([one for one in inputs if one is not None])
        for at, prediction in zip(usable, self._predict(batch) or ()):
            found[at] = prediction.on_image(size_of(images[at][1]), self.image)
        return found

    def _input(self, raw: Raw) -> Pixels | None:
        try:
            return decode(raw, self.image)
        except ImageError:
            return None

    def _predict(self, images: NDArray[np.uint8]) -> list[Prediction] | None:
        device = next(self.network.parameters()).device
        normalize = Normalize(self.mean, self.std).to(device)
        with torch.no_grad():
            inputs = normalize(torch.from_numpy(images).to(device))
            forward = self.network(inputs.contiguous(memory_format=torch.channels_last))
        return self.network.objective.predictions(forward.output)
