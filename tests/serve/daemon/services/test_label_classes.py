"""Which labels are accepted: known classes, and new ones if the request allows them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.label_classes import LabelClasses, NewClassError

NEW, WITHOUT = {"new_classes": True}, {"without": True}


def classes_of(
    bench: Any, *names: str, output: str = "prediction", sha256: str = "x"
) -> LabelClasses:
    manifest = SimpleNamespace(outputs={output: ()}, classes=names)
    models: Any = SimpleNamespace(sha256=sha256, current=SimpleNamespace(manifest=manifest))
    return LabelClasses(models, bench.images)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("kat", "cat"), ("CAT", "cat"), ("Dogs", "dog"), ("zebra", "Zebra crossing")],
)
def test_a_new_class_is_refused_with_the_nearest_known_one(
    bench: Any, name: str, nearest: str
) -> None:
    classes = classes_of(bench, "cat", "dog", "Zebra crossing")
    with pytest.raises(NewClassError, match=f"nearest known one is '{nearest}'") as error:
        classes.checked("p", {"000.png": "cat", "001.png": name})
    assert error.value.name == name and error.value.status == 422
    assert "none was marked" in str(error.value) and "allow_new_classes" in str(error.value)
    assert classes.checked("p", {"001.png": name}, **NEW) == ({"001.png": name}, [name])
    with pytest.raises(NewClassError, match=r"'a' \(and 2 more\) is new"):
        classes.checked("p", dict(zip("123", "abc")))


def test_earlier_labels_are_known_classes(bench: Any) -> None:
    for nothing_known in (classes_of(bench), classes_of(bench, sha256="")):
        assert nothing_known.new_in("p", ["owl", "cat"]) == []
    bench.images.label("p", {"000.png": "kitten", "001.png": ""})
    assert classes_of(bench, "cat").new_in("p", ["cat", "kitten", "owl", ""]) == ["owl"]
    assert classes_of(bench).new_in("p", ["owl", "kitten"]) == ["owl"]
    bench.images.unlabel("p", ["000.png"])
    assert classes_of(bench, "cat").new_in("p", ["kitten"]) == ["kitten"]


def test_labels_of_another_task_are_not_classes(bench: Any) -> None:
    labels = {"000.png": "seen", "001.png": ""}
    assert classes_of(bench, "cat", output="boxes").checked("p", labels) == (labels, [])


@pytest.mark.parametrize("sha256", ["x", ""])
def test_an_image_without_a_class_is_refused(bench: Any, sha256: str) -> None:
    classes = classes_of(bench, "cat", sha256=sha256)
    with pytest.raises(RequestError, match=r"choose a class first \(or skip\): '001.png' has no"):
        classes.checked("p", {"000.png": "cat", "001.png": ""}, **NEW)
    assert classes.checked("p", {"001.png": ""}, **WITHOUT)[0] == {"001.png": ""}
    bench.images.label("p", {"001.png": "cat"})
    assert classes.checked("p", {"001.png": ""})[0] == {"001.png": ""}, "it has one"


@pytest.mark.parametrize("label", [" ", "\t\n", "\u2003", "\u200b"])
@pytest.mark.parametrize("output", ["prediction", "boxes"])
def test_an_invisible_class_is_refused(bench: Any, label: str, output: str) -> None:
    for accepted in ({}, NEW, WITHOUT):
        with pytest.raises(RequestError, match=r"'001\.png' is .* no visible char"):
            classes_of(bench, "cat", output=output).checked("p", {"001.png": label}, **accepted)


def test_classes_are_compared_stripped_and_composed(bench: Any) -> None:
    labels = {"a": " cafe\u0301\u200b "}
    assert classes_of(bench, "caf\u00e9").checked("p", labels)[0] == {"a": "caf\u00e9"}
