"""The loss prediction head (Yoo & Kweon 2019, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LOG_FLOOR = -16.0
"""Log-probabilities in a summary are clamped here: sixteen nats is certainty, -inf spoils it."""


class LossPredictionHead(nn.Module):
    """Predicts a network's loss on an image from its pooled feature maps.

    Each tapped map, averaged over its positions, goes through its own fully connected layer to
    ``hidden`` units and a ReLU; the results are concatenated and one linear layer gives the
    prediction. A summary of the network's own outputs can be one more input of the same kind.

    ``channels`` are those of each tapped map, ``summary`` is the summary's length (0 for none, as
    in the paper), ``hidden`` are the units per input (128 in the paper).
    """

    def __init__(self, channels: Sequence[int], summary: int = 0, hidden: int = 128) -> None:
        super().__init__()
        self.summary = summary
        inputs = [*channels, summary] if summary else list(channels)
        self.inputs = nn.ModuleList(nn.Linear(size, hidden) for size in inputs)
        self.output = nn.Linear(hidden * len(inputs), 1)

    def forward(self, pooled: Sequence[Tensor], summary: Tensor | None = None) -> Tensor:
        """Predict the loss, float [N]: a score to rank by, in no unit.

        ``pooled`` is one float [N, C_k] a tapped map; ``summary`` is float [N, summary].
        """
        features = [*pooled, summary] if summary is not None else list(pooled)
        if len(features) != len(self.inputs):
            raise ValueError(f"{len(features)} inputs for a head of {len(self.inputs)}")
        hidden = [torch.relu(layer(x)) for layer, x in zip(self.inputs, features)]
        # [N, 1] -> [N]: a trailing 1 would broadcast in every loss that follows.
        predicted: Tensor = self.output(torch.cat(hidden, 1)).squeeze(1)
        return predicted
