"""The embedded scorer."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from lloss import Scorer
from lloss.errors import PoolError
from lloss.images import decode
from lloss.pools import open_pool


@pytest.fixture(scope="module")
def scorer(artifact: Path) -> Scorer:
    return Scorer(artifact, device="cpu", batch_size=16)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (37, 8, 8, 3), np.uint8)


def test_scores_are_the_engines_whatever_the_batch(scorer: Scorer, images: np.ndarray) -> None:
    scores = scorer.score(images)
    whole = scorer.engine.run(images)
    assert scores.ids == [str(row) for row in range(37)]
    for name, values in whole.items():
        np.testing.assert_allclose(scores.columns[name], values, rtol=1e-4, atol=1e-4)
    assert scores.loss is scores.columns["loss"]
    assert scores.table().column_names == ["id", *whole]


def test_no_images_give_no_scores(scorer: Scorer) -> None:
    scores = scorer.score(np.zeros((0, 8, 8, 3), np.uint8))
    assert len(scores) == 0 and scores.columns["embedding"].shape == (0, 128)


def test_images_of_another_size_are_resized_as_in_training(scorer: Scorer) -> None:
    large = np.random.default_rng(1).integers(0, 256, (3, 20, 30, 3), np.uint8)
    small = np.stack([decode(image, scorer.manifest.image) for image in large])
    assert np.array_equal(scorer.score(large).loss, scorer.score(small).loss)


def test_grey_images_are_taken(scorer: Scorer) -> None:
    grey = np.random.default_rng(2).integers(0, 256, (2, 8, 8), np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=3)
    assert np.array_equal(scorer.score(grey).loss, scorer.score(rgb).loss)


@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8), np.uint8),
                                   np.zeros((2, 8, 8, 5), np.uint8)])  # fmt: skip
def test_other_arrays_are_refused_with_their_shape(scorer: Scorer, wrong: np.ndarray) -> None:
    with pytest.raises(PoolError, match="images of|array of shape"):
        scorer.score(wrong)


def test_a_dict_of_arrays_goes_in_and_out(scorer: Scorer, images: np.ndarray) -> None:
    names = np.array([f"n{row}" for row in range(37)])
    made = scorer({"image": images, "name": names})
    assert np.array_equal(made["name"], names) and "image" not in made
    np.testing.assert_array_equal(made["loss"], scorer.score(images).loss)
    with pytest.raises(PoolError, match=r"\['name'\].*'image' or 'images'"):
        scorer({"name": names})


def test_it_pickles_by_its_path(scorer: Scorer, images: np.ndarray) -> None:
    sent = pickle.dumps(scorer)
    assert len(sent) < 500
    again = pickle.loads(sent)
    assert again.batch_size == 16
    assert np.array_equal(again.score(images).loss, scorer.score(images).loss)


def test_a_pool_streams_in_its_order_and_keeps_its_ids(scorer: Scorer, photos: Path) -> None:
    batches = list(scorer.stream(photos))
    assert [len(batch) for batch in batches] == [16, 16, 16, 12]
    ids = [id for batch in batches for id in batch.ids]
    assert ids == [item.id for item in open_pool(photos)]


def test_a_broken_image_among_others_costs_nobody_else(
    scorer: Scorer, photos: Path, tmp_path: Path
) -> None:
    for path in (photos / "dark").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    clean = {id: loss for b in scorer.stream(tmp_path) for id, loss in zip(b.ids, b.loss)}
    (tmp_path / "005.png").write_bytes(b"no image")
    (tmp_path / "zzz.png").write_bytes(b"")
    batches = list(scorer.stream(tmp_path))
    skipped = [row for batch in batches for row in batch.skipped]
    assert [id for id, _ in skipped] == ["005.png", "zzz.png"]
    for batch in batches:
        for id, loss in zip(batch.ids, batch.loss):
            if id in clean:
                assert loss == pytest.approx(clean.pop(id), abs=1e-4)
    assert set(clean) <= {"005.png"}
