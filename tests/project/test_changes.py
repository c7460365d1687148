"""Labels and images that became others since an earlier cycle."""

from __future__ import annotations

from pathlib import Path

import pytest

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.pools import open_pool
from lloss.project.changes import content_hashes, note_changes, note_training, note_unlabeled

CLASSES = ["cat", "dog", "cat", "dog"]


@pytest.fixture
def labeled(tmp_path: Path) -> LabeledSet:
    (tmp_path / "pool").mkdir()
    for number in range(4):
        (tmp_path / "pool" / f"{number}.png").write_bytes(b"image %d" % number * 100)
    return LabeledSet(list(open_pool(tmp_path / "pool")), CLASSES, "labels.csv")


def _notes(before: LabeledSet, now: LabeledSet, images: dict[str, str]) -> list[str]:
    problems = Problems()
    labels = {item.id: label for item, label in zip(before.items, before.labels)}
    note_changes(labels, images, now, "003", problems)
    return problems.notes


def test_settings_of_training_that_are_others_are_noted() -> None:
    before, problems = {"weights": "none", "lr": 0.01, "epochs": 60}, Problems()
    note_training(before, {"weights": "imagenet", "lr": 0.01, "epochs": 9, "size": 64}, problems)
    assert problems.notes == [
        "the cycle before was trained with weights = 'none' (now 'imagenet'): the figures of the "
        "two differ by that too"
    ]


def test_labels_that_are_gone_or_others_are_counted(labeled: LabeledSet) -> None:
    (gone,) = _notes(labeled, labeled.take([3]), content_hashes(labeled))
    assert gone.startswith(
        "labels.csv: 3 of the 4 images that were labeled in cycle 003 have no label any more "
        "('0.png', for example)"
    )
    # A sheet of which one column was sorted.
    shuffled = LabeledSet(labeled.items, sorted(CLASSES), "labels.csv")
    assert _notes(labeled, shuffled, content_hashes(labeled)) == [
        "labels.csv: 2 of the 4 images that were labeled in cycle 003 have another label now "
        "('1.png', for example: 'dog' then, 'cat' now)"
    ]


def test_picks_without_a_label_are_counted_where_others_have_one(labeled: LabeledSet) -> None:
    def notes(picks: list[str]) -> list[str]:
        problems = Problems()
        note_unlabeled(picks, labeled, "002", problems)
        return problems.notes

    assert notes(["0.png", "junk.png", "3.png"]) == [
        "labels.csv: 1 of the 3 images that cycle 002 selected have no label ('junk.png', for "
        "example): they may be selected again; remove from the pool what cannot be labeled"
    ]
    assert not notes(["old/0.png", "3.png"]) and not notes([])
    assert not notes(["junk.png"])  # nothing of them is labeled: that is not begun yet


def test_images_that_went_into_a_folder_keep_their_labels(
    labeled: LabeledSet, tmp_path: Path
) -> None:
    before = content_hashes(labeled)
    (tmp_path / "new" / "day1").mkdir(parents=True)
    (tmp_path / "pool").rename(tmp_path / "new" / "day1" / "pool")
    now = LabeledSet(list(open_pool(tmp_path / "new")), CLASSES, "labels.csv")
    assert [item.id for item in now.items][:1] == ["day1/pool/0.png"]
    assert _notes(labeled, now, before) == []


def test_files_that_were_numbered_again_are_reported(labeled: LabeledSet, tmp_path: Path) -> None:
    before, folder = content_hashes(labeled), tmp_path / "pool"
    (folder / "1.png").unlink()
    for number in (2, 3):
        (folder / f"{number}.png").rename(folder / f"{number - 1}.png")
    now = LabeledSet(list(open_pool(folder)), CLASSES[:3], "labels.csv")
    *_, others = _notes(labeled.take([0, 1, 2]), now, before)
    assert others.startswith(
        "labels.csv: 2 of the 3 images that were labeled in cycle 003 are other images now "
        "('1.png', for example)"
    )


def test_what_cannot_be_read_is_no_other_image(labeled: LabeledSet, tmp_path: Path) -> None:
    before = content_hashes(labeled)
    (tmp_path / "pool" / "1.png").unlink()
    (tmp_path / "pool" / "1.png").symlink_to("nowhere")
    assert "1.png" not in content_hashes(labeled)
    assert _notes(labeled, labeled, before) == [] == _notes(labeled.take([0, 2]), labeled, {})
