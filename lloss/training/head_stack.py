"""Heads side by side: one product of matrices for all of them, instead of one for each."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lloss.modeling.head import LossPredictionHead

FLAT = 0.01
"""Channels that vary less than this share of the mean deviation are scaled no further."""

STEADY = 1e-3
"""Nor are channels that vary less than this share of the map's own size: float32 computes it to
some 1e-6, and another engine would disagree about what is scaled up further. Those that vary less
than this share of their own size are left out."""


class HeadStack:
    """Heads with the weights of one, each for its own rows of the inputs, float [R, C_k].

    Each standardizes the inputs by its own rows, int64 [R_s].
    """

    def __init__(
        self, first: LossPredictionHead, inputs: Sequence[Tensor], rows: Sequence[Tensor]
    ) -> None:
        self._first, self._inputs, self._heads = first, inputs, len(rows)
        self._scales = [
            tuple(map(torch.stack, zip(*(scale_of(values[each]) for each in rows))))
            for values in inputs
        ]
        layers = [layer for layer in first.inputs if isinstance(layer, nn.Linear)]
        # An input without a channel that varies is 0 when standardized: what weighs it has no
        # effect, and would only take time.
        self._weights = [
            self._repeated(layer.weight.T) if std.isfinite().any() else None
            for layer, (_, std) in zip(layers, self._scales)
        ]
        self._biases = [self._repeated(layer.bias[None]) for layer in layers]
        self._weight = self._repeated(first.output.weight.T)
        self._bias = self._repeated(first.output.bias[None])

    def _repeated(self, values: Tensor) -> Tensor:
        return values.detach().repeat(self._heads, 1, 1).requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        """What is trained, each with the heads as its first dimension."""
        weights = [weight for weight in self._weights if weight is not None]
        return [*weights, *self._biases, self._weight, self._bias]

    def predict(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """Predict the losses of some rows for each head, int64 [B_s]: float [B_s]."""
        longest = max(map(len, rows))
        some = torch.stack([nn.functional.pad(each, (0, longest - len(each))) for each in rows])
        hidden = []
        for values, (mean, std), weight, bias in zip(
            self._inputs, self._scales, self._weights, self._biases
        ):
            made = bias
            if weight is not None:
                made = torch.baddbmm(bias, (values[some] - mean[:, None]) / std[:, None], weight)
            hidden.append(torch.relu(made).expand(-1, longest, -1))
        predicted = torch.baddbmm(self._bias, torch.cat(hidden, 2), self._weight).squeeze(2)
        return [found[: len(each)] for found, each in zip(predicted, rows)]

    def head(self, number: int) -> LossPredictionHead:
        """Return one of the heads, which takes inputs as they are."""
        head = copy.deepcopy(self._first)
        with torch.no_grad():
            for layer, (means, stds), weight, bias in zip(
                head.inputs, self._scales, self._weights, self._biases
            ):
                assert isinstance(layer, nn.Linear)
                if weight is None:
                    layer.weight.zero_()
                else:
                    layer.weight.copy_((weight[number] / stds[number][:, None]).T)
                layer.bias.copy_(bias[number, 0] - layer.weight @ means[number])
            head.output.weight.copy_(self._weight[number].T)
            head.output.bias.copy_(self._bias[number, 0])
        return head


def scale_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel of values [N, C].

    One that hardly varies gets the smallest deviation that counts. That of a constant channel is
    infinite: its weight becomes 0, which leaves nothing of its rounding errors.
    """
    std, squares = values.std(0, correction=0), values.square().mean(0)
    floor = max(float(std.mean()) * FLAT, float(squares.mean().sqrt()) * STEADY)
    constant = std <= STEADY * squares.sqrt()
    return values.mean(0), std.clamp(min=floor).masked_fill(constant, torch.inf)


def is_constant(values: Tensor) -> bool:
    """Whether no channel of a map, [N, C], varies by more than :data:`STEADY` of its size."""
    return bool(values.std(0, correction=0).max() <= STEADY * values.square().mean().sqrt())
