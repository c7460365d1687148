"""Fidelity: figures against formulas written out, and a gate that NaN does not pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from lloss.export.fidelity import (
    Fidelity,
    Gate,
    Predicted,
    Spread,
    fidelity,
    predict,
    spread,
    top_overlap,
)

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


def noisy(seed: int, count: int) -> tuple[Predicted, Predicted]:
    random = np.random.default_rng(seed)
    a = random.normal(size=count).astype(np.float32)
    return predicted(a), predicted((a + random.normal(0, 0.1, count)).astype(np.float32))


def test_standard_errors_are_how_far_other_images_differ() -> None:
    others = [fidelity(*noisy(seed, 400)) for seed in range(200)]
    found = [spread(*noisy(seed, 400)) for seed in range(20)]
    for name in ("spearman", "top_decile_overlap"):
        wanted = float(np.std([getattr(figures, name) for figures in others]))
        told = float(np.median([getattr(errors, name) for errors in found]))
        assert told == pytest.approx(wanted, rel=0.35)


def test_the_spread_is_repeatable_and_of_nothing_is_nan() -> None:
    assert spread(*noisy(0, 300)) == spread(*noisy(0, 300))
    same = predicted(np.arange(300, dtype=np.float32))
    assert spread(same, same).top_decile_overlap == 0
    assert spread(same, same).spearman == pytest.approx(0, abs=1e-12)
    broken = predicted(np.full(300, np.nan, np.float32))
    assert np.isnan(spread(same, broken).spearman)


@pytest.mark.parametrize(
    ("spearman", "overlap", "wanted"),
    [(0.9995, 1.0, 2.5), (0.9999, 0.98, 1.0), (0.9989, 1.0, -0.5), (1.0, 0.96, -1.0)],
)
def test_room_is_the_nearer_figures(spearman: float, overlap: float, wanted: float) -> None:
    errors = Spread(spearman=0.0002, top_decile_overlap=0.01)
    assert Gate().room(figures(spearman, overlap), errors) == pytest.approx(wanted)


def test_figures_that_no_draw_moves_have_room() -> None:
    none = Spread(spearman=0.0, top_decile_overlap=0.0)
    assert Gate().room(figures(), none) > 1000


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
