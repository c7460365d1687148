from __future__ import annotations

from lloss.data.labeled_set import LabeledSet, class_names
from lloss.pools import Item


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
