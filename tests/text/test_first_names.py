"""A message lists a few names, and shows that there are more."""

from __future__ import annotations

import pytest

from lloss.text.first_names import first_names


@pytest.mark.parametrize(
    ("names", "listed"), [([], ""), (["a", "b"], "a, b"), (["a", "b", "c"], "a, b, …")]
)
def test_names_beyond_the_most_become_an_ellipsis(names: list[str], listed: str) -> None:
    assert first_names(names, 2) == listed
