"""Counts and their words agree."""

from __future__ import annotations

import pytest

from lloss.text.counts import NEAR, counted, part


@pytest.mark.parametrize(
    ("count", "said", "having"),
    [
        (0, "no images", "no rows have"),
        (1, "1 image", "1 row has"),
        (2, "2 images", "2 rows have"),
        (12_000, "12,000 images", "12,000 rows have"),
    ],
)
def test_words_follow_the_count(count: int, said: str, having: str) -> None:
    assert counted(count, "image") == said
    assert counted(count, "row has", "rows have") == having


@pytest.mark.parametrize(
    ("verb", "one", "two"),
    [
        ("have", "1 of 4,000 rows has", "2 of 4,000 rows have"),
        ("match", "1 of 4,000 rows matches", "2 of 4,000 rows match"),
        ("show", "1 of 4,000 rows shows", "2 of 4,000 rows show"),
        (NEAR, "1 of 4,000 rows is a near-duplicate", "2 of 4,000 rows are near-duplicates"),
    ],
)
def test_verbs_follow_the_part(verb: str, one: str, two: str) -> None:
    assert part(1, 4000, "rows", verb) == one and part(2, 4000, "rows", verb) == two
