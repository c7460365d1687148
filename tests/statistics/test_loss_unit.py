from __future__ import annotations

import dataclasses
import json
import math

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.statistics.loss_unit import (
    EXPONENT,
    FLATTEST,
    LEAST,
    LossUnit,
    calibration,
    fit_unit,
)

Values = NDArray[np.float64]


def _made(count: int, seed: int = 0, a: float = 0.7, b: float = -1.2) -> tuple[Values, Values]:
    """Scores, and losses of a Gamma distribution with mean exp(a p + b) and shape 1/2."""
    random = np.random.default_rng(seed)
    p = random.normal(3, 2, count)
    return p, random.gamma(0.5, 2 * np.exp(a * p + b))


@pytest.mark.parametrize("zeros", [0, 15])
def test_the_fit_minimizes_the_gamma_likelihood(zeros: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    p, l = _made(60)
    l[:zeros] = 0

    def objective(theta: Values) -> float:
        eta = theta[0] * p + theta[1]
        return float((eta + l / np.exp(eta)).sum() + (theta[0] * p.std()) ** 2 / 2)

    best = optimize.minimize(objective, np.zeros(2), method="Nelder-Mead", tol=1e-12).x
    found = fit_unit(p, l, "nats")
    assert (found.a, found.b) == pytest.approx(best, abs=1e-5)
    assert (found.name, found.images, found.note) == ("nats", 60, "")


def test_the_standard_errors_are_those_of_repeated_samples() -> None:
    fits = [fit_unit(*_made(300, seed), "nats") for seed in range(200)]
    for number, (name, true) in enumerate({"a": 0.7, "b": -1.2}.items()):
        values = np.array([getattr(fit, name) for fit in fits])
        said = np.mean([(fit.errors or (0, 0))[number] for fit in fits])
        assert values.mean() == pytest.approx(true, abs=0.05)
        assert said == pytest.approx(values.std(), rel=0.15)


def test_the_unit_of_the_losses_moves_the_intercept_alone() -> None:
    p, l = _made(80)
    nats, bits = fit_unit(p, l, "nats"), fit_unit(p, l / math.log(2), "bits")
    assert bits.a == pytest.approx(nats.a)
    assert bits.b == pytest.approx(nats.b - math.log(math.log(2)))
    moved = fit_unit(100 * p - 7, l, "nats")
    assert moved.losses(100 * p - 7) == pytest.approx(nats.losses(p), rel=1e-6)


def test_the_calibration_is_by_deciles_of_the_prediction() -> None:
    p, l = _made(1000)
    found = fit_unit(p, l, "nats").calibration
    assert [each.images for each in found] == [100] * 10
    order = np.argsort(p)
    last, true = found[-1], l[order[-100:]]
    assert last.predicted == pytest.approx(fit_unit(p, l, "nats").losses(p[order[-100:]]).mean())
    assert last.true == pytest.approx(true.mean())
    assert last.error == pytest.approx(true.std(ddof=1) / 10)
    for each in found:
        assert abs(each.predicted - each.true) < 4 * each.error


def test_few_images_make_fewer_bins_of_five() -> None:
    for images, bins in ((20, 4), (49, 9), (50, 10)):
        found = fit_unit(*_made(images), "nats").calibration
        assert len(found) == bins and min(each.images for each in found) >= 5
    assert calibration(LossUnit(), np.ones(4), np.ones(4)) == ()


@pytest.mark.parametrize("sign", [-1, 0])
def test_the_order_stays_where_the_prediction_says_little(sign: int) -> None:
    p, l = _made(200)
    p = sign * p
    found = fit_unit(p, l, "nats")
    assert "says little" in found.note and found.a > 0
    if sign:
        assert found.a == pytest.approx(FLATTEST / p.std())
    assert found.losses(p).mean() == pytest.approx(l.mean(), rel=0.1)
    assert f"({found.note})" in str(found)


def test_losses_of_which_all_but_one_are_zero_have_a_fit() -> None:
    p = np.arange(50.0)
    l = np.where(p == 49, 3.0, 0.0)
    found = fit_unit(p, l, "nats")
    assert np.isfinite([found.a, found.b, *(found.errors or ())]).all() and found.a > 0


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        (np.ones(LEAST - 1), "19 losses of unseen images are too few for one, 20 are needed"),
        (np.zeros(30), "the losses of all 30 unseen images are 0"),
        (np.r_[-0.5, np.ones(30)], "losses below 0, such as -0.5, have none"),
        (np.full(25, np.nan), "0 losses of unseen images are too few for one, 20 are needed"),
    ],
)
def test_losses_without_a_fit_have_no_unit(losses: Values, why: str) -> None:
    found = fit_unit(np.arange(float(len(losses))), losses, "nats")
    assert found == LossUnit(note=why)
    assert str(found) == f"in no unit ({why})"


def test_images_without_a_finite_loss_are_left_out_and_counted() -> None:
    p, l = _made(60)
    l[3], p[5] = np.nan, np.inf
    rows = np.setdiff1d(np.arange(60), [3, 5])
    found, plain = fit_unit(p, l, "nats"), fit_unit(p[rows], l[rows], "nats")
    assert found == dataclasses.replace(plain, note="2 without a finite loss are left out")


def test_losses_are_exponentials_and_go_on_in_order_beyond_their_range() -> None:
    unit = LossUnit(a=2.0, b=-1.0)
    scores = np.array([-1.0, 0.0, 3.5])
    assert unit.losses(scores) == pytest.approx(np.exp(2 * scores - 1))
    far = np.array([-1e4, -1e3, -EXPONENT, EXPONENT, 1e3, 1e4])
    found = LossUnit().losses(far).astype(np.float32)
    assert np.isfinite(found).all() and (found > 0).all() and (np.diff(found) > 0).all()
    assert found[2] == pytest.approx(math.exp(-EXPONENT))
    assert found[4] == pytest.approx(math.exp(EXPONENT) * (1 + 1e3 - EXPONENT))
    for each in (unit, LossUnit(), LossUnit(a=0.001, b=5.0)):
        assert each.scores(each.losses(far)) == pytest.approx(far)


def test_it_is_plain_json() -> None:
    found = fit_unit(*_made(60), "nats", "labeled images")
    text = json.dumps(msgspec.to_builtins(found))
    assert msgspec.convert(json.loads(text), LossUnit) == found
    assert str(found).startswith("in nats: exp(0.") and "fitted on 60 labeled images" in str(found)
