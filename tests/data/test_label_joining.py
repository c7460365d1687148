"""Labels and the images of a pool: what is left out, and ids that come twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lloss.annotations.problems import Problems
from lloss.data.label_joining import labeled_pool, match_labels, refuse_own
from lloss.errors import LabelError, PoolError
from lloss.pools import open_pool


def test_a_folder_of_labels_is_not_of_the_pool(tmp_path: Path, picture: Any) -> None:
    for name in ("images/a.jpg", "masks/a.png", "masks/deep/b.png"):
        picture(tmp_path / "data" / name)
    (tmp_path / "data" / "masks" / "a.png.aux.xml").write_text("<PAMDataset/>")  # as GDAL does
    (tmp_path / "data" / "link").symlink_to(tmp_path / "data" / "masks")
    problems = Problems()
    pool = labeled_pool(tmp_path / "data", [tmp_path / "data" / "masks"], problems)
    assert list(pool.ids()) == ["images/a.jpg"]
    (note,) = [note for note in problems.notes if "passed over" not in note]
    assert "left out the folder of labels" in note and note.endswith("data/masks")


def test_what_lloss_writes_into_a_pool_is_not_of_it(tmp_path: Path, picture: Any) -> None:
    """Scores that are written below the pool are tables, of which a folder of images has none."""
    data, scores = tmp_path / "data", tmp_path / "data" / "z" / "scores"
    picture(data / "a.jpg")
    picture(data / "masks" / "a.png")
    problems = Problems()
    pool = labeled_pool(data, [], problems, [scores])
    scores.mkdir(parents=True)  # only now, as a run does
    picture(scores / "report.png")
    pq.write_table(pa.table({"id": ["a.jpg"]}), scores / "part-00000.parquet")
    assert list(pool.ids()) == ["a.jpg", "masks/a.png"]
    assert [item.id for item in pool.find(["a.jpg"])] == ["a.jpg"]
    with pytest.raises(PoolError):
        pool.find(["z/scores/report.png"])
    again = labeled_pool(data, [data / "masks"], problems, [scores])
    assert list(again.ids()) == ["a.jpg"]
    assert any("left out the folder of labels" in note for note in problems.notes)
    with pytest.raises(PoolError, match="holds images .* or tables"):
        list(labeled_pool(data, []).ids())


@pytest.mark.parametrize(
    ("image", "xml"), [("b1/0.jpg", "b1/0.XML"), ("b1/JPEGImages/0.jpg", "b1/Annotations/0.xml")]
)
def test_images_beside_their_xml_are_of_the_pool(
    tmp_path: Path, picture: Any, voc_xml: Any, image: str, xml: str
) -> None:
    for name in (image, "b2/0.jpg"):
        picture(tmp_path / name)
    voc_xml(tmp_path / xml)
    problems = Problems()
    assert sorted(labeled_pool(tmp_path, [tmp_path / "b1"], problems).ids()) == [image, "b2/0.jpg"]
    assert not any("left out" in note for note in problems.notes)


@pytest.mark.parametrize("labels", ["", "..", "../elsewhere", "labels.csv", "gone"])
def test_labels_elsewhere_leave_nothing_out(tmp_path: Path, picture: Any, labels: str) -> None:
    data = tmp_path / "data"
    for name in ("data/a.jpg", "elsewhere/a.png"):
        picture(tmp_path / name)
    (data / "labels.csv").write_text("id,label\n")
    problems = Problems()
    assert list(labeled_pool(data, [data / labels], problems).ids()) == ["a.jpg"]
    assert not any("left out" in note for note in problems.notes)


def test_an_image_that_is_its_own_mask_is_refused(tmp_path: Path, picture: Any) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    (tmp_path / "list.txt").write_text("a.png\nb.png\n")
    for pool in (open_pool(tmp_path), open_pool(tmp_path / "list.txt")):
        a, b = pool.find(["a.png", "b.png"])
        refuse_own([(a, tmp_path / "b.png"), (b, tmp_path / "gone.png")], "labels")
        with pytest.raises(LabelError, match=r"labels: the image 'a\.png' .* is its own mask; put"):
            refuse_own([(b, tmp_path / "a.png"), (a, tmp_path / "a.png")], "labels")


def test_a_label_is_in_conflict_with_a_broken_one(tmp_path: Path, picture: Any) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    problems = Problems(skip=True)
    problems.mark_unusable("labels", "old/b.png")
    problems.mark_unusable("labels", "c")
    problems.mark_unusable("labels", "gone")
    problems.mark_unusable("other labels", "a")
    labels = dict.fromkeys(("a.png", "b.png"), "cat")
    assert match_labels(open_pool(tmp_path), labels, "labels", problems) == {"a.png": "a.png"}
    assert problems.broken == [
        "labels: 'b.png': is a label of the image 'b.png', as 'old/b.png' is"
    ]


@pytest.mark.parametrize("names", [("q/b.png",), ("b",), ("b.jpg", "x/b.png", "b")])
def test_an_image_with_several_labels_gets_none(
    tmp_path: Path, picture: Any, names: tuple[str, ...]
) -> None:
    """Though one of the names is the id itself, and whichever stands first."""
    for name in "bc":
        picture(tmp_path / f"{name}.png")
    for keys in (["b.png", *names], [*names, "b.png"]):
        labels, problems = dict.fromkeys(["c.png", *keys], "cat"), Problems(skip=True)
        assert match_labels(open_pool(tmp_path), labels, "labels", problems) == {"c.png": "c.png"}
        what = f"labels: {keys[0]!r}: is a label of the image 'b.png', as {keys[1]!r} is"
        assert problems.broken == [what + (" and 2 more" if len(keys) > 2 else "")]
