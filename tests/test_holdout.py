from __future__ import annotations

from pathlib import Path

from PIL import Image

from lloss.annotations import Problems
from lloss.creation import create_project


def test_the_hold_out_names_the_classes_that_it_does_not_show(tmp_path: Path) -> None:
    """20 of one class, 1 each of three others: their one image is for training."""
    classes = ["common"] * 20 + ["rare", "odd", "lone"]
    (tmp_path / "pool").mkdir()
    rows = []
    for number, name in enumerate(classes):
        Image.new("RGB", (8, 8)).save(tmp_path / "pool" / f"{number:02d}.png")
        rows.append(f"{number:02d}.png,{name}")
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    values = {"pool": str(tmp_path / "pool"), "labels": str(tmp_path / "labels.csv"), "k": 2}
    project = create_project(tmp_path / "project", {**values, "holdout": 0.2}, {"batch_size": 4})
    problems = Problems()
    training, held = project.split(project.open_labels(), problems)
    assert held is not None and set(held.labels) == {"common"}
    assert len(training) + len(held) == 23
    assert problems.notes == [
        f"the {len(held)} held-out images show 1 of the 4 classes; not measured: lone, odd, rare"
    ]


def test_a_hold_out_of_all_classes_has_nothing_to_say(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    names = [f"{number:02d}.png" for number in range(20)]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / "pool" / name)
    labels = tmp_path / "labels.csv"
    rows = [f"{name},{number % 2}" for number, name in enumerate(names)]
    labels.write_text("\n".join(["id,label", *rows]) + "\n")
    values = {"pool": str(tmp_path / "pool"), "labels": str(labels), "k": 2, "holdout": 0.2}
    project = create_project(tmp_path / "project", values, {"batch_size": 4})
    problems = Problems()
    assert project.split(project.open_labels(), problems)[1] is not None
    assert problems.notes == []
