"""Persons as a pool."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss.errors import ImageError, PoolError
from lloss.images.crop_box import CropBox
from lloss.images.decode import decode_whole
from lloss.pools import Item, open_pool
from lloss.pools import person_crop_pool as person_crops
from lloss.pools.person_crop_pool import CropItem

COCO = {
    "images": [{"id": 4, "file_name": "b.png", "width": 40, "height": 30},
               {"id": 1, "file_name": "a.png"}],
    "categories": [{"id": 1, "name": "person"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 8, 4]},
        {"id": 2, "image_id": 4, "category_id": 1, "bbox": [-1, 3, 8, 16]},
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [9.5, 3, 8, 8], "iscrowd": 0},
    ],
}  # fmt: skip
IDS = ["a.png@2,3,8,4", "a.png@9.5,3,8,8", "b.png@-1,3,8,16"]  # those of an image together


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(number).integers(1, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


def write(folder: Path, document: Any) -> str:
    (folder / "people.json").write_text(json.dumps(document))
    return str(folder / "people.json")


def test_items_are_squares_of_their_images(folder: Path) -> None:
    items = list(open_pool(write(folder, COCO)))
    assert [item.id for item in items] == IDS
    item = items[2]
    assert isinstance(item, CropItem)
    # The longer side 16 * 1.25 = 20; its centre is 3, 11.
    assert item.region == CropBox(-7, 1, 20)
    whole = decode_whole((folder / "b.png").read_bytes())
    cut = item.read()
    assert isinstance(cut, np.ndarray)
    assert cut.shape == (20, 20, 3)
    assert not cut[:, :7].any()
    assert np.array_equal(cut[:, 7:], whole[1:21, :13])
    assert item.image.id == "b.png"
    assert item.image.read() == (folder / "b.png").read_bytes()
    grown = item.cut(1.5)
    assert grown.shape == (30, 30, 3)
    assert np.array_equal(grown[4:, 12:], whole[:26, :18])  # 3 - 15 = -12, 11 - 15 = -4


def test_entries_may_have_a_box_or_a_centre_and_no_joints(folder: Path) -> None:
    people = [
        {"image": "a.png", "box": [2, 3, 8, 4], "joints": [[float("nan"), 1]]},  # not read here
        {"image": "a.png", "box": [2, 3, 8.5, 4]},
        {"image": "b.png", "center": [10, 10], "scale": 0.1},
    ]
    pool = open_pool(write(folder, people))
    assert list(pool.ids()) == ["a.png@2,3,8,4", "a.png@2,3,8.5,4", "b.png@10,10,0.1"]
    (item,) = pool.find(["a.png@2,3,8,4"])
    assert isinstance(item, CropItem)
    assert item.region == CropBox(1, 0, 10)


def test_a_person_without_a_readable_square_is_one_bad_image(folder: Path) -> None:
    names = {"a.png": [2, 3, 8, 8], "b.png": [50, 3, 8, 4], "text.png": [2, 3, 8, 8],
             "gone.png": [2, 3, 8, 8]}  # fmt: skip
    people = [{"image": name, "box": box} for name, box in names.items()]
    people += [{"image": "a.png", "box": [5, 3, 0, 4]}]
    (folder / "text.png").write_bytes(b"no image")
    pool = open_pool(write(folder, people))  # reads no image
    assert pool.count() == 5
    good, empty, beside, text, gone = pool
    assert isinstance(good.read(), np.ndarray)
    for item, reason in (
        (empty, "the box 5, 3, 0, 4 has no area"),
        (beside, "does not touch the 40×30 pixels"),
        (text, "not an image of a known format"),
        (gone, "No such file"),
    ):
        with pytest.raises(ImageError, match=reason):
            item.read()


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([{"image": "a.png"}], r"people.json: \[0\]: lacks the key 'center'.* from the pool"),
        ({"a": 1}, "people.json: holds no persons"),
        ([], "the pool holds no image"),
    ],
)
def test_a_broken_entry_is_named(folder: Path, document: Any, reason: str) -> None:
    with pytest.raises(PoolError, match=reason):
        open_pool(write(folder, document))


def test_options(folder: Path) -> None:
    uri = write(folder, COCO)
    (folder / "photos").mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).rename(folder / "photos" / name)
    assert isinstance(next(iter(open_pool(f"{uri}?image=photos"))).read(), np.ndarray)
    for wrong, reason in (
        (f"{uri}?id=name", "takes no option 'id' [(]but image[)]"),
        (f"{folder}/{{people,people}}.json", "of this kind a pool is one file"),
    ):
        with pytest.raises(PoolError, match=reason):
            open_pool(wrong)


def test_an_image_of_several_persons_is_decoded_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    plain: Any = person_crops._decode

    def counting(image: Item) -> Any:
        decoded.append(image.id)
        return plain(image)

    monkeypatch.setattr(person_crops, "_decode", counting)
    people = [{"image": f"{'ab'[n % 2]}.png", "box": [n, 0, 8, 8]} for n in range(20)]
    items = list(open_pool(write(folder, people)))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda item: item.read(), items))
    assert sorted(decoded) == ["a.png", "b.png"]


def test_a_large_image_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (folder / "a.png").read_bytes()
    image = person_crops._SharedImage(Item("a", lambda: data))
    assert image.decoded() is image.decoded()
    monkeypatch.setattr(person_crops, "_KEPT_BYTES", 10)
    image = person_crops._SharedImage(Item("a", lambda: data))
    assert image.decoded() is not image.decoded()


@pytest.mark.parametrize("size", [(40, 30), (80, 60), (30, 40)])
def test_persons_drawn_on_another_size_are_bad_images(folder: Path, size: tuple[int, int]) -> None:
    """Their squares would show something else: the image was resized since, or is turned."""
    image = {"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}
    person = {"image_id": 1, "category_id": 1, "bbox": [2, 2, 8, 8]}
    (item,) = open_pool(write(folder, {**COCO, "images": [image], "annotations": [person]}))
    if size == (40, 30):
        assert isinstance(item.read(), np.ndarray)
    else:
        with pytest.raises(ImageError, match="40×30 pixels, the person was drawn on"):
            item.read()
