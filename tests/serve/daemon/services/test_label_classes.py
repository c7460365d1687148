"""Which labels are accepted: of known classes, and of new ones where that is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.label_classes import Accepted, Classes, NewClassError

NEW, WITHOUT = Accepted(new_classes=True), Accepted(without=True)


def classes_of(bench: Any, *names: str, task: str = "classification", sha256: str = "x") -> Classes:
    manifest = SimpleNamespace(task=task, classes=names)
    models: Any = SimpleNamespace(sha256=sha256, manifest=manifest)
    return Classes(models, bench.catalog.images)


def test_a_new_class_is_refused_with_the_nearest_known_one(bench: Any) -> None:
    classes = classes_of(bench, "cat", "dog", "Zebra crossing")
    for name, known in [
        ("kat", "cat"),
        ("CAT", "cat"),
        ("Dogs", "dog"),
        ("zebra", "Zebra crossing"),
    ]:
        with pytest.raises(NewClassError, match=f"nearest known one is '{known}'") as error:
            classes.checked("p", {"000.png": "cat", "001.png": name}, Accepted())
        assert error.value.name == name and error.value.status == 422
        assert "none was marked" in str(error.value) and "allow_new_classes" in str(error.value)
        assert classes.checked("p", {"001.png": name}, NEW) == {"001.png": name}
    with pytest.raises(NewClassError, match=r"'a' \(and 2 more\) is new"):
        classes.checked("p", dict(zip("123", "abc")), Accepted())


def test_labels_that_are_there_already_are_known(bench: Any) -> None:
    classes = classes_of(bench, "cat")
    bench.selections.label("p", {"000.png": "kitten", "001.png": ""})
    assert classes.new_in("p", ["cat", "kitten", "owl", ""]) == ["owl"]
    bench.selections.unlabel("p", ["000.png"])
    assert classes.new_in("p", ["kitten"]) == ["kitten"]


def test_where_no_class_is_known_anything_goes(bench: Any) -> None:
    for classes in (classes_of(bench), classes_of(bench, sha256="")):
        assert classes.new_in("p", ["owl", "cat"]) == []
    bench.selections.label("p", {"000.png": "owl"})
    assert classes_of(bench).new_in("p", ["owl", "cat"]) == ["cat"]


def test_labels_of_another_task_are_no_class_names(bench: Any) -> None:
    classes = classes_of(bench, "cat", task="detection")
    assert classes.checked("p", {"000.png": "seen", "001.png": ""}, Accepted()) == {
        "000.png": "seen", "001.png": "",
    }  # fmt: skip


@pytest.mark.parametrize("sha256", ["x", ""])
def test_an_image_without_a_class_is_refused(bench: Any, sha256: str) -> None:
    classes = classes_of(bench, "cat", sha256=sha256)
    with pytest.raises(RequestError, match=r"choose a class first \(or skip\): '001.png' has no"):
        classes.checked("p", {"000.png": "cat", "001.png": ""}, NEW)
    assert classes.checked("p", {"001.png": ""}, WITHOUT) == {"001.png": ""}
    bench.selections.label("p", {"001.png": "cat"})
    assert classes.checked("p", {"001.png": ""}, Accepted()) == {"001.png": ""}, "it has one"


@pytest.mark.parametrize("label", [" ", "\t\n", "\u2003", "\u200b"])
@pytest.mark.parametrize("accepted", [Accepted(), NEW, WITHOUT])
@pytest.mark.parametrize("task", ["classification", "detection"])
def test_a_class_that_nobody_can_see_is_refused(
    bench: Any, label: str, accepted: Accepted, task: str
) -> None:
    classes = classes_of(bench, "cat", task=task)
    bench.selections.label("p", {"001.png": "cat"})
    with pytest.raises(RequestError, match=r"choose a class .* '001\.png' is .* no visible char"):
        classes.checked("p", {"000.png": "cat", "001.png": label}, accepted)


def test_names_are_compared_stripped_and_composed(bench: Any) -> None:
    classes = classes_of(bench, "caf\u00e9")
    assert classes.checked("p", {"a": " cafe\u0301\u200b "}, Accepted()) == {"a": "caf\u00e9"}
