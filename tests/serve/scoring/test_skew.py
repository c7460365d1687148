"""Training and scoring see the same pixels of the same files, bit for bit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lloss import Scorer
from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.pools import Item, open_pool
from lloss.tasks.train_settings import TrainSettings
from lloss.training.training_data import load_examples


def _files(folder: Path) -> Path:
    """Files of many formats, modes, sizes and orientations."""
    random = np.random.default_rng(3)
    folder.mkdir()
    for number, (kind, mode) in enumerate(
        [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA"),
         ("PNG", "P"), ("PNG", "LA"), ("PNG", "1"), ("PNG", "I;16"), ("TIFF", "RGB"),
         ("WEBP", "RGB"), ("GIF", "P"), ("BMP", "RGB")] * 3
    ):  # fmt: skip
        shape = [(8, 8, 3), (50, 31, 3), (5, 90, 3)][number % 3]
        if mode == "I;16":
            picture = Image.fromarray(random.integers(0, 65536, shape[:2], dtype=np.uint16))
        else:
            picture = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8
        path = folder / f"{number:02}.{kind.lower()}"
        picture.save(path, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "TIFF") else {}))
    return folder


def _fed(
    scorer: Scorer, images: Path | list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> NDArray[np.uint8]:
    """The images that the engine gets from the scorer, in order."""
    executor, batches = scorer.engine.executor, []
    run = executor.run

    def watched(buffer: Any, count: int) -> dict[str, NDArray[np.float32]]:
        batches.append(buffer.pixels[:count].copy())  # the buffer is used again
        return run(buffer, count)

    monkeypatch.setattr(executor, "run", watched)
    if isinstance(images, list):
        scorer.score(images)
    else:
        ids = [id for scores in scorer.stream(images) for id in scores.ids]
        assert ids == [item.id for item in open_pool(images)]
    return np.concatenate(batches)


def _trained_on(items: list[Item], scorer: Scorer) -> NDArray[np.uint8]:
    """What training decodes of these images, uint8 [N, H, W, 3]."""
    image = scorer.manifest.image
    assert image.height == image.width
    settings = TrainSettings(size=image.height, fit=image.fit)
    labeled = LabeledSet(items, ["cat"] * len(items), "labels.csv")
    data, _ = load_examples(labeled, ("cat",), settings, Problems(), for_training=True)
    return data.images


def test_the_scorer_feeds_the_engine_what_training_sees(
    onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = list(open_pool(_files(tmp_path / "pool")))
    scorer = Scorer(onnx_file, provider="cpu", batch_size=8, threads=1)  # batches keep order
    trained_on = _trained_on(items, scorer)
    assert len(items) == 39 and trained_on.std() > 30  # pictures, not blanks
    assert np.array_equal(_fed(scorer, tmp_path / "pool", monkeypatch), trained_on)


def test_an_array_at_hand_is_resized_as_its_file_was_in_training(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    scorer = Scorer(onnx_file, provider="cpu", threads=1)
    from_file = _trained_on([Item("x", buffer.getvalue)], scorer)
    from_array = _fed(scorer, [picture], monkeypatch)
    assert np.array_equal(from_array, from_file)
