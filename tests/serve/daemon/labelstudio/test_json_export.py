from __future__ import annotations

from typing import Any

import pytest
from lloss.serve.daemon.labelstudio.json_export import read_labels

from lloss.errors import LabelError

from .messages import exported, recorded


def labels(*arguments: Any) -> dict[str, str]:
    return dict(read_labels(*arguments).labels)


def test_a_recorded_export_gives_the_labels() -> None:
    expected = {"0.png": "dog", "1.png": "dog", "2.png": "", "3.png": "cat"}
    assert labels(recorded("export.json")) == expected
    assert labels(recorded("export.json"), "wild") == expected


def test_of_two_controls_the_named_one_gives_the_label() -> None:
    task = exported("a", ("cat", None, False))
    results = task["annotations"][0]["result"]
    results[0]["from_name"] = "kind"
    results.append({**results[0], "from_name": "light", "value": {"choices": ["dark"]}})
    assert labels([task]) == {"a": ""}
    assert labels([task], None, "kind") == {"a": "cat"}
    assert labels([task], None, "light") == {"a": "dark"}


def test_images_with_annotations_of_different_classes_are_counted() -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    tasks = [
        exported("a", ("cat", early, False), ("dog", late, False)),
        exported("b", ("cat", early, False), (" cat", late, False), ("dog", late, True)),
        exported("c", ("cat", early, False), ("", late, False)),
        exported("d", ("cat", early, False)),
        exported("d", ("dog", late, False)),
    ]
    assert read_labels(tasks, "p").disputed == 2


def test_only_tasks_of_the_pool_are_read() -> None:
    with pytest.raises(LabelError, match="none of the . tasks is one of the pool 'zoo'"):
        labels(recorded("export.json"), "zoo")
    mixed = recorded("export.json")
    mixed[0]["data"]["lloss_pool"] = "zoo"
    assert labels(mixed, "zoo") == {"0.png": "dog"}
    assert set(labels(mixed, "wild")) == {"1.png", "2.png", "3.png"}
    with pytest.raises(LabelError, match="none of the 0 tasks is one that lloss made"):
        labels([])
    with pytest.raises(LabelError, match="task 2: the tasks are of the pools 'wild' and 'zoo'"):
        labels(mixed)


def test_the_newest_annotation_of_all_tasks_of_an_image_counts() -> None:
    old, new = "2026-01-01T09:00:00Z", "2026-01-01T09:00:00.25Z"
    document = [
        exported("a", ("late", new, False), ("early", old, False)),
        exported("b", ("early", old, False)),
        exported("b", ("late", new, False), ("skip", "2027-01-01T00:00:00Z", True)),
        exported("c", ("skip", new, True)),
        exported("d"),
        exported("e", ("first", None, False), ("second", None, False)),
    ]
    expected = {"a": "late", "b": "late", "e": "second"}
    assert labels(document) == labels(document[::-1]) == expected
    assert labels([exported("d")]) == {}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "a list of tasks"), (None, "a list of tasks"),
        ([3], "task 1: 3: expected object"),
        ([exported("a"), {"data": {"lloss_pool": "p", "lloss_id": 7}}],
         r"task 2.data.lloss_id: 7: expected str"),
        ([{"data": {"lloss_id": "a"}}], "task 1.data: lacks the key 'lloss_pool'"),
        ([{"data": {"lloss_pool": "p", "lloss_id": "\ud800"}}], "task 1.data: .*half of a"),
        ([{"data": {"lloss_pool": "p", "lloss_id": "a"}}], "task 1: lacks the key 'annotations'"),
        ([exported("a") | {"annotations": [{"result": "x"}]}],
         r"task 1: annotations\[0\].result: 'x': expected array"),
        ([{"annotation_id": 1, "lloss_pool": "p", "lloss_id": "a", "kind": "cat"}],
         "task 1: this export is JSON-MIN; export JSON instead"),
    ],
)  # fmt: skip
def test_a_wrong_export_is_an_error_that_names_task_and_key(document: Any, message: str) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        labels(document)
    assert "\n" not in str(caught.value)
