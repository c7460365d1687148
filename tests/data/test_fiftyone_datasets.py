"""Datasets of FiftyOne as pools and labels, and the JSON of their exports."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lloss.annotations import Problems
from lloss.data.class_labels import read_class_labels
from lloss.data.label_formats import read_any_labels
from lloss.data.object_labels import read_objects
from lloss.errors import LabelError, MissingExtraError, PoolError
from lloss.pools import open_pool
from lloss.pools.uri import PoolUri
from lloss.tasks import get_task

from ..fiftyone_fake import Classification, Dataset, Detection, Detections, install

Picture = Callable[..., Path]


def boxes(*found: tuple[str, list[float]], **fields: Any) -> Detections:
    of = [Detection(label=name, bounding_box=box, **fields) for name, box in found]
    return Detections(detections=of)


def rows(folder: Path, field: str, labels: list[Any], picture: Picture) -> list[dict[str, Any]]:
    paths = [picture(folder / f"{number}.png") for number in range(len(labels))]
    return [
        {"id": f"id{number}", "filepath": str(path), field: label}
        for number, (path, label) in enumerate(zip(paths, labels))
    ]


def test_a_dataset_is_a_pool_of_paths(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset(rows(tmp_path, "tags", [None, None], picture))
    install(monkeypatch, set=dataset, clips=Dataset([{"id": "1"}], "video"))
    pool = open_pool("fiftyone:set")
    assert list(pool.ids()) == [str(tmp_path / "0.png"), str(tmp_path / "1.png")]
    assert pool.count() == 2
    (item,) = pool.find([str(tmp_path / "1.png")])
    assert item.read() == (tmp_path / "1.png").read_bytes()
    with pytest.raises(PoolError, match="'video', not images"):
        open_pool("fiftyone:clips")
    with pytest.raises(PoolError, match="no dataset 'other'; it has clips, set"):
        open_pool("fiftyone:other")
    with pytest.raises(PoolError, match="give fiftyone:NAME, or fiftyone:NAME.field=FIELD"):
        open_pool("fiftyone:set?split=train")
    with pytest.raises(PoolError, match="is a folder; give its folder of images.*samples.json"):
        open_pool(f"fiftyone:{tmp_path}")


def test_a_dataset_is_the_same_from_any_folder() -> None:
    uri = PoolUri.parse("fiftyone:set?field=truth", Path("/somewhere"))
    assert uri.path == "fiftyone:set?field=truth" == uri.relative_to(Path("/elsewhere"))


def test_labels_are_those_of_ground_truth(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [Classification(label=" cat "), Classification(label="dog"), None]
    samples = rows(tmp_path, "ground_truth", labels, picture)
    samples[0]["other"] = Classification(label="x", confidence=0.5)
    install(monkeypatch, set=Dataset(samples))
    problems = Problems()
    labeled = get_task("classification").open("fiftyone:set", None, tmp_path, problems)
    assert list(labeled.labels) == ["cat", "dog"]
    assert problems.notes == [
        "fiftyone:set: the labels are those of the field 'ground_truth'",
        "fiftyone:set: 1 of 3 samples has no label: not labeled yet",
    ]
    assert list(read_any_labels(Path("fiftyone:set"), Problems())) == [
        str(tmp_path / "0.png"),
        str(tmp_path / "1.png"),
    ]
    chosen = read_class_labels(Path("fiftyone:set?field=other"), Problems())
    assert chosen == {str(tmp_path / "0.png"): "x"}
    with pytest.raises(LabelError, match="'none' does not hold Classification; its labels are gr"):
        read_class_labels(Path("fiftyone:set?field=none"), Problems())
    with pytest.raises(LabelError, match="which field has the labels. it needs Detections"):
        read_objects(Path("fiftyone:set"), Problems())


def test_boxes_are_shares_of_the_image(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [boxes(("cat", [0.25, 0.5, 0.5, 0.1]), iscrowd=1), boxes(), None]
    install(monkeypatch, set=Dataset(rows(tmp_path, "boxes", labels, picture)))
    labeled = get_task("detection").open("fiftyone:set", None, tmp_path, Problems())
    assert [label.names for label in labeled.labels] == [("cat",), ()]
    assert labeled.labels[0].boxes.tolist() == [[10, 15, 30, 18]]  # of 40 × 30 pixels
    assert labeled.labels[0].crowd.tolist() == [True]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (boxes(("cat", [0, 0, 0.5, 0.5]), confidence=0.75), r"a confidence \(0.75\), as predict"),
        (boxes(("cat", [0, 0, 40, 20])), r"detections\[0\]: 40 is not a share"),
        (boxes(("cat", [0, 0, 0, 0.5])), "has no area"),
        (boxes((" ", [0, 0, 1, 1])), r"detections\[0\].label: .*not a name"),
    ],
)
def test_what_is_no_label_is_refused(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch, label: Any, message: str
) -> None:
    install(monkeypatch, set=Dataset(rows(tmp_path, "boxes", [label], picture)))
    with pytest.raises(LabelError, match=message):
        read_objects(Path("fiftyone:set"), Problems())


def test_predictions_are_labels_if_their_field_is_named(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = boxes(("cat", [0, 0, 0.5, 0.5]), confidence=0.75)
    install(monkeypatch, set=Dataset(rows(tmp_path, "boxes", [label], picture)))
    assert len(read_objects(Path("fiftyone:set?field=boxes"), Problems())) == 1


def test_of_two_fields_one_must_be_named(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = rows(tmp_path, "one", [boxes()], picture)
    samples[0] |= {"two": boxes(), "lloss_prediction": boxes()}
    install(monkeypatch, set=Dataset(samples))
    with pytest.raises(LabelError, match=r"choose one by fiftyone:NAME\?field=FIELD \(its labels"):
        read_objects(Path("fiftyone:set"), Problems())


def test_an_export_is_read_without_the_package(tmp_path: Path) -> None:
    label = boxes(("cat", [0.25, 0.5, 0.5, 0.1])).to_dict()
    sample = {"filepath": "data/a.jpg", "tags": [], "ground_truth": label}
    path = tmp_path / "samples.json"
    path.write_text(json.dumps({"samples": [sample, {"filepath": "data/b.jpg"}]}))
    labels = read_objects(path, Problems())
    assert labels["data/a.jpg"].names == ("cat",) and labels["data/a.jpg"].shares
    sample["ground_truth"] = Classification(label="dog").to_dict()
    path.write_text(json.dumps({"samples": [sample]}))
    assert read_class_labels(path, Problems()) == {"data/a.jpg": "dog"}
    unclear = Classification(label=None).to_dict()
    none = {**sample, "filepath": "data/c.jpg", "ground_truth": unclear}
    path.write_text(json.dumps({"samples": [sample, none]}))
    problems = Problems()
    assert read_class_labels(path, problems) == {"data/a.jpg": "dog"}
    assert any("1 sample has a label without a class" in note for note in problems.notes)
    for samples, message in (
        ([sample, {"ground_truth": None}], r"samples\[1\]: lacks its filepath"),
        ([sample, "data/a.jpg"], r"samples\[1\]: lacks its filepath"),
        ([sample, sample], "2 samples are of data/a.jpg; keep one"),
    ):
        path.write_text(json.dumps({"samples": samples}))
        with pytest.raises(LabelError, match=message):
            read_class_labels(path, Problems())


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lloss\[fiftyone\]'"):
        open_pool("fiftyone:set")
    broken = ModuleType("fiftyone")

    def fail() -> list[str]:
        raise ConnectionError("no server at\n127.0.0.1")

    broken.list_datasets = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fiftyone", broken)
    with pytest.raises(PoolError, match="database cannot be used: no server at 127.0.0.1"):
        open_pool("fiftyone:set")
