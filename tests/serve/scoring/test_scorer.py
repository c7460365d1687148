"""The embedded scorer."""

from __future__ import annotations

import io
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss import Scorer
from lloss.errors import EngineError, PoolError, SettingsError
from lloss.images.decode import decode
from lloss.pools import open_pool

from ...waiting import PATIENCE


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
    with pytest.raises(PoolError, match="is one image|looks like a row of pixels|images of int"):
        calls[how]()


def test_one_image_in_a_batch_is_one_score(scorer: Scorer) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    expected = scorer.score(image[None]).loss
    assert expected.shape == (1,)
    assert np.array_equal(scorer.score([image]).loss, expected)
    assert np.array_equal(scorer({"images": [image]})["loss"], expected)


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


def test_bytes_paths_and_arrays_are_scored_alike(scorer: Scorer, photos: Path) -> None:
    paths = sorted(photos.rglob("*.png"))
    contents = [path.read_bytes() for path in paths]
    arrays = [decode(content, scorer.manifest.image) for content in contents]
    mixed: list[Any] = [
        [str(p), p, c, a][n % 4] for n, (p, c, a) in enumerate(zip(paths, contents, arrays))
    ]
    ways = [scorer.score(given) for given in (paths, contents, arrays, mixed, open_pool(photos))]
    for scores in ways:
        assert np.array_equal(scores.loss, ways[0].loss) and not scores.skipped
    assert ways[0].ids == [str(path) for path in paths]
    assert ways[1].ids == ways[2].ids == [str(row) for row in range(60)]
    assert list(ways[3].ids[:4]) == [str(paths[0]), str(paths[1]), "2", "3"]
    assert list(ways[4].ids) == [path.relative_to(photos).as_posix() for path in paths]
    assert np.array_equal(scorer.score(tuple(memoryview(c) for c in contents)).loss, ways[0].loss)
    assert np.array_equal(scorer.score(c for c in contents).loss, ways[0].loss)


def test_a_bad_one_among_them_is_skipped_with_its_reason(
    scorer: Scorer, photos: Path, images: np.ndarray
) -> None:
    gone = photos / "gone.png"
    given = [images[0], b"no image", gone, images[1].astype(float), photos, b"", images[2]]
    scores = scorer.score(given)
    assert scores.ids == ["0", "6"]
    skipped = dict(scores.skipped)
    assert list(skipped) == ["1", str(gone), "3", str(photos), "5"]
    reasons = ["not an image", "No such file", "float64", "directory", "empty file"]
    for reason, told in zip(reasons, skipped.values()):
        assert reason in told
    assert np.array_equal(scorer.score([b""]).loss, np.empty(0, np.float32))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (b"bytes", "one bytes: give a list"),
        ("folder", "one str: give a list"),
        (Path("folder"), "one PosixPath: give a list"),
        ([np.zeros((8, 8, 3), np.uint8), None], "image 1 is a NoneType: give bytes, a path or"),
        ([7], "image 0 is a int"),
        (7, "a int: give"),
        (None, "a NoneType: give"),
        ({"image": [b""]}, "a dict: give"),
        (np.array(["a.png"]), "images of <U5"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(scorer: Scorer, wrong: Any, match: str) -> None:
    with pytest.raises(PoolError, match=match) as told:
        scorer.score(wrong)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"batch_size": -1}, "batch_size = -1"),
        ({"threads": -2}, "threads = -2"),
        ({"readers": 0}, "readers = 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    artifact: Path, wrong: dict[str, int], match: str
) -> None:
    with pytest.raises(SettingsError, match=match):
        Scorer(artifact, "cpu", **wrong)


def test_after_its_block_it_says_that_it_was_closed(artifact: Path, images: np.ndarray) -> None:
    with Scorer(artifact, "cpu", batch_size=64) as scorer:
        wanted = scorer.score(images).loss
        list(scorer.stream(open_pool_of(images)))
    for use in (
        lambda: scorer.score(images),  # one batch, in this thread
        lambda: scorer.score(np.repeat(images, 9, axis=0)),
        lambda: scorer.score([images[0]]),
        lambda: list(scorer.stream(open_pool_of(images))),
        lambda: scorer({"image": images}),
    ):
        with pytest.raises(EngineError, match="the scorer was closed"):
            use()
    scorer.close()
    assert np.array_equal(pickle.loads(pickle.dumps(scorer)).score(images).loss, wanted)


