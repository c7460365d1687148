"""Drift against the formula written out, and against chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from lloss.serve.daemon.observability.drift import LEAST, Drift
from scipy import stats

from lloss.statistics.loss_distribution import LossReference


def drift(losses: np.ndarray, live: np.ndarray, **options: int) -> Drift:
    found = Drift(**options)
    found.against(LossReference.of(losses.astype(np.float32), "a pool"))
    found.add(live.astype(np.float32))
    return found


def psi(losses: np.ndarray, live: np.ndarray) -> float:
    return drift(losses, live).psi()


def psi_written_out(losses: np.ndarray, live: np.ndarray) -> float:
    """Ten bins of a tenth of the reference each, half an image added to each bin."""
    assert len(losses) % 10 == 0
    edges = [sorted(losses)[len(losses) * n // 10 - 1] for n in range(1, 10)]
    total = 0.0
    for number in range(10):
        low = edges[number - 1] if number else -math.inf
        high = edges[number] if number < 9 else math.inf
        p = (sum(low < x <= high for x in live) + 0.5) / (len(live) + 5)
        q = (sum(low < x <= high for x in losses) + 0.5) / (len(losses) + 5)
        total += (p - q) * math.log(p / q)
    return total


SHAPES = {
    "normal": lambda random, n: random.normal(1.0, 0.3, n),
    "skewed": lambda random, n: random.gamma(2.0, 0.5, n),
    "two humps": lambda random, n: np.where(
        random.random(n) < 0.7, random.normal(0, 0.2, n), random.normal(3, 0.5, n)
    ),
    "far from zero": lambda random, n: random.normal(-40, 3, n),
}


@pytest.mark.parametrize("shift", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_index_equals_the_formula(shape: str, shift: float) -> None:
    random = np.random.default_rng(3)
    losses = SHAPES[shape](random, 1000).astype(np.float32)
    live = (SHAPES[shape](random, 3000) + shift).astype(np.float32)
    assert psi(losses, live) == pytest.approx(psi_written_out(losses, live), rel=0.01, abs=1e-4)


def test_chance_alone_stays_below_the_thresholds_and_a_shift_passes_them() -> None:
    random = np.random.default_rng(0)
    by_chance, shifted = [], []
    for _ in range(200):
        losses = random.gamma(2.0, 0.5, 1000)
        least = random.gamma(2.0, 0.5, LEAST)
        by_chance.append(psi(losses, least))
        shifted.append(psi(losses, least + 0.7))  # a standard deviation
    assert max(by_chance) < 0.1 and min(shifted) > 0.25
    # (1/N + 1/M) χ²(9), as the source says of the index without drift.
    wanted = (1 / LEAST + 1 / 1000) * stats.chi2(9).mean()
    assert np.mean(by_chance) == pytest.approx(wanted, rel=0.1)


def test_it_is_nan_without_a_reference_or_enough_images() -> None:
    losses = np.random.default_rng(0).normal(0, 1, 1000)
    few = drift(losses, losses[: LEAST - 1])
    assert math.isnan(few.psi()) and few.images == LEAST - 1
    few.add(np.array([np.nan, np.inf, -np.inf], np.float32))
    assert few.images == LEAST - 1
    few.add(losses[:1].astype(np.float32))
    assert few.psi() < 0.1
    few.against(None)
    few.add(np.zeros(LEAST, np.float32))
    assert math.isnan(few.psi())


@pytest.mark.parametrize("size", [1, 7, 499, 500, 501, 1300])
def test_the_window_holds_the_latest_images(size: int) -> None:
    random = np.random.default_rng(size)
    losses, stream = random.normal(0, 1, 1000), random.normal(0, 1, 2600).astype(np.float32)
    found = drift(losses, stream[:0], window=500, least=1)
    for start in range(0, len(stream), size):
        found.add(stream[start : start + size])
    alone = drift(losses, stream[-500:], window=500, least=1)
    assert (found.psi(), found.images) == (alone.psi(), 500)


@pytest.mark.parametrize("value", [0.0, 0.7, -3.0, 1e-30])
def test_constant_losses_do_not_drift(value: float) -> None:
    losses = np.full(1000, value)
    rounded = losses * (1 + np.random.default_rng(0).normal(0, 1e-6, 1000))
    assert psi(losses, losses) < 0.001 and psi(losses, rounded) < 0.001
    assert psi(losses, losses + 0.5) > 1 and psi(losses, losses - 0.5) > 1


def test_a_loss_that_many_images_share_differs_from_its_neighbours() -> None:
    random = np.random.default_rng(0)

    def clipped(share: float, n: int) -> np.ndarray:
        return np.where(random.random(n) < share, 0.5, 0.5 + random.gamma(2, 0.3, n))

    losses, live = clipped(0.5, 2000), clipped(0.5, 3000)
    assert psi(losses, live + random.normal(0, 1e-6, 3000)) < 0.02
    assert psi(losses, np.where(live == 0.5, 0.4, live)) > 0.25
    assert psi(losses, clipped(0.8, 3000)) > 0.25


def test_coarse_losses_compare_as_fine_ones_do() -> None:
    random = np.random.default_rng(0)
    losses, live = random.normal(1, 0.3, 1000), random.normal(1.15, 0.3, 3000)
    coarse = [np.round(values / 0.05) * 0.05 for values in (losses, live)]
    assert psi(*coarse) == pytest.approx(psi(losses, live), rel=0.15)
    assert psi(coarse[0], np.round(random.normal(1, 0.3, 3000) / 0.05) * 0.05) < 0.05


def test_positive_losses_are_compared_by_their_logarithms() -> None:
    """Rounding is relative then: low losses are as far apart as high ones."""
    random = np.random.default_rng(4)
    losses = np.exp(random.normal(-3, 3, 1000)).astype(np.float32)
    live = np.exp(random.normal(-2.5, 3, 3000)).astype(np.float32)
    reference = LossReference.of(losses, "a pool")
    found = Drift()
    found.against(reference, positive=True)
    found.add(live)
    assert found.psi() == pytest.approx(psi_written_out(losses, live), rel=0.01)
    found.against(reference, positive=True)
    found.add(np.zeros(600, np.float32))  # of a provider that flushes tiny numbers
    assert found.psi() > 1
