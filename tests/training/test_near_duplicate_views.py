from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lloss.annotations import Problems
from lloss.data.class_labels import open_labeled
from lloss.manifest import EMBEDDING
from lloss.selection.near_duplicates import near_duplicate_distance
from lloss.training import near_duplicate_views
from lloss.training.checkpoint import load_checkpoint
from lloss.training.near_duplicate_views import (
    automatic_distance,
    chance_distance,
    embed_views,
    embedding_network,
    jittered,
)
from lloss.training.trainer import predict
from lloss.training.training_data import load_examples


def test_copies_are_shifted_and_of_another_brightness() -> None:
    images = torch.randint(40, 200, (8, 32, 48, 3), dtype=torch.uint8)
    copies = jittered(images, torch.Generator().manual_seed(0))
    assert copies.shape == images.shape and copies.dtype == torch.uint8
    for image, copy in zip(images.double(), copies.double()):
        best = min(
            float((copy[3:-3, 4:-4] / inside - ratio).abs().max())
            for dy in range(-2, 3)
            for dx in range(-3, 4)
            for inside in [image[3 + dy : 29 + dy, 4 + dx : 44 + dx]]
            for ratio in [copy[3:-3, 4:-4].sum() / inside.sum()]
        )
        assert best < 0.02  # a shifted copy, but for rounding
    assert not torch.equal(copies, images)
    again = jittered(images, torch.Generator().manual_seed(0))
    assert torch.equal(copies, again)


def test_embeddings_are_those_of_the_network(
    trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicate_views, "IMAGES", 30)
    checkpoint, labeled = load_checkpoint(trained), open_labeled(str(photos))
    network = embedding_network(checkpoint, EMBEDDING)
    plain, copies = embed_views(network, checkpoint.settings, labeled.items)
    assert plain.shape == copies.shape == (30, plain.shape[1])
    rows = np.random.default_rng(0).permutation(60)[:30]
    data, _ = load_examples(labeled.take(rows), checkpoint.classes, checkpoint.settings, Problems())
    batches = predict(network, checkpoint.settings, data.images)
    expected = torch.cat([forward.embedding for _, forward in batches])
    np.testing.assert_allclose(plain, expected.numpy(), atol=1e-5)
    near = np.linalg.norm(plain - copies, axis=1).mean()
    apart = np.linalg.norm(plain - np.roll(plain, 1, 0), axis=1).mean()
    assert 0 < near < apart


def test_without_an_image_there_is_no_embedding(trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    plain, copies = embed_views(checkpoint.network(), checkpoint.settings, [])
    assert plain.shape == copies.shape and len(plain) == 0 and plain.shape[1] > 0


def test_the_distance_is_that_of_copies_but_none_that_images_are_within_by_chance(
    trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, labeled = load_checkpoint(trained), open_labeled(str(photos))
    network, settings = embedding_network(checkpoint, EMBEDDING), checkpoint.settings
    views = embed_views(network, settings, labeled.items)
    of_copies, by_chance = near_duplicate_distance(*views), chance_distance(views[0], 5000)
    assert 0 < by_chance < of_copies
    assert automatic_distance(network, settings, labeled.items, 5000) == by_chance
    monkeypatch.setattr(near_duplicate_views, "chance_distance", lambda *_: np.inf)
    assert automatic_distance(network, settings, labeled.items, 5000) == of_copies
    assert automatic_distance(network, settings, [], 5) == 0


def test_so_many_images_have_half_of_a_pool_within_the_distance_by_chance() -> None:
    points = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    taken = chance_distance(points[:200], 10)
    within = (1 - units[200:] @ units[:10].T < taken).mean()
    assert within == pytest.approx(0.05, abs=0.02)
    assert chance_distance(points[:1], 10) == np.inf
    assert chance_distance(np.ones((9, 3), np.float32), 10) == pytest.approx(0, abs=1e-6)
