"""The variants of the benchmark of loss prediction, and its report."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lloss.modeling.head import LossPredictionHead
from lloss.modeling.head_losses import soft_pairs
from lloss.simulation.feature_store import FeatureStore
from lloss.simulation.image_variants import content_digest
from lloss.training import head_training
from lloss.training.feature_cache import FeatureCache
from lloss.training.head_training import train_head


def test_features_of_a_simulation_are_read_by_the_images(bench: ModuleType, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    vectors = random.normal(size=(5, 9)).astype(np.float32)
    keys = [content_digest(image)[:32] for image in images]
    FeatureStore(tmp_path).fill(keys, lambda places: iter([vectors[list(places)]]))
    np.savez(tmp_path / "some.npz", images=images[[3, 1]], labels=np.array([7, 2]))
    found = bench.read_simulated(tmp_path, tmp_path / "some.npz", [2, 3])
    wanted = torch.from_numpy(vectors[[3, 1]])
    assert torch.equal(torch.cat(found.pooled, 1), wanted[:, :5]) and len(found.pooled) == 2
    assert torch.equal(found.last, wanted[:, 5:]) and found.targets.tolist() == [7, 2]


def test_a_recipe_changes_how_the_head_is_trained(bench: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(100, size, generator=generator) for size in (3, 5)]
    losses = torch.rand(100, generator=generator)

    def predicted(*recipe: object, **changed: object) -> torch.Tensor:
        with torch.no_grad():
            return bench.Recipe(*recipe, **changed).trained(inputs, losses, 3)(inputs)

    head, cache = LossPredictionHead([3, 5]), FeatureCache(inputs, losses, 100)
    with torch.no_grad():
        usual = train_head(head, cache, torch.arange(100), soft_pairs, 3)(inputs)
    assert torch.equal(predicted(), usual)
    changes = {"steps": 150, "per_batch": 110, "rate": 1e-3, "decay": 1.0, "compare": bench.gamma}
    for name, value in changes.items():
        assert not torch.allclose(predicted(**{name: value}), usual), name
    assert torch.equal(predicted(per_batch=100), usual)  # two batches
    assert head_training.STEPS == bench.STEPS


def test_each_variant_predicts_and_the_report_is_printed(
    bench: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(0)
    centers = random.normal(size=(10, 6))

    def split(*_: object) -> object:
        targets = random.integers(0, 10, 120)
        pooled = (centers[targets] + random.normal(size=(120, 6))).astype(np.float32)
        inputs = torch.from_numpy(pooled)
        return bench.Split([inputs] * 2, inputs, torch.from_numpy(targets))

    monkeypatch.setattr(bench, "read_features", split)
    short = bench.Recipe(steps=5, hidden=4)
    monkeypatch.setattr(bench, "TODAY", short)
    trial = bench.make_trial(split(), split(), 60, 0)
    for what in ("", "seen", "distance", "no summary", "summary alone", "last tap", "expected 100"):
        found = bench._of(short, what, heads=2)(trial, 0)
        assert found.shape == (120,) and np.isfinite(found).all()
    kept = {bench.REFERENCE: bench._of(short), "entropy": bench.VARIANTS["entropy"]}
    monkeypatch.setattr(bench, "VARIANTS", kept)
    words = ["--out", str(tmp_path), "--labels", "60", "--trials", "2"]
    bench.main(words, standalone_mode=False)
    out = capsys.readouterr().out
    assert "60 labels, 2 trials" in out and "predicted by deciles: " in out
    assert out.count("\n| ") == 3 and "| entropy | 0." in out
