"""Batch norm over the batch of all processes, so that it is that of one process.

torch's ``SyncBatchNorm`` takes tensors of a GPU alone, and its conversion replaces subclasses of
``BatchNorm2d`` with what they add (timm's have an activation). Here the function that all of them
call is replaced during a forward pass; modules and their state stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class SharedBatchNorm(TorchFunctionMode):
    """While active, ``batch_norm`` in training mode takes the statistics of all processes."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return _batch_norm(*args, **kwargs)
        return func(*args, **kwargs)


def _batch_norm(
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(
            images, running_mean, running_var, weight, bias, False, momentum, eps
        )  # outside of the mode: it is off inside of its own call
    normalized: Tensor
    normalized, mean, var, count = _Normalized.apply(images, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            unbiased = var * count / (count - 1).clamp(min=1)
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    shape = (1, -1, *[1] * (images.ndim - 2))
    if weight is not None:
        normalized = normalized * weight.reshape(shape)
    if bias is not None:
        normalized = normalized + bias.reshape(shape)
    return normalized.to(images.dtype)


class _Normalized(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) of each channel, over all processes' images.

    The gradient is that of Ioffe & Szegedy 2015, section 3, with sums over all processes.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = images if images.dtype == torch.float64 else images.float()
        axes = [0, *range(2, x.ndim)]
        count = x.new_tensor([x.numel() // x.shape[1]])
        mean = x.mean(axes)
        shape = (1, -1, *[1] * (x.ndim - 2))
        squares = (x - mean.reshape(shape)).square().sum(axes)
        count, mean, squares = _combined(count, mean, squares)
        var = squares / count
        scale = (var + eps).rsqrt()
        normalized = (x - mean.reshape(shape)) * scale.reshape(shape)
        ctx.save_for_backward(normalized, scale, count)
        ctx.axes, ctx.shape, ctx.dtype = axes, shape, images.dtype
        ctx.mark_non_differentiable(mean, var, count)
        return normalized, mean, var, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, None]:
        normalized, scale, count = ctx.saved_tensors
        sums = torch.stack([gradient.sum(ctx.axes), (gradient * normalized).sum(ctx.axes)])
        distributed.all_reduce(sums)
        mean, slope = (sums / count).reshape(2, *ctx.shape)
        found = (gradient - mean - normalized * slope) * scale.reshape(ctx.shape)
        return found.to(ctx.dtype), None


def _combined(count: Tensor, mean: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Combine counts [1], means [C] and sums of squared deviations [C] of all processes.

    By Chan, Golub & LeVeque 1983, which loses no digits where the mean is large.
    """
    own = torch.cat([count, mean, squares])
    found = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, own)
    rows, end = torch.stack(found), 1 + len(mean)
    counts, means, each = rows[:, :1], rows[:, 1:end], rows[:, end:]
    total = counts.sum(0)
    middle = (counts * means).sum(0) / total
    return total, middle, (each + counts * (means - middle).square()).sum(0)
