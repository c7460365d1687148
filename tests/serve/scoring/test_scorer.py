"""The embedded scorer."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss import Scorer
from lloss.errors import EngineError, PoolError, SettingsError
from lloss.images.decode import decode
from lloss.pools import ArrayPool, open_pool

from ...waiting import PATIENCE, until
from .fakes import pictures


@pytest.fixture(scope="module")
def scorer(onnx_file: Path) -> Iterator[Scorer]:
    with Scorer(onnx_file, provider="cpu", batch_size=16) as made:
        yield made


@pytest.fixture
def images() -> np.ndarray:
    return pictures(37)


def test_scores_are_the_engines_whatever_the_batch(scorer: Scorer, images: np.ndarray) -> None:
    scores = scorer.score(images)
    whole = scorer.engine.run(images)
    assert scores.ids == [str(row) for row in range(37)]
    for name, values in whole.items():
        np.testing.assert_allclose(scores.columns[name], values, rtol=1e-4, atol=1e-4)
    assert scores.loss is scores.columns["loss"]
    assert scores.table().column_names == ["id", *whole]
    nothing = scorer.score(images[:0])
    assert len(nothing) == 0 and nothing.columns["embedding"].shape == (0, 128)


def test_images_of_another_size_are_resized_as_in_training(scorer: Scorer) -> None:
    large = np.random.default_rng(1).integers(0, 256, (3, 20, 30, 3), np.uint8)
    small = np.stack([decode(image, scorer.manifest.image) for image in large])
    assert np.array_equal(scorer.score(large).loss, scorer.score(small).loss)
    grey = np.random.default_rng(2).integers(0, 256, (2, 8, 8), np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=3)
    assert np.array_equal(scorer.score(grey).loss, scorer.score(rgb).loss)


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8, 4), (20, 30, 3), (8, 8, 1), (3, 8, 3)])
@pytest.mark.parametrize("how", ["score", "column", "rows", "column of rows", "nested lists"])
def test_one_image_is_not_taken_for_a_batch_of_its_rows(
    scorer: Scorer, shape: tuple[int, ...], how: str
) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    calls: dict[str, Callable[[], object]] = {
        "score": lambda: scorer.score(image),
        "column": lambda: scorer({"image": image}),
        "rows": lambda: scorer.score(list(image)),
        "column of rows": lambda: scorer({"image": list(image)}),
        "nested lists": lambda: scorer({"image": image.tolist()}),
    }
    with pytest.raises(PoolError, match="is one image|looks like a row of pixels|is a list"):
        calls[how]()


def test_it_pickles_by_its_path(scorer: Scorer, images: np.ndarray) -> None:
    sent = pickle.dumps(scorer)
    assert len(sent) < 500
    with pickle.loads(sent) as copy:
        assert copy.batch_size == 16
        assert np.array_equal(copy.score(images).loss, scorer.score(images).loss)


def test_a_pool_streams_in_its_order_and_keeps_its_ids(scorer: Scorer, photos: Path) -> None:
    batches = list(scorer.stream(photos))
    assert [len(batch) for batch in batches] == [16, 16, 16, 12]
    ids = [id for batch in batches for id in batch.ids]
    assert ids == [item.id for item in open_pool(photos)]


def test_bytes_paths_and_arrays_get_the_same_scores(scorer: Scorer, photos: Path) -> None:
    paths = sorted(photos.rglob("*.png"))
    contents = [path.read_bytes() for path in paths]
    arrays = [decode(content, scorer.manifest.image) for content in contents]
    mixed: list[Any] = [
        [str(p), p, c, a][n % 4] for n, (p, c, a) in enumerate(zip(paths, contents, arrays))
    ]
    views = tuple(memoryview(content) for content in contents)
    ways = [
        scorer.score(given)
        for given in (paths, contents, arrays, mixed, open_pool(photos), views, iter(contents))
    ]
    for scores in ways:
        assert np.array_equal(scores.loss, ways[0].loss) and not scores.skipped
    assert ways[0].ids == [str(path) for path in paths]
    assert ways[1].ids == ways[2].ids == [str(row) for row in range(60)]
    assert list(ways[3].ids[:4]) == [str(paths[0]), str(paths[1]), "2", "3"]
    assert list(ways[4].ids) == [path.relative_to(photos).as_posix() for path in paths]


def test_the_path_of_a_pool_is_opened(scorer: Scorer, photos: Path) -> None:
    scores = scorer.score(str(photos))
    assert sorted(scores.ids) == sorted(
        p.relative_to(photos).as_posix() for p in photos.rglob("*.png")
    )
    assert scorer.score(photos).ids == scores.ids


def test_a_bad_image_is_skipped_with_its_reason(
    scorer: Scorer, photos: Path, images: np.ndarray
) -> None:
    gone = photos / "gone.png"
    given = [images[0], b"no image", gone, images[1].astype(float), photos, b"", images[2]]
    scores = scorer.score(given)
    assert scores.ids == ["0", "6"]
    skipped = dict(scores.skipped)
    assert list(skipped) == ["1", str(gone), "3", str(photos), "5"]
    reasons = ["not an image", "No such file", "float64", "directory", "empty file"]
    for wanted, reason in zip(reasons, skipped.values()):
        assert wanted in reason
    assert len(scorer.score([b""])) == 0


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (b"bytes", "one bytes: give a list"),
        ("folder", "folder: "),
        (Path("folder"), "folder: "),
        ([np.zeros((8, 8, 3), np.uint8), None], "image 1 is a NoneType: give bytes, a path or"),
        ([7], "image 0 is a int"),
        (7, "a int: give"),
        (None, "a NoneType: give"),
        ({"image": [b""]}, "a dict: give"),
        (np.array(["a.png"]), "images of <U5"),
        (np.zeros((2, 8, 8, 3)), "images of float64"),
        (np.zeros((8, 8), np.uint8), r"images of uint8 \[8, 8\]"),
        (np.zeros((2, 8, 8, 5), np.uint8), "array of shape"),
    ],
)
def test_other_types_are_refused_in_one_line(scorer: Scorer, wrong: Any, match: str) -> None:
    with pytest.raises(PoolError, match=match) as raised:
        scorer.score(wrong)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "value"), [("batch_size", -1), ("threads", -2), ("readers", 0)])
def test_numbers_out_of_range_are_refused(onnx_file: Path, name: str, value: int) -> None:
    with pytest.raises(SettingsError, match=f"{name} = {value}"):
        Scorer(onnx_file, "cpu", **{name: value})  # type: ignore[arg-type]


def test_a_closed_scorer_refuses_every_use(onnx_file: Path, images: np.ndarray) -> None:
    pool = ArrayPool(images, "memory")
    with Scorer(onnx_file, "cpu", batch_size=64) as scorer:
        scorer.score(images)
        list(scorer.stream(pool))
    for use in (
        lambda: scorer.score(images),
        lambda: scorer.score(np.repeat(images, 9, axis=0)),
        lambda: scorer.score([images[0]]),
        lambda: list(scorer.stream(pool)),
        lambda: scorer({"image": images}),
    ):
        with pytest.raises(EngineError, match="the scorer was closed"):
            use()
    scorer.close()


def test_a_batch_that_uses_a_closing_scorer_is_refused(onnx_file: Path) -> None:
    scorer = Scorer(onnx_file, "cpu", threads=1)
    closing = threading.Thread(target=scorer.close, daemon=True)

    def take() -> None:
        closing.start()
        until(lambda: scorer._closed)
        scorer.when_free(lambda: None)

    with pytest.raises(EngineError, match="closed"):
        scorer.when_free(take).result(PATIENCE)
    closing.join(PATIENCE)
    assert not closing.is_alive()


# A dict of arrays


def object_array(values: list[Any]) -> np.ndarray:
    return np.fromiter(values, object, len(values))


@pytest.mark.parametrize("column", [list, object_array, np.stack], ids=["list", "objects", "array"])
@pytest.mark.parametrize("kind", ["bytes", "mixed", "arrays", "sizes"])
def test_a_dict_of_images(
    scorer: Scorer, encoded: Callable[..., bytes], column: Callable[[Any], Any], kind: str
) -> None:
    images: list[Any] = list(pictures(9))
    if kind == "sizes":
        images = [pictures(1, n, 8 + n)[0] for n in range(9)]
    given = [encoded(x) if kind == "bytes" or (kind == "mixed" and n > 3) else x
             for n, x in enumerate(images)]  # fmt: skip
    if column is np.stack and kind != "arrays":
        pytest.skip("images of several types or sizes are not an array")
    keys = np.array(list("abcdefghi"))
    outputs = scorer({"images": column(given), "key": keys})
    assert outputs["key"] is keys and set(outputs) == {"key", *scorer.manifest.outputs}
    assert np.array_equal(outputs["loss"], scorer.score(images).loss)


@pytest.mark.parametrize("empty", [[], np.empty(0, object), np.empty((0, 8, 8, 3), np.uint8)])
def test_an_empty_batch_comes_out_empty(scorer: Scorer, empty: Any) -> None:
    outputs = scorer({"image": empty, "key": []})
    assert outputs["loss"].shape == (0,) and outputs["embedding"].shape == (0, 128)


def test_a_bad_image_in_a_dict_is_named(
    scorer: Scorer, encoded: Callable[..., bytes], images: np.ndarray
) -> None:
    good = encoded(images[0])
    palette = Image.fromarray(images[0]).convert("P")
    for batch, match in (
        ([good, good, b"text", b""], "image 2 of the batch: .*known format.*leave such rows out"),
        ([palette, palette], "image 0 is a Image: give bytes"),
        (7, "a int: give an array"),
        ([good, None], "image 1 is a NoneType"),
        ([good, "/gone.png"], "image /gone.png of the batch: cannot be read"),
    ):
        with pytest.raises(PoolError, match=match):
            scorer({"image": batch})
    with pytest.raises(PoolError, match=r"\['name'\].*'image' or 'images'"):
        scorer({"name": [1]})
