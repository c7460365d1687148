"""What a name means, against the rule written out over all pairs."""

from __future__ import annotations

import random
from functools import partial

import pytest

from lloss.data.id_matching import Matches, agree, differs

SUFFIXES = ("png", "jpg", "JPG")


def split(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]


def stem(part: str) -> str:
    head, dot, end = part.rpartition(".")
    return head if dot and head and end in SUFFIXES else part


def ending(name: str) -> str:
    last = split(name)[-1]
    return last[len(stem(last)) :].lower()


def agreeing(name: str, id: str) -> bool:
    one, other = split(name), split(id)
    one[-1], other[-1] = stem(one[-1]), stem(other[-1])
    return all(a == b for a, b in zip(reversed(one), reversed(other)))


def by_formula(name: str, ids: list[str], own_suffix: bool) -> list[str]:
    """The rule, in its order."""
    if name in ids:
        return [name]
    same = [id for id in ids if split(id) == split(name)]
    if len(same) == 1:
        return same
    found = [id for id in ids if agreeing(name, id)]
    if own_suffix and ending(name):
        found = [id for id in found if ending(id) == ending(name)] or found
    return found


def paths(draw: random.Random, count: int) -> list[str]:
    """Of few parts, so that many agree."""
    heads = ["", "", "./", "/", "x/../"][: draw.choice([1, 3, 4])]
    found = set()
    for _ in range(count):
        parts = draw.choices(["a", "b", "cam1"], k=draw.randrange(4))
        last = draw.choice(["0", "1", "v1.2"]) + draw.choice(["", ".png", ".jpg", ".JPG", ".txt"])
        found.add(draw.choice(heads) + draw.choice("/\\").join([*parts, last]))
    return [path for path in sorted(found) if ".." not in path]


@pytest.mark.parametrize("own_suffix", [True, False])
def test_names_mean_what_the_rule_says(own_suffix: bool) -> None:
    seen = set()
    for seed in range(400):
        draw = random.Random(seed)
        ids, names = paths(draw, 1 + seed % 9), paths(draw, 6)
        draw.shuffle(ids)
        matches = Matches(partial(iter, ids), names, own_suffix)
        for name in names:
            expected, found = by_formula(name, ids, own_suffix), matches.of(name)
            shown = (name, ids, found, expected)
            assert len(found) == min(len(expected), 2), shown
            assert set(found) <= set(expected), shown
            seen.add(len(expected))
            if len(found) != 1:
                words = matches.why(name)
                assert all(repr(id) in words for id in found), shown
                assert ("write which" if found else "is not in the pool") in words
    assert {0, 1, 2, 3} <= seen


MEANT = [
    ("0000.png", ["b1/0000.png"], "b1/0000.png"),
    ("cam1/0000.png", ["cam2/0000.png"], None),
    ("cam1/0000", ["cam1/0000.png", "cam2/0000.png"], "cam1/0000.png"),
    ("./0000.png", ["0000.png", "b1/0000.png"], "0000.png"),
    ("b1\\0000.png", ["b1/0000.png", "x/b1/0000.png"], "b1/0000.png"),
    (r"C:\set\cam1\0000.png", ["cam1/0000.png", "cam2/0000.png"], "cam1/0000.png"),
    ("/0000.png", ["0000.png", "b1/0000.png"], "0000.png"),
    ("0", ["0.jpg", "x/0.png"], None),
    ("a/../b1/0000.png", ["b1/0000.png", "a/0000.png"], "b1/0000.png"),
    ("http://host.org/set/a%20b.png?v=1/2", ["set/a b.png", "b.png"], "set/a b.png"),
    ("http://host.org/set/1.png", ["other/1.png"], None),
    ("1.png", ["1.webp"], "1.webp"),
    ("1.png", ["1.txt"], None),
    ("1.v2", ["1.v2.png"], "1.v2.png"),
    ("A.png", ["a.png"], None),
    ("a.png", ["a.PNG"], "a.PNG"),
    ("a.png", ["a.PNG", "x/a.png"], None),
    ("", ["a.png"], None),
    ("a.png", ["", "..", "/"], None),
    ("img.jpg@1,2", ["in/img.jpg@1,2", "img.jpg"], "in/img.jpg@1,2"),
]


@pytest.mark.parametrize(("name", "ids", "expected"), MEANT)
def test_names_as_people_write_them(name: str, ids: list[str], expected: str | None) -> None:
    found = Matches(partial(iter, ids), [name]).of(name)
    assert (found if len(found) == 1 else [None]) == [expected]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Cam1/a.png", "cam1/a.png"),
        (" cam1/\u200ba.png ", "cam1/a.png"),
        ("\u00e9.png", "e\u0301.png"),
        ("cam3/a.png", "cam1/a.png"),
        ("other.png", ""),
    ],
)
def test_what_nearly_matched_is_reported(name: str, near: str) -> None:
    ids = ["cam1/a.png", "cam2/a.png", "e\u0301.png"]
    matches = Matches(partial(iter, ids), [name, "no more"])
    assert matches.of(name) == []
    expected = f"the nearest is {near!r}: compare folder" if near else "its ids look like 'cam1/a.p"
    assert expected in matches.why(name)
    assert "it is empty" in Matches(partial(iter, ()), [name]).why(name)


def test_agreement_is_of_all_parts_that_both_have() -> None:
    assert agree("x/a.png", "a.jpg") and agree("a", "x/a.png") and agree("", "")
    assert not agree("x/a.png", "y/a.png") and not agree("", "a.png")
    assert differs("x/a.png", "a.png") and differs("a.jpg", "a.png")
    assert not differs("./a.png", "a.png") and not differs("a", "a.png")
    assert not differs("a.png", "a.jpg", own_suffix=False)
