from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lloss.modeling.head_losses import HEAD_LOSSES, HeadLoss, margin, mse, soft_pairs

NAMES = sorted(HEAD_LOSSES)


def _batch(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randn(size, generator=generator).requires_grad_()
    return predicted, torch.rand(size, generator=generator) * 3


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)


def _papers_pair(p_i: float, p_j: float, l_i: float, l_j: float, xi: float) -> float:
    return max(0.0, -_sign(l_i - l_j) * (p_i - p_j) + xi)


@pytest.mark.parametrize("size", [2, 4, 5, 7, 32])
@pytest.mark.parametrize("xi", [0.0, 1.0, 2.5])
def test_margin_is_the_papers_formula_over_disjoint_pairs(size: int, xi: float) -> None:
    predicted, target = _batch(size)
    p, l = predicted.tolist(), target.tolist()
    half = math.ceil(size / 2)
    pairs = [(i, (i + half) % size) for i in range(half)]
    seen = [image for pair in pairs for image in pair]
    assert set(seen) == set(range(size))  # an odd batch drops no image
    assert len(seen) == size + size % 2  # and pairs are disjoint but for its first
    expected = sum(_papers_pair(p[i], p[j], l[i], l[j], xi) for i, j in pairs) / half
    assert margin(predicted, target, xi).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [2, 3, 5, 6, 9])
def test_every_prediction_gets_a_gradient_and_no_target_does(name: str, size: int) -> None:
    predicted, target = _batch(size)
    target.requires_grad_()
    HEAD_LOSSES[name](predicted, target, 100.0).backward()  # type: ignore[no-untyped-call]
    assert predicted.grad is not None and target.grad is None
    assert (predicted.grad != 0).sum() >= size - size % 2
    if name != "margin":  # in the margin the two gradients of the first image may cancel
        assert (predicted.grad != 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("predicted", "target"),
    [((4, 1), (4,)), ((4,), (4, 1)), ((4, 1), (4, 1)), ((4,), (3,)), ((4,), ()), ((), ())],
)
def test_shapes_that_would_broadcast_are_refused(
    name: str, predicted: tuple[int, ...], target: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"both must be \[B\]"):
        HEAD_LOSSES[name](torch.zeros(predicted), torch.zeros(target))


@pytest.mark.parametrize("size", [2, 3, 8])
def test_soft_pairs_is_its_formula_over_all_pairs(size: int) -> None:
    predicted, target = _batch(size)
    p, l = predicted.tolist(), target.tolist()
    terms = []
    for i in range(size):
        for j in range(i + 1, size):
            chance = 1 / (1 + math.exp(-(p[i] - p[j])))
            share = l[i] / (l[i] + l[j])
            terms.append(-share * math.log(chance) - (1 - share) * math.log(1 - chance))
    expected = sum(terms) / len(terms)
    assert soft_pairs(predicted, target).item() == pytest.approx(expected, abs=1e-6)
    squares = [(one - other) ** 2 for one, other in zip(p, l)]
    assert mse(predicted, target).item() == pytest.approx(sum(squares) / size, rel=1e-5)


@pytest.mark.parametrize("tiny", [0.0, 1e-45, 1e-38, 1e-20])
def test_soft_pairs_stays_finite_for_vanishing_losses(tiny: float) -> None:
    predicted = torch.tensor([0.3, -0.2, 0.1], requires_grad=True)
    loss = soft_pairs(predicted, torch.tensor([tiny, 0.0, 1.0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()


@pytest.mark.parametrize("loss", [margin, soft_pairs])
def test_a_batch_of_one_has_no_pair_and_costs_nothing(loss: HeadLoss) -> None:
    predicted = torch.tensor([2.0], requires_grad=True)
    value = loss(predicted, torch.tensor([1.0]))
    value.backward()  # type: ignore[no-untyped-call]
    assert value.item() == 0
    assert predicted.grad is not None
    assert predicted.grad.item() == 0


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_single(name: str) -> None:
    predicted, target = _batch(8)
    low, target = predicted.detach().bfloat16(), target.bfloat16()
    found = HEAD_LOSSES[name](low, target)
    assert found.dtype == torch.float32
    assert torch.equal(found, HEAD_LOSSES[name](low.float(), target.float()))


@pytest.mark.parametrize("name", NAMES)
def test_a_larger_batch_runs_no_more_operations(name: str) -> None:
    def operations(size: int) -> int:
        predicted, target = _batch(size)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            HEAD_LOSSES[name](predicted, target).backward()  # type: ignore[no-untyped-call]
        return sum(event.count for event in seen.key_averages() if event.key.startswith("aten::"))

    operations(4)  # the first run in a process may set things up
    assert operations(8) == operations(64)