def test_a_lane_that_asks_while_it_is_closed_is_refused_and_holds_nothing_up(
    artifact: Path,
) -> None:
    scorer = Scorer(artifact, "cpu", threads=1)
    closing = threading.Thread(target=scorer.close, daemon=True)
    refused: list[EngineError] = []

    def take(idle: int) -> None:
        closing.start()
        while not scorer._closed:
            time.sleep(0.001)
        try:
            scorer.when_free(lambda idle: None)
        except EngineError as error:
            refused.append(error)

    scorer.when_free(take)
    for _ in range(1000):
        if refused:
            break
        time.sleep(0.01)
    closing.join(PATIENCE)
    assert len(refused) == 1 and not closing.is_alive()


def open_pool_of(images: np.ndarray) -> Any:
    from lloss.pools import ArrayPool

    return ArrayPool(images, "memory")


def test_threads_may_share_it(artifact: Path) -> None:
    sets = [np.random.default_rng(n).integers(0, 256, (1 + n * 3, 8, 8, 3), np.uint8)
            for n in range(8)]  # fmt: skip
    with Scorer(artifact, "cpu", batch_size=8, threads=2) as scorer:
        wanted = [scorer.score(one).loss for one in sets]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: scorer.score(sets[n % 8]).loss, range(80)))
    for number, loss in enumerate(found):
        assert np.array_equal(loss, wanted[number % 8])


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def ragged(pictures: list[Any]) -> np.ndarray:
    made = np.empty(len(pictures), object)
    made[:] = pictures
    return made


@pytest.mark.parametrize(
    "given",
    [
        lambda pictures: [png(picture) for picture in pictures],
        lambda pictures: ragged([png(picture) for picture in pictures]),
        lambda pictures: [*pictures[:4], *(png(picture) for picture in pictures[4:])],
        lambda pictures: list(pictures),
        lambda pictures: ragged(list(pictures)),
        lambda pictures: np.stack(pictures),
    ],
    ids=["bytes", "objects", "mixed", "list of arrays", "object arrays", "array"],
)
def test_a_dict_of_any_kind_of_images(
    scorer: Scorer, images: np.ndarray, given: Callable[[Any], Any]
) -> None:
    made = scorer({"images": given(list(images[:9])), "key": list("abcdefghi")})
    assert np.array_equal(made["loss"], scorer.score(list(images[:9])).loss)
    assert made["key"] == list("abcdefghi") and set(made) == {"key", *scorer.manifest.outputs}


def test_images_of_several_sizes_in_a_dict(scorer: Scorer) -> None:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (8 + n, 9, 3), np.uint8) for n in range(5)]
    wanted = scorer.score(pictures).loss
    assert np.array_equal(scorer({"image": pictures})["loss"], wanted)
    assert np.array_equal(scorer({"image": ragged(pictures)})["loss"], wanted)


@pytest.mark.parametrize("empty", [[], np.empty(0, object), np.empty((0, 8, 8, 3), np.uint8)])
def test_an_empty_batch_comes_out_empty(scorer: Scorer, empty: Any) -> None:
    made = scorer({"image": empty, "key": []})
    assert made["loss"].shape == (0,) and made["embedding"].shape == (0, 128)


def test_a_column_with_an_index_of_its_own(scorer: Scorer, images: np.ndarray) -> None:
    """As a filtered pandas series: its first row is not under 0."""

    class Series:
        def __init__(self, values: list[Any]) -> None:
            self.values = values

        def __len__(self) -> int:
            return len(self.values)

        def __iter__(self) -> Any:
            return iter(self.values)

        def __getitem__(self, key: int) -> Any:
            raise KeyError(key)

    contents = [png(image) for image in images[:5]]
    made = scorer({"image": Series(contents)})
    assert np.array_equal(made["loss"], scorer.score(contents).loss)


def test_a_bad_image_in_a_dict_is_named(scorer: Scorer, images: np.ndarray) -> None:
    with pytest.raises(
        PoolError, match="image 2 of the batch: .*known format.*leave such rows out"
    ):
        scorer({"image": [png(images[0]), png(images[1]), b"text", b""]})
    palette = Image.fromarray(images[0]).convert("P")
    with pytest.raises(PoolError, match="image 0 is a Image: give bytes"):
        scorer({"image": [palette, palette]})
    with pytest.raises(PoolError, match="a int: give an array"):
        scorer({"image": 7})
    with pytest.raises(PoolError, match="image 1 is a NoneType"):
        scorer({"image": [png(images[0]), None]})
    with pytest.raises(PoolError, match="image /gone.png of the batch: cannot be read"):
        scorer({"image": [png(images[0]), "/gone.png"]})
