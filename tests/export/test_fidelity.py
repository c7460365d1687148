"""Fidelity: figures against formulas written out, and a gate that NaN does not pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from lloss.export.fidelity import Fidelity, Gate, Predicted, fidelity, predict, top_overlap

from lloss.errors import SettingsError


def predicted(loss: np.ndarray, broken: int = 0) -> Predicted:
    return Predicted([f"{row:03d}" for row in range(len(loss))], loss, broken)


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
    found = fidelity(predicted(a), predicted(b))
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert found.max_abs_difference == pytest.approx(max(abs(x - y) for x, y in zip(a, b)))
    assert found.images == 300

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
    "spoiled",
    [np.float32([0, 1, np.nan, 3]), np.float32([0, 1, np.inf, 3]), np.zeros(4, np.float32)],
)
def test_what_has_no_order_passes_no_gate(spoiled: np.ndarray) -> None:
    found = fidelity(predicted(np.arange(4, dtype=np.float32)), predicted(spoiled))
    assert np.isnan(found.spearman)
    assert not Gate(min_spearman=0, min_overlap=0).passes(found)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["spearman"] is None


def test_a_nan_in_any_output_passes_no_gate() -> None:
    assert Gate().passes(figures())
    assert not Gate().passes(figures(broken=1))
    assert "1 images with NaN" in str(figures(broken=1))


@pytest.mark.parametrize(
    ("spearman", "overlap", "passes"),
    [(0.999, 0.97, True), (0.9989, 1, False), (1, 0.969, False)],
)
def test_both_thresholds_count(spearman: float, overlap: float, passes: bool) -> None:
    assert Gate().passes(figures(spearman, overlap)) is passes


def test_a_threshold_out_of_range_is_named() -> None:
    with pytest.raises(SettingsError, match=r"--min-overlap 97.0: .* from 0 to 1"):
        Gate(min_overlap=97.0)
    with pytest.raises(SettingsError, match="--min-spearman nan"):
        Gate(min_spearman=float("nan"))


def test_predict_runs_every_batch(artifact: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    whole = predict(artifact, [(list("abcde"), images)])
    parts = predict(artifact, [(list("ab"), images[:2]), (list("cde"), images[2:])])
    assert list(parts.ids) == list("abcde") and parts.broken == 0
    np.testing.assert_allclose(whole.loss, parts.loss, atol=1e-5)
