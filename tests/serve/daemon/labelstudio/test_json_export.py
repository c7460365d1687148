"""Labels out of exports, and out of single annotations."""

from __future__ import annotations

from typing import Any

import pytest
from lloss.serve.daemon.labelstudio import disputed_in, labels_of
from starlette.testclient import TestClient

from lloss.errors import LabelError

from .daemons import Daemon
from .messages import event, exported, recorded, tell


def test_recorded_exports_give_the_same_labels() -> None:
    expected = {"0.png": "dog", "1.png": "dog", "2.png": "", "3.png": "cat"}
    assert labels_of(recorded("export.json")) == expected
    assert labels_of(recorded("export.json"), "wild") == expected
    assert labels_of(recorded("export_min.json"), "wild", "kind") == expected


def minimal(id: str, **fields: Any) -> dict[str, Any]:
    task = {"annotation_id": 1, "id": 1, "image": "x", "lloss_pool": "p", "lloss_id": id}
    return {**task, **fields}


def test_in_json_min_the_choice_stands_under_its_controls_name() -> None:
    """A column that tasks came with is a text as well."""
    document = [
        minimal("a", caption="dog", kind="cat"),
        minimal("b", caption="dog"),
        minimal("c", caption="dog", kind={"choices": ["cat", "dog"]}),
    ]
    assert labels_of(document, "p", "kind") == {"a": "cat", "b": "", "c": ""}
    for some in (document, document[1:2], [minimal("a", kind="cat")]):
        with pytest.raises(LabelError, match="JSON_MIN does not say which of .* is a choice"):
            labels_of(some, "p")
    with pytest.raises(LabelError, match=r"no task was annotated by the control 'kinds' \(there"):
        labels_of(document, "p", "kinds")
    assert labels_of([minimal("a", boxes=[{"x": 1}])], "p") == {"a": ""}, "no text, no doubt"


def test_of_two_controls_the_one_that_is_named_labels() -> None:
    task = exported("a", ("cat", None, False))
    results = task["annotations"][0]["result"]
    results[0]["from_name"] = "kind"
    results.append({**results[0], "from_name": "light", "value": {"choices": ["dark"]}})
    assert labels_of([task]) == {"a": ""}
    assert labels_of([task], None, "kind") == {"a": "cat"}
    assert labels_of([task], None, "light") == {"a": "dark"}


def test_images_whose_annotations_differ_are_counted() -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    tasks = [
        exported("a", ("cat", early, False), ("dog", late, False)),
        exported("b", ("cat", early, False), (" cat", late, False), ("dog", late, True)),
        exported("c", ("cat", early, False), ("", late, False)),
        exported("d", ("cat", early, False)),
        exported("d", ("dog", late, False)),
    ]
    assert disputed_in(tasks, "p") == 2
    minimal = {"lloss_pool": "p", "lloss_id": "a", "annotation_id": 1, "size": "big"}
    others = [minimal | {"kind": "cat"}, minimal | {"kind": "dog", "annotation_id": 2}]
    assert disputed_in(others, "p", "kind") == 1 and disputed_in(others, "p", "size") == 0


def test_tasks_of_other_pools_are_match_exclusion() -> None:
    for name in ("export.json", "export_min.json"):
        with pytest.raises(LabelError, match="none of the . tasks is one of the pool 'zoo'"):
            labels_of(recorded(name), "zoo")
    mixed = recorded("export.json")
    mixed[0]["data"]["lloss_pool"] = "zoo"
    assert labels_of(mixed, "zoo") == {"0.png": "dog"}
    assert set(labels_of(mixed, "wild")) == {"1.png", "2.png", "3.png"}
    with pytest.raises(LabelError, match="none of the 0 tasks is one that lloss made"):
        labels_of([])


def test_the_newest_annotation_of_an_image_counts_over_all_its_tasks() -> None:
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
    assert labels_of(document) == labels_of(document[::-1]) == expected
    assert labels_of([exported("d")]) == {}  # a task of ours, but nothing done yet


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "a list of tasks"), ("x", "a list of tasks"), (None, "a list of tasks"),
        ([3], "task 1: is no object: 3"),
        ([{"id": 1}], "task 1: data must be an object, not None"),
        ([exported("a"), {"data": {"lloss_pool": "p", "lloss_id": 7}}],
         "task 2: lloss_id must be a text, not 7"),
        ([{"data": {"lloss_id": "a"}}], "task 1: lloss_pool must be a text"),
        ([{"data": {"lloss_pool": "p", "lloss_id": ""}}], "task 1: lloss_id must be a text"),
        ([{"data": {"lloss_pool": "p", "lloss_id": "a"}}], "task 1: annotations must be a list"),
        ([exported("a") | {"annotations": {}}], "task 1: annotations must be a list"),
        ([exported("a") | {"annotations": [3]}], r"task 1: annotations\[0\] must be an object"),
        ([exported("a") | {"annotations": [{"result": "x"}]}],
         r"task 1: annotations\[0\].result must be a list, not 'x'"),
        ([{"annotation_id": 1, "lloss_pool": "p", "lloss_id": None}], "task 1: lloss_id"),
    ],
)  # fmt: skip
def test_wrong_exports_are_named_by_task_and_key(document: Any, message: str) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        labels_of(document, "p" if isinstance(document, list) and len(document) > 1 else None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("result", "label"),
    [
        ([], ""),
        ([{"type": "choices", "value": {"choices": ["cat"]}}], "cat"),
        ([{"type": "choices", "value": {"choices": ["cat", "dog"]}}], ""),
        ([{"type": "choices", "value": {"choices": ["cat"]}}] * 2, ""),
        ([{"type": "choices", "value": {"choices": ["cat"], "x": 1, "width": 5}}], ""),
        ([{"type": "rectanglelabels", "value": {"rectanglelabels": ["cat"]}},
          {"type": "choices", "value": {"choices": ["dog"]}}], "dog"),
        ([{"type": "choices", "value": {"choices": [3]}}], ""),
        ([{"type": "choices", "value": []}, 3], ""),
    ],
)  # fmt: skip
def test_a_label_is_the_only_choice_for_the_whole_image(
    client: TestClient, daemon: Daemon, result: Any, label: str
) -> None:
    told = tell(client, event(1, result=result))
    assert (told["labeled"], told["without_class"]) == ((1, 0) if label else (0, 1))
    daemon.models.manifest.task = "detection"
    told = tell(client, event(2, "1.png", result=result))
    assert (told["labeled"], told["without_class"]) == (1, 0)
    classified = {"0.png": f"label:{label}"} if label else {}
    assert daemon.state == {**classified, "1.png": f"label:{label}"}
