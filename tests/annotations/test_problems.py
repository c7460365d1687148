"""What is said of broken annotations."""

from __future__ import annotations

import pytest

from lloss.annotations import Problems
from lloss.errors import LabelError


def test_the_remedy_is_the_one_of_the_place() -> None:
    with pytest.raises(LabelError, match=r"^a: broken; fix it, or leave .* with --skip-bad$"):
        Problems().report("a", "broken")
    with pytest.raises(LabelError, match=r"with skip_bad = true in lloss\.toml$"):
        Problems(remedy="skip_bad = true in lloss.toml").report("a", "broken")


def test_an_error_after_labels_were_left_out_says_why_they_were() -> None:
    problems = Problems(skip=True)
    with pytest.raises(LabelError) as raised, problems.explaining():
        problems.report("l.csv: '0.png'", "may be 'a/0.png' or 'b/0.png'")
        raise LabelError("no label is left")
    assert str(raised.value) == (
        "no label is left; left out 1 broken annotation: l.csv: '0.png': may be 'a/0.png' or "
        "'b/0.png'"
    )


def test_an_error_is_explained_once_or_not_at_all() -> None:
    problems = Problems(skip=True)
    with pytest.raises(LabelError, match="^no label is left$"), problems.explaining():
        raise LabelError("no label is left")
    with pytest.raises(LabelError) as raised, problems.explaining():
        problems.report("a", "broken")
        raise LabelError(f"l.csv: {problems.summary()}; no image is left")
    assert str(raised.value).count("a: broken") == 1
