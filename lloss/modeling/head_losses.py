"""Losses that train the head to predict losses.

Each takes the predictions ``p`` and the true losses ``l`` of one batch, both ``float [B]``, and
returns a scalar. The scale of ``l`` drifts as training goes on, so all but :func:`mse` compare
images of the batch with each other. ``l`` is a target: no gradient flows into it.

They are public as ``lloss.losses``, for a training loop of one's own::

    out, predicted = model(images)  # model = lloss.attach(network, ...)
    losses = model.loss_per_image(out, targets)
    (losses.mean() + lloss.losses.soft_pairs(predicted, losses)).backward()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

HeadLoss: TypeAlias = Callable[..., Tensor]
"""Takes predicted and true losses, and ``xi``, which only the margin uses."""


def margin(predicted: Tensor, target: Tensor, xi: float = 1.0) -> Tensor:
    r"""The paper's margin ranking loss over disjoint pairs; ``xi`` is in the units of ``p``.

    ``mean over pairs (i, j) of max(0, -sign(l_i - l_j) * (p_i - p_j) + xi)``
    (Yoo & Kweon 2019, equation 2). Image ``i`` is paired with ``i + ceil(B/2)``, modulo ``B``: an
    even batch gives B/2 disjoint pairs; in an odd one the first image takes part twice, so none is
    dropped. Raises ``ValueError`` for other shapes than [B].
    """
    p, l = _checked(predicted, target)
    half = (len(p) + 1) // 2
    partner = (torch.arange(half, device=p.device) + half) % len(p)
    sign = torch.sign(l[:half] - l[partner])
    return F.relu(xi - sign * (p[:half] - p[partner])).mean() if len(p) > 1 else p.sum() * 0.0


def soft_pairs(predicted: Tensor, target: Tensor, xi: float = 1.0) -> Tensor:
    r"""All pairs with soft targets: how much larger a loss is counts, not only that it is.

    Cross entropy of ``sigmoid(p_i - p_j)`` against ``l_i / (l_i + l_j)``; its minimum is at
    ``p = log l`` plus a constant. Losses must not be negative; a pair of zeros has the target 1/2.
    ``xi`` is unused.
    """
    p, l = _checked(predicted, target)
    i, j = _all_pairs(p)
    total = l[i] + l[j]
    share = torch.where(total > 0, l[i] / total.clamp(min=torch.finfo(l.dtype).tiny), 0.5)
    if not len(i):
        return p.sum() * 0.0
    return F.binary_cross_entropy_with_logits(p[i] - p[j], share)


def mse(predicted: Tensor, target: Tensor, xi: float = 1.0) -> Tensor:
    """Mean squared error on the loss itself: the paper's ablation. ``xi`` is unused."""
    p, l = _checked(predicted, target)
    return F.mse_loss(p, l)


HEAD_LOSSES: dict[str, HeadLoss] = {
    "margin": margin,
    "soft-pairs": soft_pairs,
    "mse": mse,
}
"""The losses by the name that ``--head-loss`` takes."""


def _checked(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    # A prediction [B, 1] would broadcast against [B] to [B, B] and still train, wrongly.
    if predicted.ndim != 1 or predicted.shape != target.shape:
        raise ValueError(
            f"predicted {list(predicted.shape)} and target {list(target.shape)}: both must be [B]"
        )
    return predicted.float(), target.detach().float()


def _all_pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    i, j = torch.triu_indices(len(values), len(values), 1, device=values.device)
    return i, j
