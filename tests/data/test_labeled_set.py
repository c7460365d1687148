from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lloss.annotations import ObjectLabel, Problems
from lloss.data.labeled_set import EMPTY, LabeledSet, class_names, drop_empty, drop_empty_labels
from lloss.errors import LabelError
from lloss.pools import Item
from lloss.tasks.segmentation.segmentation import MaskLabel


def _set(*rows: tuple[str, str]) -> LabeledSet:
    items = [Item(id, lambda: b"") for id, _ in rows]
    return LabeledSet(items, [label for _, label in rows], "rows")


def test_numbers_are_classes_in_the_order_of_numbers() -> None:
    assert class_names(["10", "9", "cat", "Ant", "0", "9"]) == ("0", "9", "10", "Ant", "cat")
    assert class_names(["9" * 5000, "1"]) == ("1", "9" * 5000)


def test_the_digest_depends_on_ids_and_labels_but_not_on_their_order() -> None:
    one = _set(("a", "cat"), ("b", "dog"))
    assert one.sha256 == _set(("b", "dog"), ("a", "cat")).sha256
    others = [
        _set(("a", "dog"), ("b", "cat")),
        _set(("a", "cat"), ("c", "dog")),
        _set(("a", "cat")),
        _set(("a", "cat"), ("b", "dog"), ("b", "dog")),
        _set(("aca", "t"), ("b", "dog")),
        _set(("a", "cat\nb\0dog")),
        _set(("a", "cat "), ("b", "dog")),
        _set(("\udcff", "cat")),
        _set(("\udcfe", "cat")),
    ]
    assert len({one.sha256, *(other.sha256 for other in others)}) == 1 + len(others)


def test_rows_keep_items_and_labels_together() -> None:
    rows = _set(("b", "dog"), ("a\0", "cat"), ("a", "cow"))
    for part, ids, labels in (
        (rows.take([2, 0]), ["a", "b"], ["cow", "dog"]),
        (rows.ordered(), ["a", "a\0", "b"], ["cow", "cat", "dog"]),
    ):
        assert [item.id for item in part.items] == ids and list(part.labels) == labels


def _objects(*names: str) -> ObjectLabel:
    flags = np.zeros(len(names), np.bool_)
    return ObjectLabel(names, np.zeros((len(names), 4), np.float32), flags, flags)


def _mask(*names: str) -> MaskLabel:
    return MaskLabel("m.png", "0" * 64, {str(n): name for n, name in enumerate(names)})


def _marked(labels: dict[str, Any]) -> LabeledSet:
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
        found = drop_empty(_marked(labels), empty, problems)
        assert "".join(item.id for item in found.items) == left
        assert drop_empty_labels(labels, empty, problems) == {id: labels[id] for id in left}
        (note,) = problems.notes
        assert note.startswith(f"2 of 3 labeled images show no {what}: taken as ")
        assert ("pass --empty unlabeled" in note) == (empty != "unlabeled")


@pytest.mark.parametrize("labels", [{"a": "", "b": "cat"}, {"a": _objects("cat")}, {}])
def test_labels_that_all_show_something_are_passed_on(labels: dict[str, Any]) -> None:
    problems = Problems()
    assert len(drop_empty(_marked(labels), "unlabeled", problems)) == len(labels)
    assert not problems.lines()


def test_a_set_of_which_nothing_is_labeled_is_refused() -> None:
    nothing = _marked({"a": _objects(), "b": _objects()})
    with pytest.raises(
        LabelError, match=r"export\.json: all 2 test images show nothing.*label some"
    ):
        drop_empty(nothing, "unlabeled", Problems(), "test images")
    assert len(drop_empty(nothing, "background", Problems())) == 2
