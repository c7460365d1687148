"""Labels that show nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lloss.annotations import ObjectLabel, Problems
from lloss.data.empty_labels import EMPTY, drop_empty, drop_empty_labels
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError
from lloss.pools import Item
from lloss.tasks.segmentation.segmentation import MaskLabel


def _objects(*names: str) -> ObjectLabel:
    flags = np.zeros(len(names), np.bool_)
    return ObjectLabel(names, np.zeros((len(names), 4), np.float32), flags, flags)


def _mask(*names: str) -> MaskLabel:
    return MaskLabel("m.png", "0" * 64, {str(n): name for n, name in enumerate(names)})


def _set(labels: dict[str, Any]) -> LabeledSet:
    items = [Item(id, lambda: b"") for id in labels]
    return LabeledSet(items, list(labels.values()), "export.json")


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ({"a": _objects(), "b": _objects("cat", "cat"), "c": _objects()}, "object"),
        ({"a": _mask(), "b": _mask("road"), "c": _mask()}, "pixel of a class"),
    ],
)
def test_labels_that_show_nothing_are_counted(labels: dict[str, Any], what: str) -> None:
    for empty in ("", *EMPTY):
        left = "b" if empty == "unlabeled" else "abc"
        problems = Problems()
        found = drop_empty(_set(labels), empty, problems)
        assert "".join(item.id for item in found.items) == left
        assert drop_empty_labels(labels, empty, problems) == {id: labels[id] for id in left}
        (note,) = problems.notes
        assert note.startswith(f"2 of 3 labeled images show no {what}: taken as ")
        assert ("pass --empty unlabeled" in note) == (empty != "unlabeled")


@pytest.mark.parametrize("labels", [{"a": "", "b": "cat"}, {"a": _objects("cat")}, {}])
def test_labels_that_all_show_something_are_passed_on(labels: dict[str, Any]) -> None:
    problems = Problems()
    assert len(drop_empty(_set(labels), "unlabeled", problems)) == len(labels)
    assert not problems.lines()


def test_a_set_of_which_nothing_is_labeled_is_refused() -> None:
    nothing = _set({"a": _objects(), "b": _objects()})
    with pytest.raises(
        LabelError, match=r"export\.json: all 2 test images show nothing.*label some"
    ):
        drop_empty(nothing, "unlabeled", Problems(), "test images")
    assert len(drop_empty(nothing, "background", Problems())) == 2
