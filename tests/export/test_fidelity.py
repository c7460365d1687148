"""Fidelity: figures against formulas, and limits that NaN does not reach."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from lloss.export.fidelity import Fidelity, FidelityLimits, Predicted, compare, predict, top_overlap

from lloss.errors import SettingsError


def predicted(loss: np.ndarray) -> Predicted:
    return Predicted([f"{row:03d}" for row in range(len(loss))], loss, 0)


def figures(spearman: float = 1.0, overlap: float = 1.0, broken: int = 0) -> Fidelity:
    return Fidelity(
        spearman=spearman,
        top_decile_overlap=overlap,
        max_abs_difference=0.0,
        images=200,
        broken=broken,
    )


def test_figures_are_those_of_the_formulas() -> None:
    random = np.random.default_rng(0)
    a = random.normal(size=300).round(1).astype(np.float32)  # with ties
    b = (a + random.normal(0, 0.3, 300)).astype(np.float32)
    found = compare(predicted(a), predicted(b))
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert found.max_abs_difference == pytest.approx(max(abs(x - y) for x, y in zip(a, b)))
    assert found.images == 300 and found.mean_loss == pytest.approx(a.mean(), abs=1e-6)
    assert f"(mean loss {a.mean():.2g})" in str(found)

    def tenth(scores: np.ndarray) -> set[int]:
        return {row for _, row in sorted((-s, row) for row, s in enumerate(scores.tolist()))[:30]}

    assert found.top_decile_overlap == len(tenth(a) & tenth(b)) / 30


def test_ties_at_the_edge_of_the_tenth_go_by_id() -> None:
    same = np.zeros(20, np.float32)
    ids = [f"{row:02d}" for row in range(20)]
    last_two = np.where(np.arange(20) >= 18, 1, 0)
    first_two = np.where(np.arange(20) < 2, 1, 0)
    assert top_overlap(same, first_two, ids) == 1
    assert top_overlap(same, last_two, ids) == 0
    assert top_overlap(same, last_two, ids[::-1]) == 1


@pytest.mark.parametrize(
    "loss",
    [np.float32([0, 1, np.nan, 3]), np.float32([0, 1, np.inf, 3]), np.zeros(4, np.float32)],
)
def test_losses_without_an_order_reach_no_limit(loss: np.ndarray) -> None:
    found = compare(predicted(np.arange(4, dtype=np.float32)), predicted(loss))
    assert np.isnan(found.spearman)
    assert not FidelityLimits(min_spearman=0, min_overlap=0).passes(found)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["spearman"] is None


@pytest.mark.parametrize(
    ("reached", "margin", "passes"),
    [
        (figures(), 0, True),
        (figures(0.999, 0.97), 0, True),
        (figures(0.9989, 1), 0, False),
        (figures(1, 0.969), 0, False),
        (figures(broken=1), 0, False),
        (figures(0.9995, 0.985), 0.5, True),
        (figures(0.9994, 1), 0.5, False),
        (figures(1, 0.984), 0.5, False),
    ],
)
def test_both_thresholds_count(reached: Fidelity, margin: float, passes: bool) -> None:
    assert FidelityLimits().passes(reached, margin) is passes
    assert ("1 image with NaN" in str(reached)) == bool(reached.broken)


def test_a_threshold_out_of_range_is_named() -> None:
    with pytest.raises(SettingsError, match=r"--min-overlap 97.0: .* from 0 to 1"):
        FidelityLimits(min_overlap=97.0)
    with pytest.raises(SettingsError, match="--min-spearman nan"):
        FidelityLimits(min_spearman=float("nan"))


def test_predict_runs_every_batch(onnx_file: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    whole = predict(onnx_file, [(list("abcde"), images)])
    parts = predict(onnx_file, [(list("ab"), images[:2]), (list("cde"), images[2:])])
    assert list(parts.ids) == list("abcde") and parts.broken == 0
    np.testing.assert_allclose(whole.loss, parts.loss, atol=1e-5)
